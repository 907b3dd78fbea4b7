"""Whole runs on tiny Gaussian fields: every file, resumed at any point, and the same numbers each time."""

import json
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from getdist import loadMCSamples

from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
from eorinfer.training import trainer as training
from simulators import GaussianField
from tests.runs import PATIENCE, call, config, imported_config, quick_emulator, start, wait_until

# getdist's own
pytestmark = pytest.mark.filterwarnings("ignore:The format attribute was deprecated")

FILES = {
    "config.toml",
    "observation.h5",
    "bank/bank.json",
    "posterior/posterior.json",
    "posterior/weights.safetensors",
    "posterior/reference.safetensors",
    "posterior/regions/01/posterior.json",
    "posterior/regions/01/weights.safetensors",
    "posterior/regions/01/observation.h5",
    "rounds/01/round.json",
    "rounds/01/posterior/posterior.json",
    "rounds/01/posterior/weights.safetensors",
    "rounds/01/posterior/reference.safetensors",
    "rounds/02/round.json",
    "rounds/02/posterior/posterior.json",
    "rounds/02/posterior/weights.safetensors",
    "rounds/02/posterior/reference.safetensors",
    "rounds/02/posterior/regions/01/posterior.json",
    "rounds/02/posterior/regions/01/weights.safetensors",
    "rounds/02/posterior/regions/01/observation.h5",
    "emulator/emulator.json",
    "emulator/weights.safetensors",
    *(
        f"chains/{name}{end}"
        for name in ("npe", "mcmc")
        for end in (".txt", ".paramnames", ".ranges", ".properties.ini")
    ),
    "chains/mcmc.h5",
    "chains/mcmc.json",
    "chains/npe.json",
    "chains/predictive.json",
    "corner.png",
    "corner.pdf",
    "predictive.png",
    "predictive.pdf",
    "predictive-images.png",
    "predictive-images.pdf",
    "summary.json",
    "report.html",
}

#: A simulator of one's own that fails for a part of its seeds.
FRAGILE = """
from simulators import GaussianField, SimulationError

class Fragile(GaussianField):
    share: int = 10

    def simulate(self, theta, seed):
        if seed % 100 < self.share:
            raise SimulationError("no sources at this theta")
        return super().simulate(theta, seed)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    quick_emulator(monkeypatch)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every shard and chain."""
    files = [*folder.glob("bank/*/*.h5"), *folder.glob("chains/*.txt")]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def same_results(a: Path, b: Path) -> None:
    """The same simulations and the same chains, bit for bit."""
    ours, theirs = Bank.open(a / "bank"), Bank.open(b / "bank")
    assert [plan.id for plan in ours.plans()] == [plan.id for plan in theirs.plans()]
    rows, other = ours.rows(), theirs.rows()
    assert rows.seed.tobytes() == other.seed.tobytes()
    assert ours.read("field", rows).tobytes() == theirs.read("field", other).tobytes()
    for chain in ("npe", "mcmc"):
        assert (a / "chains" / f"{chain}.txt").read_bytes() == (b / "chains" / f"{chain}.txt").read_bytes(), chain
    assert Observation.read(a / "observation.h5", GaussianField(cells=8, box_length=8.0).observables[0]).seed


def test_it_leaves_every_file_and_no_other(whole: Path) -> None:
    found = {str(f.relative_to(whole)) for f in whole.rglob("*") if f.is_file()}
    in_bank = {f for f in found if f.startswith(("bank/rounds/", "bank/shards/"))}
    assert found - in_bank == FILES
    assert len(in_bank) == 6


def test_getdist_reads_both_chains(whole: Path) -> None:
    for name in ("npe", "mcmc"):
        chain = loadMCSamples(str(whole / "chains" / name), no_cache=True)
        ours = Samples.read(whole / "chains" / name)
        assert chain.getParamNames().list() == ["log_amplitude", "slope"]
        assert chain.numrows == len(ours) > 50
        np.testing.assert_allclose(chain.getMeans(), ours.mean)
        assert chain.ranges.getLower("slope") == -3.0
        assert (ours.values >= [-2.0, -3.0]).all()
        assert (ours.values <= [3.0, 0.0]).all()


