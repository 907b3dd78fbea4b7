"""`eorinfer validate` with `[inference] method = "image-flow"`, as a user would start it, on tiny Gaussian fields."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.check import check_images
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood import sampled
from eorinfer.run import Run, subjects
from eorinfer.run import image_flow as image_flow_run
from eorinfer.run.config import load_config
from eorinfer.training.data import validation_rows
from simulators import GaussianField
from tests.runs import call, config

# getdist's own
pytestmark = pytest.mark.filterwarnings("ignore:The format attribute was deprecated")

TABLES: dict[str, Any] = {
    "inference": {"method": "image-flow", "rounds": [240]},
    "image_flow": {"steps": 120, "batch_size": 48, "hidden": [16], "k_knots": 4, "knots": 4, "convolutions": 1},
    "validation": {"image_flow_truths": 30, "samples": 100, "references": 4},
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_flow_run, "START_DRAWS", 100)
        patch.setattr(subjects, "POINTS", {1: 60, 2: 25})
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a flow and its posterior; never validated itself."""
    folder = tmp_path_factory.mktemp("trained")
    assert call("infer", config(folder, **TABLES), "--out", folder / "run") == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path


def validate(folder: Path, **tables: Any) -> int:
    return call("validate", config(folder, **(TABLES | tables)), "--out", folder / "run")


