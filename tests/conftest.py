"""What several files of tests look at: a run costs seconds, so it is made once."""

from pathlib import Path

import pytest

from tests.runs import call, config, quick_emulator


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through at once; what is to be changed is done to a copy."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        assert call("run", config(folder), "--out", folder / "run") == 0
    return folder / "run"