def test_the_summary_counts_what_was_done(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["simulations"]["ok"] == 48 + 24 + 5
    assert [(r["round"], r["simulations"]) for r in summary["rounds"]] == [(1, 48), (2, 72)]
    assert summary["rounds"][0]["volume"] == 1.0
    assert 0 < summary["rounds"][1]["volume"] <= 1
    assert summary["mcmc"]["simulations"] == 72
    assert (summary["mcmc"]["converged"], summary["mcmc"]["steps"]) == (False, 80)
    assert summary["posteriors"]["npe"]["parameters"]["slope"]["truth"] == -1.5
    assert summary["predictive"]["simulations"] == 5


def test_the_mock_is_in_no_bank_row(whole: Path) -> None:
    observation = Observation.read(whole / "observation.h5", GaussianField(cells=8, box_length=8.0).observables[0])
    assert observation.theta is not None
    assert observation.theta.tolist() == [0.5, -1.5]
    assert observation.seed is not None
    rows = Bank.open(whole / "bank").rows()
    assert len(rows) == 77
    assert observation.seed not in rows.seed
    clean = GaussianField(cells=8, box_length=8.0).simulate(observation.theta, observation.seed)["field"]
    assert 0.2 < (observation.values - clean).std() < 0.4, "the clean cube and noise of sigma 0.3"


def test_a_second_call_does_nothing_new(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(whole)
    path = whole.parent / "run.toml"
    weights = (whole / "rounds/02/posterior/weights.safetensors").stat().st_mtime_ns
    assert call("infer", path, "--out", whole) == 0
    assert call("mcmc", path, "--out", whole) == 0
    after = content(whole)
    assert {k: v for k, v in after.items() if k.startswith("bank")} == {
        k: v for k, v in before.items() if k.startswith("bank")
    }
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    assert (whole / "rounds/02/posterior/weights.safetensors").stat().st_mtime_ns == weights
    out = capsys.readouterr().out
    assert "72 simulations in 2 round(s) and 5 for the predictive check, all of them in the bank" in out
    assert "simulating" not in out
    assert "network" not in out
    assert "emulator" not in out


def test_step_by_step_is_the_same(whole: Path, tmp_path: Path) -> None:
    path = config(tmp_path)
    for step in ("simulate", "observe", "infer", "mcmc", "plot"):
        assert call(step, path, "--out", tmp_path / "run") == 0
    same_results(tmp_path / "run", whole)
    ours, theirs = (read_json(folder / "summary.json") for folder in (tmp_path / "run", whole))
    assert ours["posteriors"] == theirs["posteriors"]
    assert ours["predictive"] == theirs["predictive"]


def test_more_rounds_go_on_in_the_same_folder(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("infer", config(tmp_path, inference={"rounds": [48], "predictive": 0}), "--out", out) == 0
    before = content(out)
    assert call("infer", config(tmp_path), "--out", out) == 0
    after = content(out)
    assert {k: after[k] for k in before if k.startswith("bank")} == {
        k: v for k, v in before.items() if k.startswith("bank")
    }
    assert (out / "chains/npe.txt").read_bytes() == (whole / "chains/npe.txt").read_bytes()


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    whole: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the fit of the second round, or in one of the emulator's."""
    path, out = config(tmp_path), tmp_path / "run"
    left = stop
    end = training.EpochProgress.on_train_epoch_end

    def interrupt(self: training.EpochProgress, trainer: Any, module: Any) -> None:
        nonlocal left
        end(self, trainer, module)
        if trainer.current_epoch == 1:
            left -= 1
            if not left:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.EpochProgress, "on_train_epoch_end", interrupt)
        assert call("run", path, "--out", out) == 1
    assert "stopped; what was computed is kept, and the same command continues from there" in capsys.readouterr().err
    assert not (out / "summary.json").exists()
    assert call("infer", path, "--out", out) == 0
    assert call("mcmc", path, "--out", out) == 0
    same_results(out, whole)
    assert not list(out.rglob("*checkpoints*")), "a whole run keeps no checkpoints"


def test_it_is_killed_and_goes_on_and_writes_nowhere_else(whole: Path, tmp_path: Path) -> None:
    path, out = config(tmp_path), tmp_path / "run"
    process = start(tmp_path, "run", path, "--out", out)
    wait_until(lambda: list(out.glob("rounds/02/checkpoints-*/*/*")), process)
    process.kill()
    process.communicate()
    assert not (out / "summary.json").exists()
    shards = {f: f.stat().st_mtime_ns for f in (out / "bank/shards").glob("*.h5")}
    assert len(shards) == 2

    process = start(tmp_path, "run", path, "--out", out)
    text, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "round 1, network" not in text
    assert {f: f.stat().st_mtime_ns for f in shards} == shards
    ours, theirs = Bank.open(out / "bank"), Bank.open(whole / "bank")
    # Networks of another process may differ in the last digit, and what is drawn from them with it.
    first = [bank.rows([plan for plan in bank.plans() if plan.number == 1]) for bank in (ours, theirs)]
    assert ours.read("field", first[0]).tobytes() == theirs.read("field", first[1]).tobytes()
    assert ours.rows().counts() == theirs.rows().counts()
    found = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert {f for f in found if not f.startswith(("bank/rounds/", "bank/shards/"))} == FILES
    assert list((tmp_path / "home").iterdir()) == []
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed = 2, but "),
        ({"inference": {"rounds": [40, 24]}}, "[inference] rounds = [40, 24], but "),
        ({"inference": {"rounds": [48]}}, "[inference] rounds = [48], but "),
        ({"survey": {"sigma": 0.4}}, "[survey] sigma = 0.4, but "),
        ({"training": {"steps": 13}}, "[training] steps = 13, but "),
        ({"prior": {"slope": [-2.0, 0.0]}}, "[prior] slope = [-2.0, 0.0], but "),
        ({"observation": {"theta": {"log_amplitude": 0.6, "slope": -1.5}}}, "[observation] theta.log_amplitude = 0.6"),
        ({"simulator": {"cells": 16}}, "[simulator] cells = 16, but "),
        ({"simulator": {"cells": 16}, "embedding": {"width": 8}}, "[simulator] cells = 16, but "),
        ({"bank": {"path": "elsewhere"}}, "[bank] path = "),
    ],
)
def test_another_config_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    before = (whole / "config.toml").read_bytes()
    assert call("run", config(tmp_path, **change), "--out", whole) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert f"run.toml: {message}" in errors
    assert "give another --out" in errors
    assert len(errors.splitlines()) == 1
    assert (whole / "config.toml").read_bytes() == before


