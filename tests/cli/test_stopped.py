"""What a stopped command says that it leaves: work only where there is some."""

from pathlib import Path

import pytest

from eorinfer.bank.store import Bank
from eorinfer.campaign.children import end_all
from eorinfer.cli.stopped import what_is_left
from eorinfer.run.run import Run
from simulators import GaussianField
from tests.banks import a_plan, write
from tests.runs import call, config

NOTHING = "stopped before anything was computed; the same command begins anew"
KEPT = "stopped; what was computed is kept, and the same command continues from there"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["eorinfer.run.config.load_config", "eorinfer.run.run.Run.preflight"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_stop_before_anything_was_computed(
    tmp_path: Path, where: str, shared: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planned is not computed, and a bank may be elsewhere."""
    path = config(tmp_path, **({"bank": {"path": "shared"}} if shared else {}))
    out, preflight = tmp_path / "run", Run.preflight

    def stopped(run: Run) -> None:
        preflight(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, stopped if where.endswith("preflight") else interrupt)
        assert call("simulate", path, "--out", out) == 1
    assert capsys.readouterr().err == f"eorinfer: {NOTHING}\n"
    assert what_is_left(["simulate", str(path), f"--out={out}"]) == NOTHING
    assert call("simulate", path, "--out", out) == 0
    assert what_is_left(["simulate", str(path), f"--out={out}"]) == KEPT
    end_all()


def test_any_row_is_kept(tmp_path: Path) -> None:
    """Locks and plans are no work, and one shard is."""
    simulator = GaussianField(cells=8)
    bank = Bank.create(tmp_path / "run/bank", simulator)
    plan = bank.add(a_plan(4, 2))
    (tmp_path / "run/.at-work-command").touch()
    (tmp_path / "run/mine.py").touch()
    assert what_is_left(["run", "a.toml", "--out", str(tmp_path / "run")]) == NOTHING
    write(bank, plan, 1, simulator)
    assert what_is_left(["run", "a.toml", "--out", str(tmp_path / "run")]) == KEPT
