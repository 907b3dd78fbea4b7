"""`method = "combined"`, as a user would start it, on tiny Gaussian fields: NPE times the likelihood of a diffusion."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer import InputError, Observation
from eorinfer.combined.posterior import CombinedPosterior
from eorinfer.core.files import read_json, write_json
from eorinfer.core.samples import Samples
from eorinfer.run import combined as combined_run
from tests.runs import call, config, imported_config, quick_emulator

# getdist's own
pytestmark = pytest.mark.filterwarnings("ignore:The format attribute was deprecated")

TABLES: dict[str, Any] = {
    "inference": {"method": "combined", "rounds": [240], "samples": 2000},
    "image_flow": {"kind": "diffusion", "width": 8, "steps": 9, "weighing": 12},
    "training": {"steps": 60, "batch_size": 32, "validation_fraction": 0.2},
    "validation": {"image_flow_truths": 30, "samples": 200, "references": 4},
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eorinfer.imageflow.gaussian_part.STEPS", 400)
        patch.setattr("eorinfer.imageflow.diffusion.FIT_STEPS", 50)
        quick_emulator(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a config and its whole run; what writes into it takes a copy."""
    folder = tmp_path_factory.mktemp("made")
    assert call("run", config(folder, **TABLES), "--out", folder / "run") == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_leaves_both_posteriors_and_their_combination(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "run"
    samples = Samples.read(out / "chains" / "combined")
    assert samples.label == "NPE and image flow"
    assert samples.names == ["log_amplitude", "slope"]
    assert len(samples) == 2000
    content = read_json(out / "combined.json")
    assert content["facts"]["images"] == 12
    assert all(0 <= weight <= 2 for weight in content["weights"])
    summary = read_json(out / "summary.json")
    assert set(summary["posteriors"]) == {"npe", "combined", "mcmc"}
    assert summary["combined"]["effective"] > 100
    assert not (out / "combined-weighing.h5").exists()
    page = (out / "report.html").read_text()
    assert "NPE and image flow: ln p counts " in page
    # The same again computes nothing.
    kept = {path: path.stat().st_mtime_ns for path in (out / "combined.json", out / "field" / "field.json")}
    chain = (out / "chains" / "combined.txt").read_bytes()
    capsys.readouterr()
    assert call("infer", run / "run.toml", "--out", out) == 0
    said = capsys.readouterr().out
    assert f"results: {out}/posterior, field, chains/combined.txt" in said
    assert "ln p counts" not in said
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (out / "chains" / "combined.txt").read_bytes() == chain
    assert call("status", out) == 0
    assert "combined" in capsys.readouterr().out


def test_it_is_calibrated_and_tells_more_than_npe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "run"
    assert call("validate", run / "run.toml", "--out", out) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("calibrated: ")
    both = read_json(out / "validation.json")
    assert both["method"] == "combined"
    assert both["posterior"] == CombinedPosterior.load(out).key
    assert both["truths"] == 30
    assert "NPE and image flow: calibrated" in (out / "report.html").read_text()
    first = sorted((out / "validation" / "combined").iterdir())
    assert len(first) == 3
    # By NPE alone, on the same truths: the flow is nearly the exact likelihood here, and NPE was trained for a moment.
    quick = {"validation": {"truths": 30, "samples": 200, "references": 0}}
    npe = config(run, "npe.toml", **TABLES | quick | {"inference": TABLES["inference"] | {"method": "npe"}})
    assert call("validate", npe, "--out", out) in (0, 1)
    alone = read_json(out / "validation.json")
    assert alone["method"] == "npe"
    assert both["information_gain"]["mean"] > alone["information_gain"]["mean"] + 0.2
    assert both["widths_over"]["exact"]["std"]["slope"]["median"] == pytest.approx(1.1, abs=0.4)


def test_a_stopped_weighing_goes_on_to_the_same_numbers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = run / "run", combined_run.asked
    whole = read_json(out / "combined.json")
    (out / "combined.json").unlink()
    left = [5]

    def interrupted(*arguments: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return asked(*arguments)

    monkeypatch.setattr(combined_run, "asked", interrupted)
    assert call("infer", run / "run.toml", "--out", out) == 1
    assert (out / "combined-weighing.h5").exists()
    left[0] = 7
    assert call("infer", run / "run.toml", "--out", out) == 0
    assert read_json(out / "combined.json") == whole


def test_another_number_of_images_trains_nothing_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "run"
    trained = [(out / name).stat().st_mtime_ns for name in ("field/field.json", "rounds/01/posterior/posterior.json")]
    other = config(run, "other.toml", **TABLES | {"image_flow": TABLES["image_flow"] | {"weighing": 20}})
    capsys.readouterr()
    assert call("infer", other, "--out", out) == 0
    said = capsys.readouterr().out
    assert "combined: ln p counts " in said
    assert "on the 20 held-out images that taught these two numbers" in said or "adds nothing" in said
    assert read_json(out / "combined.json")["facts"]["images"] == 20
    again = [(out / name).stat().st_mtime_ns for name in ("field/field.json", "rounds/01/posterior/posterior.json")]
    assert again == trained


def test_it_is_used_again_for_another_observation(run: Path, tmp_path: Path) -> None:
    arguments = ("--posterior", run / "run", "--observation", run / "run" / "observation.h5", "--out", tmp_path / "sky")
    assert call("infer", *arguments) == 0
    again, there = (Samples.read(folder / "chains" / "combined") for folder in (tmp_path / "sky", run / "run"))
    assert again.mean == pytest.approx(there.mean, abs=0.1 * there.std.max())
    assert set(read_json(tmp_path / "sky" / "summary.json")["posteriors"]) == {"combined"}
    assert (tmp_path / "sky" / "corner.png").exists()
    from_python = CombinedPosterior.load(run / "run").sample(run / "run" / "observation.h5", 1500, seed=1)
    assert len(from_python) == 1500
    assert from_python.std == pytest.approx(there.std, rel=0.2)
    with pytest.raises(InputError, match="n = 0: must be a whole number of samples, at least 1"):
        CombinedPosterior.load(run / "run").sample(run / "run" / "observation.h5", 0)
    assert len(CombinedPosterior.load(run / "run").sample(run / "run" / "observation.h5", 7, seed=1)) == 7


def test_masked_cells_are_refused(run: Path) -> None:
    observation = Observation.read_unchecked(run / "run" / "observation.h5")
    values = np.ma.MaskedArray(observation.values, np.zeros(observation.values.shape, bool))
    values[0, 1, 2] = np.ma.masked
    with pytest.raises(InputError, match="masked"):
        CombinedPosterior.load(run / "run").sample(values, 100, seed=1)


def test_trained_again_since(run: Path) -> None:
    out = run / "run"
    content = read_json(out / "combined.json")
    write_json(out / "combined.json", content | {"npe": "another"})
    with pytest.raises(InputError, match="trained again since; run `eorinfer infer`"):
        CombinedPosterior.load(out)
    write_json(out / "combined.json", {name: value for name, value in content.items() if name != "weights"})
    with pytest.raises(InputError, match=r"combined\.json: cannot be read .*weights.*make it anew by infer"):
        CombinedPosterior.load(out)
    with pytest.raises(InputError, match=r'no combined\.json: a run with \[inference\] method = "combined" writes it'):
        CombinedPosterior.load(out / "posterior")


def test_it_is_not_there_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, **TABLES)
    assert call("simulate", path, "--out", tmp_path / "run") == 0
    assert call("validate", path, "--out", tmp_path / "run") == 2
    assert "no combined posterior to validate; run `eorinfer infer` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"image_flow": {"kind": "multiscale"}},
            'kind = "multiscale": [inference] method = "combined" needs "diffusion"',
        ),
        (
            {"image_flow": {"condition": ["slope"]}},
            'condition = ["slope"]: [inference] method = "combined" needs "theta"',
        ),
        ({"image_flow": {"weighing": 3}}, "[image_flow] weighing = 3: [inference] method"),
        ({"inference": {"rounds": [40]}}, "20% of all by [training] validation_fraction; give 100 or more"),
        ({"inference": {"rounds": [240, 24]}}, 'method = "combined" takes one round, rounds = [N]'),
        ({"inference": {"targets": ["slope"]}}, 'targets: only with method = "npe"'),
        ({"observation": {"mask": "mask.npy"}}, "[observation] mask: the image flow is of whole images"),
    ],
)
def test_what_cannot_be_combined_is_refused_before_anything(
    tables: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = {name: TABLES.get(name, {}) | tables.get(name, {}) for name in {*TABLES, *tables}}
    if (kind := tables.get("image_flow", {}).get("kind")) and kind != "diffusion":
        del merged["image_flow"]["weighing"]
    assert call("infer", config(tmp_path, **merged), "--out", tmp_path / "run") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_imported_cubes_are_validated_by_what_both_held_out(tmp_path: Path) -> None:
    tables = {name: dict(table) for name, table in TABLES.items()}
    tables["inference"] |= {"predictive": 0}
    tables["training"] |= {"steps": 20, "ensemble": 1}
    tables["validation"] |= {"references": 0}
    path, out = imported_config(tmp_path, 240, **tables), tmp_path / "run"
    files = [part for name in ("theta", "cubes", "seeds") for part in (f"--{name}", tmp_path / f"{name}.npy")]
    assert call("bank", "import", path, "--out", out, *files) == 0
    assert call("infer", path, "--out", out) == 0
    assert call("validate", path, "--out", out) in (0, 1)
    found = json.loads((out / "validation.json").read_text())
    assert "held out" in found["source"]
    assert found["truths"] >= 20
