"""Each way of sampling a likelihood, under each kind of prior, against the posterior by brute force."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from eorinfer.core.dependence import Dependence
from eorinfer.core.marginals import LogUniform, Normal, Table
from eorinfer.core.prior import Prior
from eorinfer.likelihood.sampled import PosteriorSample, from_prior, sample_by_mcmc, sample_on_grid
from eorinfer.settings.likelihood import McmcSettings
from simulators import Parameter

A, B = Parameter("a", "a", -3.0, 5.0, 0.0), Parameter("b", "b", 0.05, 20.0, 1.0)
GRID = np.linspace(-2.0, 4.0, 40)
TRUTH = np.array([0.5, 2.0])


def scores() -> Dependence:
    z = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 200)
    return Dependence((0, 1), z)


PRIORS = {
    "normal": Prior.from_marginals((A, B), {"a": Normal(-3.0, 5.0, -0.5, 0.6)}),
    "log": Prior.from_marginals((A, B), {"b": LogUniform(0.05, 20.0)}),
    "table": Prior.from_marginals((A, B), {"a": Table.from_points(GRID, 1 + np.cos(2 * GRID))}),
    "joint": Prior.from_marginals((A, B), {"a": Normal(-3.0, 5.0, 0.0, 1.0), "b": LogUniform(0.05, 20.0)}, scores()),
}


def log_l(theta: np.ndarray) -> np.ndarray:
    """Data of a normal mean and of a scale, neither narrow against the priors."""
    a, b = theta.T
    return -0.5 * ((a - 0.8) / 0.7) ** 2 - np.log(b) - 1.5 / b


MCMC = McmcSettings(walkers=32)
WAYS: dict[str, Callable[[Prior], PosteriorSample | None]] = {
    "grid": lambda prior: sample_on_grid(log_l, prior, TRUTH, 4000, 1, 80),
    "emcee": lambda prior: sample_by_mcmc(log_l, prior, TRUTH, 4000, 1, mcmc=MCMC),
    "weights": lambda prior: from_prior(log_l, prior, TRUTH, 4000, 1, 20_000),
}


#: All but the chain under the joint prior, which is slow; its target is that of the weights.
CASES = [(name, way) for name in PRIORS for way in WAYS if (name, way) != ("joint", "emcee")]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_every_way_gives_likelihood_times_prior(name: str, way: str) -> None:
    prior = PRIORS[name]
    sample = WAYS[way](prior)
    assert sample is not None
    assert sample.good
    # Brute force: draws from a box, weighted by likelihood times the prior's density.
    box = np.column_stack([np.random.default_rng(2).uniform(-3, 5, 80_000), np.geomspace(0.05, 20.0, 80_000)])
    box[:, 1] = np.random.default_rng(3).permutation(box[:, 1])
    log_w = log_l(box) + prior.log_prob(box) + np.log(box[:, 1])
    weights = np.exp(log_w - log_w.max())
    for column in range(2):
        order = np.argsort(box[:, column])
        cumulative = np.cumsum(weights[order]) / weights.sum()
        off = np.interp(sample.values[:, column], box[order, column], cumulative)
        # Chains of 4,000 draws have some hundred independent ones.
        assert stats.kstest(off, "uniform").statistic < 0.05
    volume = 8.0 * np.log(20 / 0.05)  # of the box in a and log b
    log_evidence = np.log(weights.mean() * volume) + log_w.max()
    at = [np.array([TRUTH]), sample.values[:50]]
    for theta, found in zip(at, (sample.at_truth, sample.at_samples[:50]), strict=True):
        expected = log_l(theta) + prior.log_prob(theta) - log_evidence
        # A cell of the grid has one density, that of its centre.
        assert np.median(np.abs(found - expected)) < 0.06
