"""The tail of importance weights: fitted as ArviZ fits it, and the k of known distributions."""

import numpy as np
import pytest
from scipy.stats import genpareto, multivariate_normal, multivariate_t

from eorinfer.core.prior import Prior
from eorinfer.likelihood.importance import weighted
from eorinfer.likelihood.pareto import fit_shape, largest_k, pareto_k
from simulators import Parameter


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.7, 1.2])
def test_the_shape_of_a_known_tail(k: float) -> None:
    found = [fit_shape(np.sort(genpareto(k).rvs(300, random_state=seed))) for seed in range(20)]
    assert np.mean(found) == pytest.approx((300 * k + 5) / 310, abs=0.05)
    scaled = np.sort(1e-6 * genpareto(k).rvs(300, random_state=0))
    assert fit_shape(scaled) == pytest.approx(found[0], abs=1e-6), "whatever the unit"


def test_it_is_what_arviz_finds() -> None:
    arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(1)
    for sigma in (0.3, 1.0, 2.0, 4.0):
        log_weight = sigma * rng.standard_normal(4000)
        assert pareto_k(log_weight) == pytest.approx(float(arviz.psislw(log_weight)[1]), abs=2e-3)


def test_weights_of_few_draws_and_equal_ones() -> None:
    assert pareto_k(np.full(100, -np.inf)) == np.inf
    assert pareto_k(np.zeros(1000)) == -np.inf
    assert pareto_k(np.zeros(10)) == np.inf
    log_weight = np.full(1000, -np.inf)
    log_weight[:20] = 0.0
    assert pareto_k(log_weight) == np.inf, "the tail holds more draws than have a weight"
    assert largest_k(1000) == pytest.approx(1 - 1 / 3)
    assert largest_k(10**6) == 0.7


def test_a_proposal_that_is_too_narrow_is_seen_although_its_weights_count() -> None:
    """Half of the width in four dimensions: thousands of weights seem to count, and what they say is wrong."""
    prior = Prior(tuple(Parameter(name, name, -20.0, 20.0, 0.0) for name in "abcd"))
    target = multivariate_normal(np.zeros(4))
    narrow, wide = multivariate_normal(np.zeros(4), 0.35), multivariate_t(np.zeros(4), 1.5 * np.eye(4), df=5)
    theta = narrow.rvs(20000, random_state=1)
    found = weighted(target.logpdf, prior, theta, narrow.logpdf(theta))
    assert found.effective > 250
    assert found.pareto_k > largest_k(20000)
    assert not found.reliable
    theta = wide.rvs(20000, random_state=1)
    right = weighted(target.logpdf, prior, theta, wide.logpdf(theta))
    assert right.pareto_k < 0.3
    assert right.reliable
