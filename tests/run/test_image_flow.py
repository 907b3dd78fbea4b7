"""`eorinfer image-flow` and `method = "image-flow"`, as a user would start them, on tiny Gaussian fields."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow import weights
from eorinfer.imageflow.interpolated import InterpolatedLikelihood
from eorinfer.imageflow.model import ImageFlow
from eorinfer.run import image_flow as image_flow_run
from eorinfer.run.subjects import ImageFlowSubject
from eorinfer.training.data import validation_rows
from simulators import GaussianField
from tests.runs import call, config, quick_emulator

# getdist's own
pytestmark = pytest.mark.filterwarnings("ignore:The format attribute was deprecated")

FIELD: dict[str, Any] = {"steps": 40, "batch_size": 16, "hidden": [16], "k_knots": 4, "knots": 4, "convolutions": 1}


@pytest.fixture(autouse=True)
def _few_starting_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_flow_run, "START_DRAWS", 100)
    quick_emulator(monkeypatch)


def field_config(folder: Path, **tables: Any) -> Path:
    image_flow = FIELD | tables.pop("image_flow", {})
    inference = {"method": "image-flow", "rounds": [48]} | tables.pop("inference", {})
    return config(folder, image_flow=image_flow, inference=inference, **tables)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose flow alone was trained; what writes into it takes a copy."""
    out = tmp_path_factory.mktemp("trained") / "run"
    said = io.StringIO()
    with redirect_stdout(said):
        assert call("image-flow", "train", field_config(out.parent), "--out", out) == 0
    assert f"results: {out}/field" in said.getvalue()
    return out


def test_a_run_by_the_field_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = field_config(tmp_path), tmp_path / "run"
    assert call("run", path, "--out", out) == 0
    said = capsys.readouterr().out
    assert "preflight: 48 simulations in 1 round(s), 0 of them" in said
    assert "bits per cell in validation" in said
    assert "evaluations of ln p(x | y)" in said
    assert {p.name for p in (out / "field").iterdir()} == {"field.json", "weights.safetensors", "known.safetensors"}
    assert not list(out.glob("field-checkpoints-*"))
    assert not (out / "posterior").exists()
    samples = Samples.read(out / "chains" / "field-flow")
    assert [p.name for p in samples.parameters] == ["log_amplitude", "slope"]
    assert samples.label == "image flow"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["field_flow"]["steps"] == 80
    # 100 starting points, and 8 walkers in each of 80 steps.
    assert 100 < summary["field_flow"]["evaluations"] <= 100 + 8 * 81
    assert set(summary["posteriors"]) == {"field-flow", "mcmc"}
    assert summary["posteriors"]["field-flow"]["parameters"]["slope"]["truth"] == -1.5
    assert (out / "corner.png").exists()
    # The same command again computes nothing.
    trained = (out / "field" / "field.json").stat().st_mtime_ns
    chain = (out / "chains" / "field-flow.txt").read_bytes()
    assert call("infer", path, "--out", out) == 0
    assert (out / "field" / "field.json").stat().st_mtime_ns == trained
    assert (out / "chains" / "field-flow.txt").read_bytes() == chain
    again = json.loads((out / "chains" / "field-flow.json").read_text())
    assert again["evaluations"] == summary["field_flow"]["evaluations"]


def test_beside_the_other_methods_in_one_folder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rounds = shutil.copytree(whole, tmp_path / "run"), {"rounds": [48, 24]}
    path = field_config(tmp_path, inference=rounds)
    assert call("infer", path, "--out", out) == 0
    assert call("plot", path, "--out", out) == 0
    assert set(json.loads((out / "summary.json").read_text())["posteriors"]) == {"npe", "mcmc", "field-flow"}
    other = field_config(tmp_path, image_flow={"knots": 6}, inference=rounds)
    capsys.readouterr()
    assert call("infer", other, "--out", out) == 2
    assert "[image_flow] knots = 6" in capsys.readouterr().err