def test_an_input_that_is_refused_does_not_bind_the_folder(tmp_path: Path) -> None:
    """The first observation is of the wrong shape; the right one is taken by the same folder."""
    out = tmp_path / "run"
    for name, shape in (("bad.npy", (1, 4, 4)), ("good.npy", (1, 8, 8))):
        np.save(tmp_path / name, np.ones(shape, np.float32))
    for name, code in (("bad.npy", 2), ("good.npy", 0), ("bad.npy", 2)):
        path = config(tmp_path, observation={"theta": None, "file": name})
        assert call("observe", path, "--out", out) == code


@pytest.mark.parametrize(("share", "code"), [(30, 1), (10, 0)])
def test_failed_simulations(tmp_path: Path, capsys: pytest.CaptureFixture[str], share: int, code: int) -> None:
    (tmp_path / "mine.py").write_text(FRAGILE)
    path = config(tmp_path, simulator={"kind": "mine:Fragile", "share": share})
    for _ in range(2):  # the failures of an earlier call count
        assert call("simulate", path, "--out", tmp_path / "run") == code
        out, errors = capsys.readouterr()
        bad = Bank.open(tmp_path / "run/bank").rows().counts()["failed"]
        line = f"round 1: {bad} of 48 simulations failed ({bad} failed); for example: no sources at this theta"
        if code:
            assert errors == f"eorinfer: {line}; more than [executor] failure_share = 0.2\n"
        else:
            assert line in out.splitlines()


