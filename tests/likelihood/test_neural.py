"""The neural likelihood of spectra whose exact distribution is known and far from Gaussian."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import gamma

import eorinfer.likelihood.emulator as emulator_module
import eorinfer.likelihood.neural as module
from eorinfer.core.prior import Prior
from eorinfer.likelihood.emulator import Spectra, train_emulator, whitened
from eorinfer.likelihood.neural import NeuralLikelihood, train_neural_likelihood
from simulators import Parameter

PRIOR = Prior((Parameter("a", "a", -1.0, 1.0, 0.0),))
#: Half the degrees of freedom of each bin: two modes, and five.
SHAPE = np.array([2.0, 5.0])


def exact(power: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log likelihood (n,) of theta (n, 1) for one spectrum (2,) of mean exp(theta)."""
    return np.asarray(gamma.logpdf(power, SHAPE, scale=np.exp(theta) / SHAPE).sum(-1))


@pytest.mark.job
def test_it_learns_what_a_gaussian_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEAN_FIT", "COVARIANCE_FIT"):
        quick = getattr(emulator_module, name).model_copy(update={"steps": 120, "learning_rate": 1e-2})
        monkeypatch.setattr(emulator_module, name, quick)
    monkeypatch.setattr(module, "MEMBERS", 1)
    rng = np.random.default_rng(1)
    theta = PRIOR.sample(1200, rng)
    power = np.exp(theta) * rng.gamma(SHAPE, 1 / SHAPE, (1200, 2))
    spectra = Spectra(torch.from_numpy(theta), np.arange(1200, dtype=np.uint64), torch.from_numpy(power)[:, None])
    emulator = train_emulator(spectra, PRIOR, folder=tmp_path / "emulator", seed=2)
    z = whitened(emulator, spectra, seed=2)
    assert z.mean().item() == pytest.approx(0.0, abs=0.1)
    assert z.std().item() == pytest.approx(1.0, abs=0.15)
    neural = train_neural_likelihood(emulator, spectra, PRIOR, emulator_seed=2, folder=tmp_path / "flows", seed=3)
    grid = np.linspace(-0.95, 0.95, 50)[:, None]
    errors = []
    for at in (-0.5, 0.0, 0.5):
        for one in np.exp(at) * rng.gamma(SHAPE, 1 / SHAPE, (20, 2)):
            observed = torch.from_numpy(one)
            with torch.no_grad():
                gaussian = emulator.log_likelihood(observed, torch.from_numpy(grid)).numpy()
            known = _posterior(exact(one, grid))
            found = [_posterior(values) for values in (gaussian, neural.for_spectrum(observed)(grid))]
            errors.append([0.5 * np.abs(values - known).sum() for values in found])
    of_gaussian, of_flow = np.mean(errors, axis=0)  # total variation
    assert of_flow < 0.12, (of_flow, of_gaussian)
    assert of_flow < 0.65 * of_gaussian, (of_flow, of_gaussian)
    neural.save(tmp_path / "kept")
    back = NeuralLikelihood.load(tmp_path / "kept", emulator, PRIOR)
    assert np.array_equal(back.for_spectrum(observed)(grid), neural.for_spectrum(observed)(grid))
    assert back.fits == neural.fits


def _posterior(log_l: NDArray[np.float64]) -> NDArray[np.float64]:
    density = np.exp(log_l - log_l.max())
    return np.asarray(density / density.sum())
