"""The flat prior: moments, bounds and draws, against scipy's uniform distribution."""

import numpy as np
import pytest
from scipy.stats import uniform

from eorinfer.core.prior import Prior
from simulators import Parameter

PRIOR = Prior((Parameter("a", "a", -2.0, 4.0, 0.0), Parameter("b", "b", 10.0, 10.5, 10.0)))


def test_moments_are_those_of_a_uniform_distribution() -> None:
    truth = uniform(PRIOR.low, PRIOR.high - PRIOR.low)
    assert truth.std() == pytest.approx(PRIOR.std)
    assert PRIOR.log_density == pytest.approx(truth.logpdf([0.0, 10.2]).sum())
    drawn = PRIOR.sample(40_000, np.random.default_rng(1))
    assert drawn.std(0) == pytest.approx(PRIOR.std, rel=0.02)
    assert drawn.mean(0) == pytest.approx(truth.mean(), abs=4 * PRIOR.std.max() / 200)


def test_fewer_draws_are_the_first_of_more() -> None:
    more, fewer = (PRIOR.sample(n, np.random.default_rng(3)) for n in (7, 4))
    assert np.array_equal(more[:4], fewer)


def test_bounds_are_inside_and_nan_is_not() -> None:
    theta = np.array([PRIOR.low, PRIOR.high, [-2.1, 10.2], [0.0, 10.6], [np.nan, 10.2], [0.0, 10.2]])
    assert PRIOR.contains(theta).tolist() == [True, True, False, False, False, True]


def test_a_part_of_the_box_stays_inside_it() -> None:
    part = PRIOR.within(np.array([-5.0, 10.1]), np.array([1.0, 10.3]))
    assert part.low.tolist() == [-2.0, 10.1]
    assert part.high.tolist() == [1.0, 10.3]
    assert part.names == ["a", "b"]
    assert part.hash() != PRIOR.hash()
    assert PRIOR.within(PRIOR.low, PRIOR.high).hash() == PRIOR.hash()
