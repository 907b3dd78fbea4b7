"""The setting of the separation's scripts: a folder that holds other mocks is left as it is."""

from pathlib import Path

import pytest

from benchmarks.separation_setting import separation_step
from eorinfer.core.errors import InputError


def test_other_mocks_are_refused_before_the_config_is_replaced(tmp_path: Path) -> None:
    def step(channels: int) -> None:
        simulator = {"geometry": "cubes", "pixels": 16, "channels": channels, "rows_per_realisation": 1}
        separation_step(
            tmp_path, "cubes", "noise-free", simulator, {"simulations": 8, "width": 4, "widest": 8}, seed=1, workers=1
        )

    step(11)
    before = (tmp_path / "cubes.toml").read_bytes()
    with pytest.raises(InputError, match="channels"):
        step(12)
    assert (tmp_path / "cubes.toml").read_bytes() == before
