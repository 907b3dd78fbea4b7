"""A whole run under a prior that is not flat: rounds, chains, page and summary have it."""

import json
from pathlib import Path

import numpy as np
import pytest

from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from tests.runs import call, config, quick_emulator


def test_a_run_under_a_normal_and_a_log_uniform_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_emulator(monkeypatch)
    densities = {"log_amplitude": {"log_uniform": [0.1, 3.0]}, "slope": {"normal": [-1.5, 0.4], "range": [-2.5, 0.0]}}
    path, out = config(tmp_path, prior=densities), tmp_path / "run"
    assert call("run", path, "--out", out) == 0
    prior = load_config(path).prior
    assert Prior.read(out) == prior
    assert Posterior.load(out / "posterior").prior == prior
    widths = json.loads((out / "summary.json").read_text())["posteriors"]
    for name in ("npe", "mcmc"):
        samples = Samples.read(out / "chains" / name)
        assert prior.contains(samples.values).all()
        ratios = [p["std_over_prior"] for p in widths[name]["parameters"].values()]
        np.testing.assert_allclose(ratios, samples.std / prior.std, rtol=1e-6)
    page = (out / "report.html").read_text()
    for words in ("flat in the logarithm", "normal, -1.5 ± 0.4", "Thin grey: the prior"):
        assert words in page
    # The run goes on from its own folder, and with another density it is another run.
    assert call("plot", out / "config.toml", "--out", out) == 0
    other = config(tmp_path, "other.toml", prior=densities | {"slope": {"normal": [-1.4, 0.4]}})
    assert call("plot", other, "--out", out) == 2