def test_a_flow_is_calibrated_and_as_wide_as_the_exact_posterior(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert validate(run) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    assert "validation: 30 simulated truths from the prior; 100 samples of each" in out
    assert "nothing is amortised: a truth costs 1,875 evaluations of ln p(x | y)" in out
    assert out.splitlines()[-1].startswith("calibrated: smallest p-value ")
    found = read_json(run / "run/validation.json")
    assert found["method"] == "field-flow"
    assert found["truths"] == 30
    assert found["left_out"] == 0
    assert found["posterior"] == ImageFlow.load(run / "run/field").facts["key"]
    for name in ("log_amplitude", "slope"):
        assert found["recovery"][name]["inside_68"] > 0.4
        assert found["widths_over"]["exact"]["std"][name]["median"] == pytest.approx(1.0, abs=0.2)
    assert found["information_gain"]["mean"] > 1
    assert (run / "run/validation.png").stat().st_size > 10_000
    # What was answered is not asked again, and more truths keep it.
    answers = run / "run/validation/field"
    first = {file: file.stat().st_mtime_ns for file in answers.iterdir()}
    assert len(first) == 3
    assert validate(run, validation=TABLES["validation"] | {"image_flow_truths": 40}) in (0, 1)
    assert all(file.stat().st_mtime_ns == then for file, then in first.items())
    assert len(list(answers.iterdir())) == 4
    assert read_json(run / "run/validation.json")["truths"] == 40
    assert call("report", run / "run") == 0
    page = (run / "run/report.html").read_text()
    assert 'id="calibration"' in page
    assert "Not validated" not in page
    assert "trained again after its validation" not in page


def too_sure(log_likelihood: Callable[..., Any]) -> Callable[..., Any]:
    """A likelihood to the fourth power: posteriors of half the width."""

    def likelihood(self: ImageFlow, observation: Observation) -> Callable[..., Any]:
        one = log_likelihood(self, observation)

        def sharper(y: NDArray[np.float64]) -> Any:
            return 4 * one(y)

        return sharper

    return likelihood


def test_one_that_is_too_sure_ends_with_1(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ImageFlow, "likelihood", too_sure(ImageFlow.likelihood))
    assert validate(run) == 1
    assert capsys.readouterr().err.startswith("eorinfer: NOT calibrated: ")
    found = read_json(run / "run/validation.json")
    assert found["calibrated"] is False
    assert found["widths_over"]["exact"]["std"]["slope"]["median"] < 0.7


def test_beside_an_npe_its_samples_are_weighed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npe = {"inference": {"method": "npe", "rounds": [240], "predictive": 0}, "training": {"steps": 60, "ensemble": 1}}
    assert call("infer", config(run, **(TABLES | npe)), "--out", run / "run") == 0
    found = subjects.image_flow_subject(Run(load_config(run / "run.toml"), run / "run").context)
    assert found.proposal is not None
    capsys.readouterr()
    assert validate(run, training=npe["training"]) in (0, 1)
    assert "a truth costs 2,000 to 3,875 evaluations" in capsys.readouterr().out
    content = read_json(run / "run/validation.json")
    assert content["method"] == "field-flow"
    for name in ("log_amplitude", "slope"):
        assert content["widths_over"]["exact"]["std"][name]["median"] == pytest.approx(1.0, abs=0.25)


def test_chains_that_are_too_short_are_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chains are used where a grid would be too large; too few that are long enough end the command."""
    monkeypatch.setattr(subjects, "POINTS", {})
    monkeypatch.setattr(subjects, "START_DRAWS", 100)
    monkeypatch.setattr(sampled, "EVIDENCE_DRAWS", 100)
    monkeypatch.setattr(sampled, "STEPS", 30)
    monkeypatch.setattr(sampled, "MOST_STEPS", 30)
    capsys.readouterr()
    assert validate(run) == 1
    out, errors = capsys.readouterr()
    assert "a truth costs 8,108 to 32,108 evaluations of ln p(x | y)" in out
    assert errors.startswith("eorinfer: only 0 of 30 posteriors of the image flow can be relied on")
    assert not (run / "run/validation.json").exists()


def test_one_condition_against_the_marginal_of_the_exact_posterior(tmp_path: Path) -> None:
    # The flow cannot mix amplitudes: where they matter it is far too sure, and told so.
    tables = TABLES | {
        "image_flow": TABLES["image_flow"] | {"condition": ["slope"]},
        "prior": {"log_amplitude": [0.4, 0.6]},
    }
    path = config(tmp_path, **tables)
    assert call("infer", path, "--out", tmp_path / "run") == 0
    assert call("validate", path, "--out", tmp_path / "run") in (0, 1)
    found = read_json(tmp_path / "run/validation.json")
    assert list(found["recovery"]) == ["slope"]
    assert list(found["widths_over"]["exact"]["std"]) == ["slope"]
    assert 0.8 < found["widths_over"]["exact"]["std"]["slope"]["median"] < 1.3


def test_what_cannot_be_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config(tmp_path, **TABLES), tmp_path / "run"
    assert call("simulate", path, "--out", out) == 0
    capsys.readouterr()
    assert call("validate", path, "--out", out) == 2
    assert capsys.readouterr().err == f"eorinfer: {out}: no image flow to validate; run `eorinfer infer` first\n"
    wrong = config(tmp_path, **(TABLES | {"validation": {"image_flow_truths": 5}}))
    assert call("validate", wrong, "--out", out) == 2
    assert "[validation] image_flow_truths" in capsys.readouterr().err
    cubes = TABLES | {"image_flow": TABLES["image_flow"] | {"image": "slices"}}
    sliced = config(tmp_path, simulator={"kind": "gaussian-field", "cells": 8, "dimension": 3}, **cubes)
    assert call("simulate", sliced, "--out", tmp_path / "cubes") == 0
    assert call("validate", sliced, "--out", tmp_path / "cubes") == 2
    assert '[image_flow] image = "slices": the run observes a whole cube' in capsys.readouterr().err


def observed(noise: float, scale: float = 1.0) -> NDArray[np.float32]:
    """A map at the config's parameters."""
    clean = GaussianField(cells=8, box_length=8.0).simulate(np.array([0.5, -1.5]), 77)["field"]
    drawn = np.random.default_rng(1).standard_normal(clean.shape)
    return np.asarray(scale * (clean + noise * drawn), np.float32)


def test_an_observation_unlike_the_images_of_training_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong unit, by the one scale of an isotropic flow: in infer, validate, the summary and the page."""
    known = ImageFlow.load(run / "run/field").known
    assert known is not None
    held = validation_rows((rows := Bank.open(run / "run/bank").rows()).seed, 0.1)
    assert known.y == pytest.approx(rows.theta[held])
    assert len(set(known.realisation.tolist())) == len(set(rows.seed[held].tolist()))
    shutil.rmtree(run / "run/chains")
    (run / "run/observation.h5").unlink()
    np.save(run / "wrong.npy", observed(0.3, 1000.0))
    wrong = TABLES | {"observation": {"theta": None, "file": "wrong.npy"}}
    capsys.readouterr()
    assert call("infer", config(run, **wrong), "--out", run / "run") == 0
    said = capsys.readouterr().out
    assert "image flow: WARNING: the observation is unlike the images that the flow was trained on (p = " in said
    assert "ln p " in said
    assert "sigma too low. Do not trust this posterior" in said
    assert call("plot", config(run, **wrong), "--out", run / "run") == 0
    assert read_json(run / "run/summary.json")["field_flow"]["misspecification"]["unlike"] is True
    assert call("validate", config(run, **wrong), "--out", run / "run") == 0, "the flow is calibrated all the same"
    assert "WARNING: the observation is unlike" in capsys.readouterr().out
    found = read_json(run / "run/validation.json")["misspecification"]
    assert found["unlike"] is True
    assert found["scales"][0]["p"] < 1e-4
    assert found["false_alarms"] <= 0.1
    assert call("report", run / "run") == 0
    page = (run / "run/report.html").read_text()
    assert 'id="check"' in page
    assert "truths it would warn of" in page
    assert page.count("observation is unlike the images that the flow was trained on") == 2, "at the top, and there"


def test_the_wrong_noise_is_seen_at_its_scale(tmp_path: Path) -> None:
    """By a multiscale flow, whose posterior has no parameter that looks like noise."""
    tables = {
        "inference": TABLES["inference"],
        "prior": {"log_amplitude": [0.4, 0.6], "slope": [-2.5, -1.0]},
        "image_flow": {"kind": "multiscale", "width": 16, "depth": 1, "components": 2, "steps": 60, "hidden": [16]}
        | {"condition": ["slope"], "k_knots": 3, "knots": 4},
        "training": {"validation_fraction": 0.3},
    }
    path = config(tmp_path, **tables)
    assert call("infer", path, "--out", tmp_path / "run") == 0
    flow = ImageFlow.load(tmp_path / "run/field")
    y = np.full((20, 1), -1.5)
    rates = {}
    for noise in (0.3, 1.0):
        clean = [GaussianField(cells=8, box_length=8.0).simulate(np.array([0.5, -1.5]), i)["field"] for i in range(20)]
        drawn = np.random.default_rng(2).standard_normal((20, 1, 8, 8))
        checks = check_images(flow, np.asarray(np.array(clean) + noise * drawn, np.float32), y)
        rates[noise] = np.mean([one.unlike for one in checks])
        furthest = [one.deviations[0][0] for one in checks]
    assert flow.network.terms == ("ln p at 2 x 2 cells", "ln p at 4 x 4 cells", "ln p at 8 x 8 cells")
    assert rates[0.3] <= 0.15
    assert rates[1.0] > 0.8
    assert furthest.count("ln p at 8 x 8 cells") > 10, "white noise is most at the finest scale"
