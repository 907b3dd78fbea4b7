"""`eorinfer validate` on tiny runs: what it writes, what it says, and its exit codes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json
from eorinfer.npe.network import PosteriorNetwork
from simulators import GaussianField
from tests.runs import call, config, imported_config, quick_emulator

SMALL: dict[str, Any] = {"truths": 60, "samples": 100, "references": 3}
ONE_ROUND: dict[str, Any] = {"inference": {"rounds": [120], "predictive": 0}, "validation": SMALL}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one round with an emulator; never validated itself."""
    folder = tmp_path_factory.mktemp("trained")
    path = config(folder, **ONE_ROUND)
    assert call("infer", path, "--out", folder / "run") == 0
    assert call("mcmc", path, "--out", folder / "run") == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained / "run", tmp_path / "run")
    config(tmp_path, **ONE_ROUND)
    return tmp_path


def validate(folder: Path, **tables: Any) -> int:
    return call("validate", config(folder, **(ONE_ROUND | tables)), "--out", folder / "run")


def as_the_prior(patch: pytest.MonkeyPatch, width: float = 1.0) -> None:
    """Networks that say the prior, which is calibrated; or the middle of it, which is not."""

    def sample(self: PosteriorNetwork, n: int, features: Tensor) -> Tensor:
        u = 0.5 + width * (torch.rand(n, len(features), len(self.low), dtype=torch.float64) - 0.5)
        return self.low + (self.high - self.low) * u

    def log_prob(self: PosteriorNetwork, theta: Tensor, features: Tensor) -> Tensor:
        distance = ((theta - self.low) / (self.high - self.low) - 0.5).abs().amax(-1)
        return torch.where(distance <= width / 2, 0.0, -50.0 * distance).double()

    patch.setattr(PosteriorNetwork, "sample", sample)
    patch.setattr(PosteriorNetwork, "log_prob", log_prob)


