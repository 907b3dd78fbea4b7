"""Annealed particles against posteriors and evidences that are known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import ks_1samp, multivariate_normal, norm

from eorinfer.core.errors import WorkError
from eorinfer.core.marginals import LogUniform
from eorinfer.core.prior import Prior
from eorinfer.likelihood.annealed import anneal
from simulators import Parameter

Array = NDArray[np.float64]
FIVE = Prior(tuple(Parameter(f"p{i}", f"p_{i}", -5.0, 5.0, 0.0) for i in range(5)))


def test_a_normal_posterior_and_its_density() -> None:
    normal = multivariate_normal([1.0, 0.0, -2.0, 0.0, 0.0], np.diag([0.01, 0.25, 0.04, 1.0, 0.09]))
    theta, log_q = anneal(lambda theta: normal.logpdf(theta) - 300, FIVE, 2000, 1)
    assert theta.mean(0) == pytest.approx(normal.mean, abs=0.1)
    assert theta.std(0) == pytest.approx(np.sqrt(np.diag(normal.cov)), rel=0.08)
    assert (log_q - normal.logpdf(theta)).mean() == pytest.approx(0, abs=0.25), "normalised by the evidence"
    assert np.ptp(log_q - normal.logpdf(theta)) < 1e-9
    again, _ = anneal(lambda theta: normal.logpdf(theta) - 300, FIVE, 2000, 1)
    assert np.array_equal(theta, again)


def test_a_power_makes_the_draws_wider() -> None:
    normal = multivariate_normal(np.zeros(5), 0.04 * np.eye(5))
    theta, _ = anneal(normal.logpdf, FIVE, 2000, 2, power=0.5)
    assert theta.std(0) == pytest.approx(0.2 * np.sqrt(2), rel=0.08)


def test_two_modes_of_unequal_width_have_their_shares() -> None:
    narrow, wide = (multivariate_normal(np.full(5, at), width**2 * np.eye(5)) for at, width in ((-2, 0.4), (2, 0.8)))

    def log_l(theta: Array) -> Array:
        return np.asarray(logsumexp([narrow.logpdf(theta), wide.logpdf(theta)], axis=0) - np.log(2))

    runs = [anneal(log_l, FIVE, 2000, seed) for seed in range(8)]
    # A weighted mean over runs: each has its own evidence.
    evidence = np.array([np.exp(-(log_q - log_l(theta)).mean()) for theta, log_q in runs])
    shares = np.array([(theta[:, 0] < 0).mean() for theta, _ in runs])
    assert np.average(shares, weights=evidence) == pytest.approx(0.5, abs=0.12)


def test_a_curved_posterior_that_ends_at_an_edge() -> None:
    prior = Prior((Parameter("a", "a", -1.0, 3.0, 0.0), Parameter("b", "b", 0.0, 4.0, 1.0)))

    def log_l(theta: Array) -> Array:
        return np.asarray(-0.5 * ((theta[:, 1] - theta[:, 0] ** 2) / 0.02) ** 2)

    theta, log_q = anneal(log_l, prior, 2000, 3)
    # Along the parabola the density of a is flat, but for where b ends.
    inside, _ = quad(lambda a: norm.cdf(4.0, a**2, 0.02) - norm.cdf(0.0, a**2, 0.02), -1.0, 3.0, points=[0.0, 2.0])
    log_integral = np.log(inside * 0.02 * np.sqrt(2 * np.pi))
    assert (log_l(theta) - log_q).mean() == pytest.approx(log_integral, abs=0.15)
    off = ((theta[:, 1] - theta[:, 0] ** 2) / 0.02)[np.abs(theta[:, 0] - 1.0) < 0.5]
    assert ks_1samp(off[::3], norm.cdf).pvalue > 1e-3
    assert (theta[:, 0] < 0.5).mean() == pytest.approx(1.5 / 3, abs=0.06)


def test_a_prior_that_is_not_flat() -> None:
    parameters = (Parameter("a", "a", 0.01, 100.0, 1.0), Parameter("b", "b", -1.0, 1.0, 0.0))
    prior = Prior.from_marginals(parameters, {"a": LogUniform(0.01, 100.0)})
    theta, log_q = anneal(lambda theta: norm.logpdf(np.log(theta[:, 0]), 1.0, 0.3), prior, 2000, 4)
    assert np.log(theta[:, 0]).mean() == pytest.approx(1.0, abs=0.05)
    assert np.log(theta[:, 0]).std() == pytest.approx(0.3, rel=0.08)
    # The density is that of theta, not of its logarithm.
    wanted = norm.logpdf(np.log(theta[:, 0]), 1.0, 0.3) - np.log(theta[:, 0]) - np.log(2)
    assert (log_q - wanted).mean() == pytest.approx(0, abs=0.15)


def test_what_it_refuses() -> None:
    with pytest.raises(WorkError, match="the likelihood is zero at all of 200 draws from the prior"):
        anneal(lambda theta: np.full(len(theta), -np.inf), FIVE, 200, 1)
    with pytest.raises(WorkError, match="the log likelihood is nan"):
        anneal(lambda theta: np.full(len(theta), np.nan), FIVE, 200, 1)
