"""Maps at any scale: the same numbers in other units give the same posteriors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer import ImageFlow, Posterior, Run, load_config
from eorinfer.core.files import read_json
from simulators import GaussianField
from tests.runs import call, config, quick_emulator

RANGES = {"log_amplitude": {"low": -2.0, "high": 3.0}, "slope": {"low": -3.0, "high": 0.0}}


def run_in_units(folder: Path, unit: float) -> Run:
    """Import 64 fields in a unit, infer and run emcee."""
    simulator, rng = GaussianField(cells=8, box_length=8.0), np.random.default_rng(1)
    theta = rng.uniform([-2.0, -3.0], [3.0, 0.0], (64, 2))
    cubes = np.stack([simulator.simulate(t, i)["field"] for i, t in enumerate(theta)])
    sky = simulator.simulate(np.array([0.5, -1.5]), 999)["field"]
    folder.mkdir()
    for name, array in (("theta", theta), ("cubes", cubes * unit), ("sky", sky * unit)):
        np.save(folder / f"{name}.npy", array if name == "theta" else array.astype(np.float32))
    imported = {"kind": "imported", "ranges": RANGES, "shape": [1, 8, 8], "cell_size": 1.0}
    tables: dict[str, Any] = {"simulator": imported | {"cells": None, "box_length": None}, "prior": None}
    tables["survey"] = {"kind": "white-noise", "sigma": 0.3 * unit}
    tables["observation"] = {"theta": None, "file": "sky.npy"}
    tables["inference"] = {"rounds": [64], "predictive": 0}
    path, out = config(folder, **tables), folder / "run"
    given = ("--theta", folder / "theta.npy", "--cubes", folder / "cubes.npy")
    assert call("bank", "import", path, *given, "--out", out) == 0
    for step in ("infer", "mcmc"):
        assert call(step, path, "--out", out) == 0
    tables["inference"] = {"method": "image-flow", "rounds": [64], "predictive": 0}
    tables["image_flow"] = {"steps": 20, "convolutions": 1, "knots": 4}
    assert call("infer", config(folder, **tables), "--out", out) == 0
    return Run(load_config(path), out)


@pytest.fixture(scope="module")
def near_one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        return run_in_units(tmp_path_factory.mktemp("units") / "one", 1.0)


@pytest.mark.parametrize("unit", [1e-26, 1e18])
def test_extreme_units_give_what_numbers_near_one_give(
    near_one: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: float
) -> None:
    quick_emulator(monkeypatch)
    one, other = near_one, run_in_units(tmp_path / "other", unit)
    posteriors = [Posterior.load(run.out / "posterior") for run in (one, other)]
    images = [run.observe() for run in (one, other)]
    theta = posteriors[0].prior.sample(200, np.random.default_rng(0))
    a, b = (p.log_density(theta, x) for p, x in zip(posteriors, images, strict=True))
    np.testing.assert_allclose(a, b, atol=0.02)
    checks = [read_json(run.out / "chains/npe.json")["misspecification"]["p"] for run in (one, other)]
    np.testing.assert_allclose(*checks, atol=0.02)
    chains = [np.loadtxt(run.out / "chains/mcmc.txt") for run in (one, other)]
    np.testing.assert_allclose(chains[0][:, 2:].mean(0), chains[1][:, 2:].mean(0), atol=0.1)
    flows = [ImageFlow.load(run.out / "field") for run in (one, other)]
    logs = [flow.log_prob(x, theta) for flow, x in zip(flows, images, strict=True)]
    np.testing.assert_allclose(logs[0], logs[1] + 64 * np.log(unit), rtol=0.01)  # steps of training round
    assert "units" not in read_json(one.out / "posterior/posterior.json"), "numbers near one are left alone"
