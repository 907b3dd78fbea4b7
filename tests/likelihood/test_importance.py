"""Evidence and samples by importance weights, and by grids, where both are known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm

from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.likelihood.grid import refined_grid
from eorinfer.likelihood.importance import ENOUGH, WIDER, around, weighted
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.likelihood.sampled import from_prior
from eorinfer.settings.likelihood import McmcSettings
from simulators import Parameter

PRIOR = Prior(tuple(Parameter(name, name, -4.0, 6.0, 0.0) for name in ("a", "b")))
MEAN, COVARIANCE = np.array([1.0, 2.0]), np.array([[0.09, 0.05], [0.05, 0.16]])


def gaussian(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.atleast_1d(multivariate_normal(MEAN, COVARIANCE).logpdf(theta)) + 3.0


def at_the_edge(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of it beyond the prior."""
    return np.atleast_1d(multivariate_normal([-4.0, 2.0], np.diag([0.2, 0.1])).logpdf(theta)) + np.log(2.0)


@pytest.mark.parametrize(("log_l", "known"), [(gaussian, 3.0), (at_the_edge, 0.0)])
def test_the_evidence_of_a_chain_and_of_a_grid(
    log_l: Callable[[NDArray[np.float64]], NDArray[np.float64]], known: float
) -> None:
    grid = refined_grid(log_l, PRIOR, 120)
    assert grid.log_integral == pytest.approx(known, abs=2e-3)
    chain, log_density = grid.draw(4000, np.random.default_rng(1))
    # That of a whole cell, whose ends differ far from the middle.
    assert np.abs(log_density - log_l(chain) + known).mean() < 0.05
    found = weighted(log_l, PRIOR, *around(chain, PRIOR, 4000, seed=2))
    assert found.effective > 5 * ENOUGH
    assert found.log_integral == pytest.approx(known, abs=0.05)


def test_the_density_of_the_proposal_is_that_of_its_draws() -> None:
    """A flat likelihood: the mean weight is the prior's volume."""
    chain = np.random.default_rng(1).uniform([-4, -4], [6, 6], (2000, 2))
    theta, log_q = around(chain, PRIOR, 50000, seed=3)
    assert PRIOR.contains(theta).all()
    assert np.exp(-log_q).mean() == pytest.approx(100.0, rel=0.05)


def test_samples_by_weight_follow_the_posterior() -> None:
    wide = multivariate_normal(MEAN + 0.3, 4 * COVARIANCE)
    theta = wide.rvs(20000, random_state=4)
    found = weighted(gaussian, PRIOR, theta, wide.logpdf(theta))
    values, log_density = found.draw(5000, np.random.default_rng(5))
    assert values.mean(0) == pytest.approx(MEAN, abs=0.03)
    assert np.cov(values.T) == pytest.approx(COVARIANCE, abs=0.02)
    assert log_density == pytest.approx(gaussian(values) - 3.0, abs=0.05)


def test_draws_outside_the_prior_count_nothing_and_a_far_proposal_is_seen() -> None:
    far = multivariate_normal([-4.0, -4.0], COVARIANCE)
    theta = far.rvs(2000, random_state=6)
    found = weighted(gaussian, PRIOR, theta, far.logpdf(theta))
    assert np.isneginf(found.log_weight[~PRIOR.contains(theta)]).all()
    assert found.effective < ENOUGH


def test_draws_around_a_chain_are_wider_than_it_by_what_is_said() -> None:
    """In the probit of theta, where the chain is a Gaussian inside a wide prior."""
    prior = Prior((Parameter("a", "a", 0.0, 1.0, 0.5), Parameter("b", "b", -2.0, 2.0, 0.0)))
    z = np.random.default_rng(1).standard_normal((5000, 2)) * [0.3, 0.1] + [0.2, -0.4]
    drawn, log_q = around(prior.from_unit(norm.cdf(z)), prior, 100_000, 1)
    probit = norm.ppf(prior.unit(drawn))
    assert probit.std(0) == pytest.approx(WIDER * z.std(0), rel=0.03)
    # The density is normalised: its inverse has the mean volume of the prior that the draws reach.
    inside = np.exp(-log_q)[np.abs(probit - z.mean(0)).max(1) < 0.15]
    area = np.prod(np.diff(prior.from_unit(norm.cdf(z.mean(0) + np.array([[-0.15], [0.15]]))), axis=0))
    assert inside.sum() / len(drawn) == pytest.approx(area, rel=0.05)


def nothing(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(len(theta), -np.inf)


def no_number(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(theta[:, 0] > 0, np.nan, 0.0)


BOX = Prior((Parameter("a", "a", -1.0, 1.0, 0.0), Parameter("b", "b", -1.0, 1.0, 0.0)))


@pytest.mark.parametrize(
    ("likelihood", "said"),
    [
        (nothing, "the likelihood is zero at all of"),
        (no_number, r"the log likelihood is nan at \d+ of \d+ points, the first is theta = \(0"),
    ],
)
def test_a_likelihood_that_says_nothing_ends_every_sampler(
    likelihood: Callable[[NDArray[np.float64]], NDArray[np.float64]], said: str
) -> None:
    with pytest.raises(WorkError, match=said):
        refined_grid(likelihood, BOX, 10)
    with pytest.raises(WorkError, match=said):
        run_mcmc(likelihood, BOX, McmcSettings(walkers=8, steps=10, max_steps=10), file=None, key="k", seed=1)
    if likelihood is nothing:
        assert from_prior(likelihood, BOX, np.zeros(2), 10, 1, 500) is None
    else:
        with pytest.raises(WorkError, match=said):
            from_prior(likelihood, BOX, np.zeros(2), 10, 1, 500)
