"""Regression with Gaussian errors: its density and samples, and that it can be kept like any posterior."""

import numpy as np
import torch
from scipy.stats import multivariate_normal

from eorinfer.core.prior import Prior
from eorinfer.npe.regression import RegressionNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings
from simulators import GaussianField

SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {})


def network() -> RegressionNetwork:
    torch.manual_seed(1)
    made = RegressionNetwork(PRIOR, SIMULATOR.observables[0], EmbeddingSettings(width=4), PowerSpectrumSettings(bins=3))
    for layer in (made.mean, made.log_width, made.below):
        assert layer is not None
        torch.nn.init.normal_(layer.weight, std=0.05)
    return made.eval()


def test_density_and_samples_are_those_of_one_normal() -> None:
    made, x = network(), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        features = made.embedding(x)
        torch.manual_seed(3)
        drawn = made.sample(20000, features)
        log_q = made.log_prob(drawn[:200], features)
        loss = made.loss(drawn[0], x)
    for i in range(3):
        values = drawn[:, i].numpy()
        normal = multivariate_normal(values.mean(0), np.cov(values.T))
        assert np.abs(normal.logpdf(values[:200]) - log_q[:, i].numpy()).max() < 0.15
        assert abs(loss[i].item() + log_q[0, i].item() - PRIOR.log_density) < 1e-4


def test_it_starts_as_wide_as_the_prior() -> None:
    torch.manual_seed(1)
    made = RegressionNetwork(PRIOR, SIMULATOR.observables[0], EmbeddingSettings(width=4), PowerSpectrumSettings(bins=3))
    with torch.no_grad():
        drawn = made.sample(5000, made.embedding(torch.randn(1, 1, 8, 8)))[:, 0].numpy()
    assert np.allclose(drawn.std(0), PRIOR.std, rtol=0.05)
