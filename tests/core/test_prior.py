"""The flat prior: moments, bounds and draws, against scipy's uniform distribution."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import uniform

from eorinfer.core.arrays import from_symmetric, to_symmetric
from eorinfer.core.errors import InputError
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


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"slop": (-3.0, 0.0)}, "prior: 'slop' is no parameter; they are a, slope"),
        ({"slope": (0.0, -3.0)}, r"prior: slope = \[0, -3\]: must be \[low, high\], finite, low below high"),
        ({"slope": (0.0, np.nan)}, "finite, low below high"),
    ],
)
def test_ranges_that_cannot_be(ranges: dict[str, tuple[float, float]], said: str) -> None:
    """A misspelt name left the default range, and a reversed one a prior that contains nothing."""
    parameters = tuple(Parameter(name, name, -1.0, 1.0, 0.0) for name in ("a", "slope"))
    with pytest.raises(InputError, match=said):
        Prior.from_ranges(parameters, ranges)


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


def test_units_of_the_box_and_back() -> None:
    theta = np.array([[PRIOR.low, PRIOR.high], [[1.0, 10.25], [-5.0, 11.0]]])
    units = [[[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.5], [-0.5, 2.0]]]
    assert PRIOR.unit(theta).tolist() == units
    assert PRIOR.from_unit(np.array(units)).tolist() == theta.tolist()
    low, high, tensor = (torch.from_numpy(array) for array in (PRIOR.low, PRIOR.high, theta))
    symmetric = to_symmetric(tensor, low, high)
    assert symmetric.tolist() == (2 * np.array(units) - 1).tolist()
    assert from_symmetric(symmetric, low, high).tolist() == theta.tolist()


def test_a_prior_is_the_same_after_json() -> None:
    assert Prior.from_json(json.loads(json.dumps(PRIOR.to_json()))) == PRIOR
