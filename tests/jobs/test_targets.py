"""A run whose targets are inferred in place of theta: posterior, results, validation, and what is refused."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json
from eorinfer.core.prior import Prior
from eorinfer.npe.posterior import Posterior
from eorinfer.report.terminal import closing_lines
from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import config


def test_a_run_of_targets(tmp_path: Path) -> None:
    inference = {"rounds": [60], "targets": ["slope"]}
    path = config(tmp_path, inference=inference, validation={"truths": 24, "samples": 100, "references": 0})
    run = Run(load_config(path), tmp_path / "out")
    samples = run.infer()
    assert samples.names == ["slope"]
    posterior = Posterior.load(run.out / "posterior")
    theta = run.bank.rows().ok.theta[:, 1]
    assert (posterior.prior.low[0], posterior.prior.high[0]) == (theta.min(), theta.max())
    assert not (run.out / "chains" / "predictive.json").exists(), "theta is not known"
    run.plot()
    assert (run.out / "corner-npe.png").exists()
    assert closing_lines(run.out)[1].split()[:2] == ["slope", "-1.5"]
    assert Prior.read(run.out) is None, "the prior of a parameter is the config's"
    with suppress(WorkError):  # 12 steps of training may be too few to be calibrated
        run.validate()
    found = read_json(run.out / "validation.json")
    assert list(found["recovery"]) == ["slope"]
    assert np.isfinite(found["information_gain"]["mean"])
    other = config(tmp_path, "other.toml", inference=inference | {"targets": ["log_amplitude"]})
    with pytest.raises(InputError, match=r"\[inference\] targets = \['log_amplitude'\], but .* holds a run with"):
        Run(load_config(other), run.out)


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"rounds": [40, 20], "targets": ["slope"]}, 'targets: only with method = "npe" and one round'),
        ({"rounds": [40], "targets": ["tau"]}, r'\[inference\] targets: "tau" is no parameter and no array'),
    ],
)
def test_targets_that_are_refused(tmp_path: Path, inference: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(config(tmp_path, inference=inference))