def test_a_calibrated_posterior(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    as_the_prior(monkeypatch)
    capsys.readouterr()
    assert validate(run) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    last = out.splitlines()[-1]
    assert last.startswith("calibrated: smallest p-value ")
    assert "; with 60 test cases an error of -" in last
    assert "60 simulated truths from the prior; 100 samples of each" in out
    found = read_json(run / "run/validation.json")
    assert found["calibrated"] is True
    assert found["verdict"] == last
    assert {test["quantity"] for test in found["tests"]} == {"log_amplitude", "slope", "coverage", "tarp"}
    assert all(0 <= test["p"] <= test["p_holm"] <= 1 for test in found["tests"])
    assert 0.2 < found["smallest_visible"]["width_too_narrow"] < 0.6
    for name in ("log_amplitude", "slope"):
        assert found["recovery"][name]["std_over_prior"] == pytest.approx(1.0, rel=0.1)
    assert set(found["widths_over"]) == {"power-spectrum", "exact"}
    assert found["widths_over"]["exact"]["observations"] == 3
    assert found["widths_over"]["exact"]["std"]["slope"]["median"] > 1, "the prior is wider than the exact posterior"
    assert found["misspecification"]["unlike"] is False
    assert found["misspecification"]["false_alarms"] <= 0.1
    assert {"held_out_negative_log_likelihood", "information_gain", "expected_coverage"} <= found.keys()
    for name in ("validation.png", "validation.pdf"):
        assert (run / "run" / name).stat().st_size > 10_000


def test_one_that_is_too_narrow_ends_with_1(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_the_prior(monkeypatch, width=0.5)
    capsys.readouterr()
    assert validate(run) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("eorinfer: NOT calibrated: log_amplitude is too narrow, slope is too narrow")
    assert "in 80% of validations" in errors
    assert len(errors.splitlines()) == 1
    assert read_json(run / "run/validation.json")["calibrated"] is False
    assert (run / "run/validation.png").exists()


def test_a_trained_network_is_validated_without_new_simulations_the_second_time(run: Path) -> None:
    before = len(Bank.open(run / "run/bank").rows())
    codes = [validate(run), validate(run)]
    assert codes[0] == codes[1]
    bank = Bank.open(run / "run/bank")
    rows = bank.rows()
    truths = rows[rows.round == 0]
    assert len(rows) == before + 100, "a shard is filled whole"
    assert len(set(rows.seed.tolist())) == len(rows), "each truth is a realisation of its own"
    first = {f: f.stat().st_mtime_ns for f in (run / "run/bank/shards").iterdir()}
    validate(run, validation=SMALL | {"truths": 130})
    after = Bank.open(run / "run/bank").rows()
    assert all(f.stat().st_mtime_ns == t for f, t in first.items() if f.name.startswith("01"))
    assert {t.tobytes() for t in truths.theta} <= {t.tobytes() for t in after[after.round == 0].theta}, "they are kept"
    assert read_json(run / "run/validation.json")["truths"] == 130


def test_rows_that_training_held_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(Bank.open(run / "run/bank").rows())
    few = SMALL | {"simulate": False}
    capsys.readouterr()
    assert validate(run, validation=few) == 2
    errors = capsys.readouterr().err
    assert "run.toml: validation needs at least 20 truths, there are " in errors
    assert "that training held out (some of them chose its weights)" in errors
    assert "[training] validation_fraction" in errors
    assert len(Bank.open(run / "run/bank").rows()) == before


def test_imported_cubes_are_validated_with_what_was_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"inference": {"rounds": [160], "predictive": 0}, "training": {"validation_fraction": 0.4}}
    path = imported_config(tmp_path, 160, sky=1000.0, validation=SMALL, **tables)
    out = tmp_path / "run"
    files = [f"--{name}={tmp_path / name}.npy" for name in ("theta", "cubes", "seeds")]
    assert call("bank", "import", path, "--out", out, *files) == 0
    capsys.readouterr()
    assert call("infer", path, "--out", out) == 0
    assert "WARNING: the observation is unlike the simulations" in capsys.readouterr().out, (
        "a thousand times too bright"
    )
    assert call("validate", path, "--out", out) in (0, 1)
    text = capsys.readouterr().out
    found = read_json(out / "validation.json")
    assert 20 <= found["truths"] <= 40, "one of each of the realisations that were held out"
    assert f"{found['truths']} truths from the prior that training held out" in text
    assert found["misspecification"]["unlike"] is True
    assert found["misspecification"]["false_alarms"] is None
    assert found["widths_over"] == {}


def test_a_sequential_posterior_is_validated_inside_its_truncated_prior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables: dict[str, Any] = {"inference": {"rounds": [60, 40], "truncation": 0.05, "predictive": 0}}
    path = config(tmp_path, training={"steps": 60}, validation=SMALL, **tables)
    # A network that is hardly trained says much outside of the region, also of the observation.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eorinfer.npe.inside.OUTSIDE_SHARE", 0.9)
        assert call("infer", path, "--out", tmp_path / "run") == 0
        assert call("validate", path, "--out", tmp_path / "run") in (0, 1)
    said = capsys.readouterr().out
    assert "60 simulated truths inside the truncated prior" in said
    assert re.search(r"information gained over the truncated prior \(0\.\d+ of it\) -?\d", said)
    found = read_json(tmp_path / "run/validation.json")
    assert 0 < found["prior_volume"] < 1
    assert found["prior_volume"] == pytest.approx(read_json(tmp_path / "run/rounds/02/round.json")["volume"], rel=0.3)
    assert 0 < found["mass_inside"]["least"] <= found["mass_inside"]["median"] <= 1


def test_what_is_not_there_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, **ONE_ROUND)
    assert call("simulate", path, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    assert call("validate", path, "--out", tmp_path / "run") == 2
    errors = capsys.readouterr().err
    assert errors == f"eorinfer: {tmp_path}/run: no posterior to validate; run `eorinfer infer` first\n"
    assert not (tmp_path / "run/validation.json").exists()


@pytest.mark.parametrize(
    ("table", "message"), [({"truths": 5}, "[validation] truths"), ({"number": 5}, "[validation] number")]
)
def test_a_wrong_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: dict[str, int], message: str
) -> None:
    assert call("validate", config(tmp_path, validation=table), "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_the_warning_is_in_the_summary_and_with_a_posterior_that_is_used_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(run, **ONE_ROUND)
    assert call("plot", path, "--out", run / "run") == 0
    summary = json.loads((run / "run/summary.json").read_text())
    assert summary["misspecification"]["unlike"] is False
    cube = GaussianField(cells=8, box_length=8.0).simulate(np.array([0.5, -1.5]), 77)["field"]
    for name, image, unlike in (("same", cube, False), ("bright", 1000 * cube, True)):
        np.save(run / f"{name}.npy", image)
        capsys.readouterr()
        again = ("infer", "--posterior", run / "run/posterior", "--observation", run / f"{name}.npy", "--samples", 50)
        assert call(*again, "--out", run / name) == 0
        assert ("WARNING: the observation is unlike the simulations" in capsys.readouterr().out) == unlike
        assert read_json(run / name / "summary.json")["misspecification"]["unlike"] is unlike
