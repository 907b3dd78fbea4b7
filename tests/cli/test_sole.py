"""Two commands in one run folder: the second says which other one is at work, and begins nothing."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eorinfer import Run, WorkError, load_config
from tests.core.test_sole import holder
from tests.runs import call, config

pytestmark = pytest.mark.job


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_the_second_command_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, path = tmp_path / "run", config(tmp_path)
    out.mkdir()
    first = holder(out / "command")
    for command in ("run", "observe", "infer", "mcmc", "plot", "validate", "contest", "image-flow train"):
        assert call(*command.split(), path, "--out", out) == 1, command
        error = capsys.readouterr().err
        assert error.startswith(f"eorinfer: {out}: another command is at work here (process {first.pid} on "), command
    run = Run(load_config(path), out)
    for step in (run.observe, run.infer, run.mcmc, run.plot, run.validate, run.all):
        with pytest.raises(WorkError, match="another command is at work here"):
            step()
    assert not (out / "rounds").exists()
    first.kill()
    first.wait()
    # It died and left its file: plot says what it would have said by itself.
    assert call("plot", path, "--out", out) == 2
    assert "no chain to plot" in capsys.readouterr().err
    assert not list(out.glob(".at-work*"))


def test_campaigns_share_a_bank(tmp_path: Path) -> None:
    out, path = tmp_path / "run", config(tmp_path, inference={"rounds": [4]})
    out.mkdir()
    first = holder(out / "command")
    assert call("simulate", path, "--out", out) == 0
    assert call("report", out) == 0, "the page shows how far it is"
    first.kill()
    first.wait()