DIFFUSION = {"kind": "diffusion", "width": 8, "steps": 9, "weighing": 3}


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "multiscale", "width": 8, "depth": 1, "components": 2, "steps": 9}, DIFFUSION]
)
def test_one_condition_on_a_grid(kind: dict[str, Any], tmp_path: Path) -> None:
    path, out = field_config(tmp_path, image_flow={"condition": ["slope"], **kind}), tmp_path / "run"
    assert call("infer", path, "--out", out) == 0
    assert not (out / "chains" / "field-flow.h5").exists()
    samples = Samples.read(out / "chains" / "field-flow")
    assert [p.name for p in samples.parameters] == ["slope"]
    assert len(samples) == 300
    flow = ImageFlow.load(out / "field")
    assert (flow.weights is not None) == ("weighing" in kind)
    assert ((samples.values >= flow.conditions.low) & (samples.values <= flow.conditions.high)).all()
    assert call("plot", path, "--out", out) == 0
    assert (out / "corner-field-flow.png").exists()
    assert not (out / "corner.png").exists()


@pytest.mark.usefixtures("quick_diffusion")
def test_a_weighing_that_was_stopped_goes_on(tmp_path: Path) -> None:
    path = field_config(tmp_path, image_flow={"condition": ["slope"], **DIFFUSION})

    class Counted(InterpolatedLikelihood):
        made, most = 0, 3

        def __init__(self, *arguments: Any, **options: Any) -> None:
            if Counted.made == Counted.most:
                raise KeyboardInterrupt
            Counted.made += 1
            super().__init__(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "InterpolatedLikelihood", Counted)
        assert call("image-flow", "train", path, "--out", tmp_path / "whole") == 0
        Counted.made, Counted.most = 0, 2
        assert call("image-flow", "train", path, "--out", tmp_path / "stopped") == 1
        assert (tmp_path / "stopped/field-weighing.h5").exists()
        Counted.most = 3
        assert call("image-flow", "train", path, "--out", tmp_path / "stopped") == 0
        assert Counted.made == 3
    assert not (tmp_path / "stopped/field-weighing.h5").exists()
    flows = [ImageFlow.load(tmp_path / name / "field") for name in ("whole", "stopped")]
    assert flows[0].weights == flows[1].weights


@pytest.mark.usefixtures("quick_diffusion")
def test_a_diffusion_learns_by_itself_what_its_density_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, out = {key: value for key, value in DIFFUSION.items() if key != "weighing"}, tmp_path / "run"
    made = []
    for i, weighing in enumerate(({}, {"weighing": 0}, {"weighing": 3})):
        (folder := tmp_path / str(i)).mkdir()
        path = field_config(folder, image_flow={"condition": ["slope"], **kind, **weighing})
        assert call("image-flow", "train", path, "--out", out) == 0
        made.append(ImageFlow.load(out / "field"))
        assert ("as 3 images" in (said := capsys.readouterr().out)) == (i == 2)
        assert ("of itself in posteriors" in said) == (i != 1)
    assert [flow.settings.weighing for flow in made] == [150, 0, 3]
    assert [flow.weights is None for flow in made] == [False, True, False]
    # The training is the same one; what was validated with other weights is not.
    assert len({flow.facts["seconds"] for flow in made}) == 1
    assert len({ImageFlowSubject(flow).key for flow in made}) == 3
    # A density that is worth next to nothing makes a posterior that is worth nothing, and the page says so too.
    replace(made[2], weights=(0.02,) * 5).save(out / "field")
    assert call("infer", path, "--out", out) == 0
    said = "ln p counts at most 0.02 of itself: this posterior is hardly narrower than the prior"
    assert f"WARNING: {said}" in capsys.readouterr().out
    assert call("report", out) == 0
    assert said in (out / "report.html").read_text()


def test_train_alone(trained: Path) -> None:
    assert np.isfinite(ImageFlow.load(trained / "field").facts["fits"]["generative"]["validation_loss"])
    assert not (trained / "chains" / "field-flow.txt").exists()


