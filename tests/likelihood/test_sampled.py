"""A posterior from a likelihood on a grid, by emcee and by importance weights: the same known answer of all three."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, truncnorm

from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.likelihood import sampled
from eorinfer.likelihood.importance import weighted
from eorinfer.likelihood.sampled import (
    PosteriorSample,
    from_prior,
    sample_by_approximation,
    sample_by_importance,
    sample_by_mcmc,
    sample_on_grid,
)
from eorinfer.settings.likelihood import McmcSettings
from simulators import Parameter

PRIOR = Prior((Parameter("a", "a", -10.0, 10.0, 0.0), Parameter("b", "b", 0.0, 50.0, 25.0)))
NORMAL = multivariate_normal([1.0, 20.0], [[0.25, 0.6], [0.6, 4.0]])
TRUTH = np.array([1.4, 18.0])


def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.atleast_1d(NORMAL.logpdf(theta)) + 100.0


def weights(folder: Path) -> PosteriorSample:
    wider = multivariate_normal(NORMAL.mean, 2 * NORMAL.cov)
    theta = wider.rvs(2000, random_state=1)
    found = sample_by_importance(log_l, PRIOR, theta, wider.logpdf(theta), TRUTH, 3000, 1)
    assert found is not None
    return found


def approximately(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Off by what a network of spectra is off by: shifted and wavy."""
    return log_l(theta + np.array([0.15, -0.4])) + np.sin(3 * theta[:, 0])


@pytest.mark.parametrize(
    "method",
    [
        lambda _: sample_on_grid(log_l, PRIOR, TRUTH, 3000, 1, 50),
        lambda _: sample_by_mcmc(log_l, PRIOR, TRUTH, 3000, 1, mcmc=McmcSettings(walkers=16)),
        weights,
        lambda _: sample_by_approximation(log_l, approximately, PRIOR, TRUTH, 3000, 1),
    ],
    ids=["grid", "chain", "weights", "approximation"],
)
@pytest.mark.job
def test_samples_and_densities(
    method: Callable[[Path], PosteriorSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "STEPS", 300)
    monkeypatch.setattr(sampled, "MOST_STEPS", 1500)
    found = method(tmp_path)
    assert found.good
    assert found.values.mean(0) == pytest.approx(NORMAL.mean, abs=0.15)
    assert found.values.std(0) == pytest.approx([0.5, 2.0], rel=0.08)
    assert found.at_truth == pytest.approx(NORMAL.logpdf(TRUTH), abs=0.1)
    # A grid gives the density of the cell.
    assert found.at_samples.mean() == pytest.approx(-NORMAL.entropy(), abs=0.1)
    assert not list(tmp_path.iterdir()), "emcee writes no file"


def test_a_far_proposal_is_drawn_near() -> None:
    """Eight of its own widths away: one of 2,000 draws would carry all the weight."""
    far = multivariate_normal([-1.0, 32.0], [[0.25, 0.0], [0.0, 4.0]])
    theta = far.rvs(2000, random_state=1)
    assert weighted(log_l, PRIOR, theta, far.logpdf(theta)).effective < 5
    found = sample_by_importance(log_l, PRIOR, theta, far.logpdf(theta), TRUTH, 3000, 1)
    assert found is not None
    assert found.values.mean(0) == pytest.approx(NORMAL.mean, abs=0.15)
    assert found.at_truth == pytest.approx(NORMAL.logpdf(TRUTH), abs=0.1)


def test_from_the_prior_in_nine_dimensions() -> None:
    """Some parameters are known, of some half of the posterior would lie beyond the prior's edge, the rest is not."""
    prior = Prior(tuple(Parameter(name, name, 0.0, 1.0, 0.5) for name in "abcdefghi"))
    sigma = np.array([0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 1e3, 1e3, 1e3])
    middle = np.array([0.5, 0.3, 0.6, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5])

    def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return -0.5 * np.asarray((((theta - middle) / sigma) ** 2).sum(-1))

    truth = np.array([0.52, 0.3, 0.6, 0.05, 0.95, 0.5, 0.1, 0.9, 0.5])
    known = truncnorm((0 - middle) / sigma, (1 - middle) / sigma, middle, sigma)
    found = from_prior(log_l, prior, truth, 5000, 1, 10000)
    assert found is not None
    assert found.at_truth == pytest.approx(known.logpdf(truth).sum(), abs=0.1)
    assert found.at_samples.mean() == pytest.approx(-known.entropy().sum(), abs=0.1)
    assert found.values.mean(0) == pytest.approx(known.mean(), abs=5 * known.std().max() / 1500**0.5)
    assert found.values.std(0) == pytest.approx(known.std(), rel=0.1)


def test_weights_that_stay_uneven_are_refused() -> None:
    """A comb, whose teeth no smooth proposal hits."""
    wide = multivariate_normal([1.0, 20.0], NORMAL.cov)
    theta = wide.rvs(2000, random_state=1)
    comb = lambda t: log_l(t) - 0.5 * (np.sin(3e3 * t[:, 0]) / 1e-4) ** 2  # noqa: E731
    assert sample_by_importance(comb, PRIOR, theta, wide.logpdf(theta), TRUTH, 100, 1) is None


def test_an_approximation_that_misses_the_posterior_is_not_relied_on() -> None:
    found = sample_by_approximation(log_l, lambda theta: log_l(theta + np.array([5.0, 0.0])), PRIOR, TRUTH, 100, 1)
    assert not found.good


def test_the_approximation_is_improved_where_few_of_the_draws_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "PARTICLES", 600)
    calls: list[int] = []

    def counted(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        calls.append(len(theta))
        return log_l(theta)

    def improve(seed: int) -> LogLikelihood:
        return log_l

    found = sample_by_approximation(counted, approximately, PRIOR, TRUTH, 100, 1, improve)
    assert found.good
    assert calls.count(300) == 2
    assert found.at_truth == pytest.approx(NORMAL.logpdf(TRUTH), abs=0.3)
