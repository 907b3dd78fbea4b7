"""Data vectors in place of images: a posterior with a known answer, imported vectors, and what is for images alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from eorinfer.cli.app import main
from eorinfer.core.errors import InputError
from eorinfer.npe import emulated
from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import call

SIGMA, SIZE = 0.3, 8
LINE = """
import numpy as np
GRID = np.linspace(-1, 1, 8)
def line(theta, seed):
    return theta[0] + theta[1] * GRID  # the survey adds the noise
"""
TABLE = {
    "kind": "vectors:line",
    "ranges": {"level": {"low": -2.0, "high": 2.0}, "slope": {"low": -2.0, "high": 2.0}},
    "shape": [1, SIZE],
    "observable": "spectrum",
}
REST = {
    "survey": {"kind": "white-noise", "sigma": SIGMA},
    "training": {"steps": 600, "batch_size": 64, "ensemble": 1, "learning_rate": 5e-3},
    "flow": {"transforms": 1, "hidden": [16]},
    "executor": {"workers": 1},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the emulator of further rows in a fifth of its steps: the mean is a line."""
    monkeypatch.setattr(emulated, "FORMS", tuple(replace(form, steps=200) for form in emulated.FORMS))


def written(folder: Path, **tables: object) -> Path:
    (folder / "vectors.py").write_text(LINE)
    content = {"simulator": TABLE, "inference": {"rounds": [1200], "predictive": 8}, **REST, **tables}
    path = folder / "run.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def exact(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations of the posterior of level and slope, far from the prior's edges."""
    design = np.column_stack([np.ones(SIZE), np.linspace(-1, 1, SIZE)])
    covariance = SIGMA**2 * np.linalg.inv(design.T @ design)
    return covariance @ design.T @ vector / SIGMA**2, np.sqrt(np.diag(covariance))


def test_a_posterior_with_a_known_answer(tmp_path: Path) -> None:
    path = written(tmp_path, observation={"theta": {"level": -0.4, "slope": 0.6}})
    run = Run(load_config(path), tmp_path / "out")
    samples = run.infer()
    mean, std = exact(run.observe().values[0].astype(float))
    np.testing.assert_allclose(samples.mean, mean, atol=float(0.5 * std.min()))
    np.testing.assert_allclose(samples.std, std, rtol=0.3)
    run.plot()
    run.report()
    assert {"corner.png", "predictive.png", "report.html"} <= {file.name for file in run.out.iterdir()}
    with pytest.raises(InputError, match="the likelihood of the power spectrum is for images"):
        run.mcmc()


def test_imported_vectors_of_either_sign(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    theta = rng.uniform(-2, 2, (200, 2))
    vectors = theta[:, :1] * np.logspace(0, 4, SIZE) + theta[:, 1:]
    np.save(tmp_path / "theta.npy", theta)
    np.save(tmp_path / "vectors.npy", vectors[:, None].astype(np.float32))
    np.save(tmp_path / "seen.npy", vectors[0].astype(np.float32))
    table = {**TABLE, "kind": "imported"}
    inference = {"rounds": [200], "predictive": 0}
    path = written(
        tmp_path, simulator=table, observation={"file": "seen.npy"}, inference=inference, training={"steps": 20}
    )
    files = ["--theta", str(tmp_path / "theta.npy"), "--cubes", str(tmp_path / "vectors.npy")]
    with pytest.raises(SystemExit) as ended:
        main(["bank", "import", str(path), *files, "--out", str(tmp_path / "out")])
    assert not ended.value.code
    samples = Run(load_config(path), tmp_path / "out").infer()
    assert np.isfinite(samples.values).all()


def test_steps_that_are_for_images_simulate_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, observation={"theta": {"level": 0.0, "slope": 0.0}})
    for step, method in (
        (["mcmc"], "the likelihood of the power spectrum"),
        (["image-flow", "train"], "the image flow"),
    ):
        assert call(*step, path, "--out", tmp_path / "out") == 2
        assert f"{method} is for images; the simulator gives data vectors" in capsys.readouterr().err
        assert not list((tmp_path / "out").glob("bank/shards/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"simulator": TABLE | {"shape": [1, 8, 8]}}, "cell_size: is missing"),
        ({"simulator": TABLE | {"cell_size": 2.0}}, "cell_size = 2: must be 0 for data vectors"),
        ({"inference": {"rounds": [10], "method": "image-flow"}}, "is for images; the simulator gives data vectors"),
        ({"survey": {"kind": "ska-low"}}, r"\[survey\]"),
    ],
)
def test_what_is_for_images(tmp_path: Path, change: dict[str, object], message: str) -> None:
    observation = {"theta": {"level": 0.0, "slope": 0.0}}
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, observation=observation, **change))