def test_wrong_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image_flow, said in (
        ({"condition": ["slop"]}, "[image_flow] condition = ['slop']: give some of log_amplitude, slope"),
        ({"condition": "neutral-fraction"}, '[image_flow] condition = "neutral-fraction": the simulator has no'),
        ({"knots": 1}, "[image_flow] knots"),
        ({"nots": 8}, "[image_flow] nots"),
    ):
        path = field_config(tmp_path, image_flow=image_flow)
        assert call("image-flow", "train", path, "--out", tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def test_images_beside_real_ones(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    theta = ["--theta", "log_amplitude=0.5", "slope=-1.5"]
    where = tmp_path / "images"
    assert call("image-flow", "sample", out / "field", *theta, "--n", 3, "--out", where, "--run", out) == 0
    assert "log_amplitude = 0.5, slope = -1.5: P(k) within" in capsys.readouterr().out
    assert {p.name for p in where.iterdir()} == {"images.h5", "images.json", "images.png", "images.pdf"}
    with h5py.File(where / "images.h5") as file:
        group = file["00"]
        assert group["generated"].shape == group["real"].shape == (3, 1, 8, 8)
        assert group["conditions"].attrs["names"].tolist() == ["log_amplitude", "slope"]
        assert group["conditions"][0].tolist() == [0.5, -1.5]
        assert not group["outside_training"][:].any()
        first = group["generated"][:]
        real = group["real"][:]
    assert len({float(r.sum()) for r in real}) == 3
    # They are kept, and are no rows of any round.
    kept = Bank.open(out / "bank").rows()
    assert (kept.theta[kept.round == 0] == [0.5, -1.5]).all(axis=1).tolist() == [True] * 3
    capsys.readouterr()
    assert call("image-flow", "sample", out / "field", *theta, "--n", 3, "--out", where, "--run", out) == 0
    assert "simulating" not in capsys.readouterr().out
    assert len(Bank.open(out / "bank").rows()) == len(kept)
    with h5py.File(where / "images.h5") as file:
        assert (file["00/real"][:] == real).all()
    content = json.loads((where / "images.json").read_text())["conditions"][0]
    assert content["channels"][0]["generated"]["std"] == pytest.approx(first.std(), rel=1e-4)
    assert len(content["channels"][0]["ratio"]) == len(content["k"])
    # The same again, and others with another seed; without a run there is nothing to compare with.
    shutil.copytree(out / "field", tmp_path / "alone")
    for seed, same in ((1, True), (2, False)):
        assert call("image-flow", "sample", tmp_path / "alone", *theta, "--n", 3, "--out", where, "--seed", seed) == 0
        assert "no real images to compare with" in capsys.readouterr().out
        with h5py.File(where / "images.h5") as file:
            assert (file["00/generated"][:] == first).all() == same
    capsys.readouterr()
    assert call("image-flow", "sample", out / "field", "--n", 4, "--out", where) == 0
    with h5py.File(where / "images.h5") as file:
        conditions = file["00/conditions"][:]
    held = validation_rows((rows := Bank.open(out / "bank").rows()).seed, 0.1)
    assert {tuple(y) for y in conditions} <= {tuple(t) for t in rows.theta[held]}
    outside = ["--theta", "log_amplitude=0.5", "slope=0.5"]
    assert call("image-flow", "sample", out / "field", *outside, "--n", 2, "--out", where) == 0
    assert "WARNING: log_amplitude = 0.5, slope = 0.5: outside of what training saw" in capsys.readouterr().out
    with h5py.File(where / "images.h5") as file:
        assert file["00/outside_training"][:].all()
    for wrong, said in (
        (["--theta", "slop=1"], 'did you mean "slope"?'),
        (["--theta", "slope=-1"], "--theta lacks log_amplitude"),
        (["--theta", "slope=x"], "'x' is no number"),
        (["--theta", "slope=-1", "slope=-2"], "--theta slope=-2: slope is given already (-1)"),
        (["--neutral-fraction", "0.5"], "this flow needs --theta"),
        (["--n", "1"], "at least two images"),
    ):
        assert call("image-flow", "sample", out / "field", *wrong, "--out", where) == 2
        assert said in capsys.readouterr().err
    assert call("image-flow", "sample", tmp_path, *theta, "--out", where) == 2
    assert "no image flow here" in capsys.readouterr().err


def test_a_lognormal_field_is_more_than_its_power_spectrum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flow prefers real images to copies of the same power; their power spectrum cannot."""
    path = field_config(
        tmp_path,
        simulator={"kind": "lognormal-field", "cells": 16},
        prior={"log_amplitude": [-0.5, 0.5], "slope": [-2.0, -1.0]},
        observation={"theta": {"log_amplitude": 0.0, "slope": -1.5}},
        inference={"rounds": [96]},
        image_flow={"steps": 150, "knots": 8},
        training={"steps": 12, "batch_size": 16, "ensemble": 1, "validation_fraction": 0.3},
    )
    out, model = tmp_path / "run", tmp_path / "run/field"
    assert call("image-flow", "train", path, "--out", out) == 0
    capsys.readouterr()
    assert call("image-flow", "beyond-power", model, "--out", tmp_path / "beyond", "--n", "24") == 0
    said = capsys.readouterr().out
    assert "posteriors of Gaussian images, medians: log_amplitude: off by" in said
    assert (tmp_path / "beyond/beyond.png").exists()
    methods = json.loads((tmp_path / "beyond/beyond.json").read_text())["methods"]
    for kind in ("phases turned", "Gaussian"):
        assert methods["image flow"][kind]["preferred"] > 0.8
        assert methods["image flow"][kind]["difference"]["median"] > 3
    # The very same power, but for the product of the noise with the field.
    assert abs(methods["power spectrum"]["phases turned"]["auc"] - 0.5) < 0.1
    pairs = json.loads((tmp_path / "beyond/beyond.json").read_text())["equal_power"]
    assert f"equal power: {pairs['pairs']} pairs of" in said
    assert pairs["pairs"] >= 5
    assert pairs["chi2"]["largest"] < pairs["bins"] == 3
    assert max(pairs["difference"]["log_amplitude"], pairs["difference"]["slope"]) >= 0.1
    assert set(pairs["methods"]) == {"image flow", "power spectrum"}
    assert (tmp_path / "beyond/pairs.png").exists()
    assert call("image-flow", "beyond-power", model, "--out", tmp_path / "b", "--n", "3") == 2
    assert "--n 3: at least ten images are needed" in capsys.readouterr().err
    shutil.copytree(model, tmp_path / "alone" / "field")
    assert call("image-flow", "beyond-power", tmp_path / "alone/field", "--out", tmp_path / "b") == 2
    assert "no run here; give --run" in capsys.readouterr().err


def test_a_flow_is_used_again_for_another_observation(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a posterior is: from its folder alone, without training, simulating or a config."""
    out, model = trained, trained / "field"
    before = {f: f.stat().st_mtime_ns for f in model.iterdir()}
    rows = len(Bank.open(out / "bank").rows())
    cube = GaussianField(cells=8, box_length=8.0).simulate(np.array([0.5, -1.5]), 77)["field"]
    noise = np.random.default_rng(1).standard_normal(cube.shape)
    flow = ImageFlow.load(model)
    found = {}
    for name, image in (("faint", cube + 0.3 * noise), ("bright", 4 * cube + 0.3 * noise)):
        file = tmp_path / f"{name}.h5"
        Observation.from_observable(flow.observable, image, np.array([0.5, -1.5])).write(file)
        capsys.readouterr()
        again = ("infer", "--posterior", model, "--observation", file, "--out", tmp_path / name)
        assert call(*again) == 0
        said = capsys.readouterr().out
        assert "image flow: this observation cost " in said
        assert "CANNOT TELL" in said or "unlike the images that the flow was trained on" in said
        samples = Samples.read(tmp_path / name / "chains/field-flow")
        found[name] = samples.mean
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        # Walkers and steps as in the config of the run that the flow lies in.
        assert summary["field_flow"]["steps"] == 80
        assert summary["field_flow"]["likelihood"] == flow.key(Observation.from_observable(flow.observable, image))
        assert summary["field_flow"]["misspecification"]["p"] <= 1
        assert summary["posteriors"]["field-flow"]["parameters"]["slope"]["truth"] == -1.5
        assert (tmp_path / name / "corner.png").exists()
        assert call("report", tmp_path / name) == 0
        assert "by scale" in (tmp_path / name / "report.html").read_text()
    assert found["bright"][0] > found["faint"][0] + 1, "ln A of four times the amplitude is 2.8 more"
    assert before == {f: f.stat().st_mtime_ns for f in model.iterdir()}
    assert len(Bank.open(out / "bank").rows()) == rows
    np.save(tmp_path / "other.npy", np.zeros((1, 6, 6), np.float32))
    wrong = ("infer", "--posterior", model, "--observation", tmp_path / "other.npy", "--out", tmp_path / "wrong")
    assert call(*wrong) == 2
    assert "the cube has shape (1, 6, 6), expected (1, 8, 8)" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_a_flow_on_slices_gives_a_posterior_of_a_map(tmp_path: Path) -> None:
    """Which a run, that observes a cube, refuses; here by itself, on a grid, with the samples that are asked for."""
    tables = {"simulator": {"kind": "gaussian-field", "cells": 8, "dimension": 3, "box_length": 8.0}}
    path = field_config(tmp_path, image_flow={"condition": ["slope"], "image": "slices"}, **tables)
    assert call("image-flow", "train", path, "--out", tmp_path / "run") == 0
    flow = ImageFlow.load(tmp_path / "run/field")
    assert flow.known is not None
    held = validation_rows((rows := Bank.open(tmp_path / "run/bank").rows()).seed, 0.1)
    assert len(flow.known.y) == 8 * held.sum()
    assert len(set(flow.known.realisation.tolist())) == len(set(rows.seed[held].tolist()))
    shutil.copytree(tmp_path / "run/field", tmp_path / "flow")
    np.save(tmp_path / "map.npy", np.random.default_rng(1).standard_normal((1, 8, 8)).astype(np.float32))
    again = ("infer", "--posterior", tmp_path / "flow", "--observation", tmp_path / "map.npy", "--samples", 70)
    assert call(*again, "--out", tmp_path / "out") == 0
    assert len(Samples.read(tmp_path / "out/chains/field-flow")) == 70


def test_pairs_of_slices_with_a_likelihood_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slices of cubes, one condition: the run has no power-spectrum likelihood of those, so one is learned."""
    path = field_config(
        tmp_path,
        simulator={"kind": "gaussian-field", "cells": 8, "dimension": 3, "box_length": 8.0},
        prior={"log_amplitude": [-0.1, 0.1]},
        observation={"theta": {"log_amplitude": 0.0, "slope": -1.5}},
        image_flow={"image": "slices", "condition": ["slope"], "steps": 20},
        training={"steps": 12, "batch_size": 16, "ensemble": 1, "validation_fraction": 0.3},
    )
    out = tmp_path / "run"
    assert call("image-flow", "train", path, "--out", out) == 0
    assert call("image-flow", "beyond-power", out / "field", "--out", tmp_path / "beyond", "--n", "20") == 0
    assert "power spectrum: of pairs of equal power the right condition" in capsys.readouterr().out
    content = json.loads((tmp_path / "beyond/beyond.json").read_text())
    pairs = content["equal_power"]
    assert pairs["pairs"] == 20  # of eight slices of each held-out cube
    assert pairs["difference"]["slope"] >= 0.3
    assert set(content["methods"]) == set(pairs["methods"]) == {"image flow", "power spectrum"}
    assert not list(out.glob("emulator*"))