def test_runs_that_share_a_bank_keep_their_rows(tmp_path: Path) -> None:
    small = config(tmp_path, "small.toml", bank={"path": "bank"}, inference={"rounds": [20]})
    large = config(tmp_path, "large.toml", bank={"path": "bank"}, inference={"rounds": [50]}, seed=2)
    assert call("simulate", small, "--out", tmp_path / "small") == 0
    first = read_json(tmp_path / "small/rounds/01/round.json")
    assert call("simulate", large, "--out", tmp_path / "large") == 0
    bank = Bank.open(tmp_path / "bank")
    assert len(bank.rows()) == 50, "the first 20 are used again"
    assert call("simulate", small, "--out", tmp_path / "small") == 0
    assert read_json(tmp_path / "small/rounds/01/round.json") == first
    assert len(bank.rows()) == 50


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """The config of a run on cubes that exist already, and the cubes."""
    return imported_config(tmp_path, 60, inference={"rounds": [60], "predictive": 5})


def test_imported_cubes_run_to_the_end(tmp_path: Path, imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert call("run", imported, "--out", out) == 2
    text, error = capsys.readouterr()
    assert "sky.npy has no header" in text
    assert "rounds = [60], but " in error
    assert "holds 0 imported cubes with this prior" in error
    put = (
        "bank",
        "import",
        imported,
        "--out",
        out,
        "--theta",
        tmp_path / "theta.npy",
        "--seeds",
        tmp_path / "seeds.npy",
    )
    assert call(*put, "--cubes", tmp_path / "cubes.npy") == 0
    assert call(*put, "--cubes", tmp_path / "cubes.npy") == 0, "a second time changes nothing"
    assert call("run", imported, "--out", out) == 0
    text = capsys.readouterr().out
    assert "bank: 60 rows imported" in text
    assert "predictive check: left out, imported cubes cannot be simulated anew" in text
    assert (out / "corner.png").exists()
    assert not (out / "predictive.png").exists()
    summary = read_json(out / "summary.json")
    assert summary["simulations"]["ok"] == 60
    assert "truth" not in summary["posteriors"]["npe"]["parameters"]["n"]


def test_the_first_of_sorted_cubes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = imported_config(tmp_path, 120, inference={"rounds": [60], "predictive": 0})
    order = np.argsort(np.load(tmp_path / "theta.npy")[:, 0])
    for name, chosen in (("sorted", order), ("as drawn", np.arange(120))):
        for array in ("theta", "cubes"):
            np.save(tmp_path / f"{name} {array}.npy", np.load(tmp_path / f"{array}.npy")[chosen])
        files = ("--theta", tmp_path / f"{name} theta.npy", "--cubes", tmp_path / f"{name} cubes.npy")
        assert call("bank", "import", path, "--out", tmp_path / name, *files) == 0
        capsys.readouterr()
        code = call("simulate", path, "--out", tmp_path / name)
        text, error = capsys.readouterr()
        if name == "sorted":
            assert code == 2
            assert "rounds = [60]: the first 60 of 120 imported cubes are not drawn from the prior: lnA is not" in error
            assert "Ask for all, rounds = [120], or import the files in random order" in error
        else:
            assert (code, error) == (0, "")
            assert "round 1: the first 60 of 120 imported cubes are used" in text


def test_bank_info_and_verify(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bank", "info", whole / "bank") == 0
    out = capsys.readouterr().out
    assert "gaussian-field" in out
    assert "48 planned; 48 ok" in out
    assert "(round 00: truths of tests, predictive checks" in out
    assert "77 rows" in out
    shutil.copytree(whole / "bank", tmp_path / "bank")
    assert call("bank", "verify", tmp_path / "bank") == 0
    assert "77 rows are whole" in capsys.readouterr().out
    shard = next((tmp_path / "bank/shards").glob("01-*.h5"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert call("bank", "verify", tmp_path / "bank") == 1
    out, errors = capsys.readouterr()
    assert shard.name in out
    assert "1 damaged file(s); --repair sets them aside" in errors
    assert call("bank", "verify", tmp_path / "bank", "--repair") == 0
    assert "29 rows are whole" in capsys.readouterr().out


def test_a_trained_posterior_is_used_again(whole: Path, tmp_path: Path) -> None:
    simulator = GaussianField(cells=8, box_length=8.0)
    np.save(tmp_path / "new.npy", simulator.simulate(np.array([1.0, -2.0]), 77)["field"])
    first = ("infer", "--posterior", whole / "rounds/01/posterior", "--observation", tmp_path / "new.npy")
    assert call(*first, "--out", tmp_path / "a", "--samples", 200) == 0
    assert {f.name for f in (tmp_path / "a").iterdir()} >= {"corner.png", "corner.pdf", "summary.json", "chains"}
    assert len(Samples.read(tmp_path / "a/chains/npe")) == 200
    own = ("infer", "--posterior", whole / "posterior", "--observation", whole / "observation.h5")
    assert call(*own, "--out", tmp_path / "b", "--samples", 100) == 0
    assert read_json(tmp_path / "b/summary.json")["posteriors"]["npe"]["parameters"]["slope"]["truth"] == -1.5


def test_a_posterior_used_again_and_a_run_do_not_share_a_folder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run went on with the observation of another, and its own was lost."""
    np.save(tmp_path / "new.npy", GaussianField(cells=8, box_length=8.0).simulate(np.array([1.0, -2.0]), 77)["field"])
    again = ("infer", "--posterior", whole / "posterior", "--observation", tmp_path / "new.npy")
    before = {path: path.read_bytes() for path in whole.glob("chains/*") if path.is_file()}
    assert call(*again, "--out", whole) == 2
    assert f"{whole}: holds a run (config.toml), whose observation and posterior would be" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
    assert call(*again, "--out", tmp_path / "again") == 0
    # The same once more is fine; another observation, or a run, is not.
    assert call(*again, "--out", tmp_path / "again", "--samples", 10) == 0
    np.save(tmp_path / "other.npy", 1.1 * np.load(tmp_path / "new.npy"))
    kept = (tmp_path / "again/chains/npe.txt").read_bytes()
    assert call(*again[:-1], tmp_path / "other.npy", "--out", tmp_path / "again") == 2
    assert "again: holds the posterior of another observation, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "again/chains/npe.txt").read_bytes() == kept
    for step in ("plot", "infer"):
        assert call(step, whole.parent / "run.toml", "--out", tmp_path / "again") == 2
        assert "again holds the posterior of another observation" in capsys.readouterr().err
    assert not (tmp_path / "again/bank").exists()


def test_a_corner_that_cannot_be_drawn_leaves_no_older_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, out := tmp_path / "run")
    (out / "corner_mine.png").touch()

    def fail(*posteriors: Samples, **options: object) -> None:
        raise ValueError("no room for labels")

    monkeypatch.setattr("eorinfer.run.results.corner", fail)
    assert call("plot", whole.parent / "run.toml", "--out", out) == 0
    said = capsys.readouterr().out
    assert "corner.png: cannot be drawn (ValueError: no room for labels)" in said
    assert "/corner.png" not in said
    assert not (out / "corner.png").exists()
    assert not (out / "corner.pdf").exists()
    assert (out / "corner_mine.png").exists()


def test_pictures_that_cannot_be_written_leave_the_older_ones(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were removed before the new ones were drawn, and a full disk left none."""
    shutil.copytree(whole, out := tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.glob("corner*.p*")}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        assert call("plot", whole.parent / "run.toml", "--out", out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "corner.png: cannot be written (File too large); an existing file is kept" in capsys.readouterr().err
    assert {"corner.png", "corner.pdf"} <= before.keys()
    assert {path.name: path.read_bytes() for path in out.glob("corner*.p*")} == before
