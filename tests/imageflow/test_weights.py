"""Weights of the terms of ln p: one where the density is right, less where a term says too much."""

import numpy as np
import pytest
from numpy.typing import NDArray

from eorinfer.imageflow.weights import learn_one_weight, learn_weights, log_density

Array = NDArray[np.float64]


def images(n: int, seed: int) -> tuple[Array, Array, Array]:
    """Two measurements of y, the second of which is four times less certain than its term says."""
    rng = np.random.default_rng(seed)
    y, points = rng.uniform(-3, 3, n), np.linspace(-6, 6, 241)
    first, second = y + 0.5 * rng.standard_normal(n), y + 1.2 * rng.standard_normal(n)

    def terms(at: Array) -> Array:
        return np.stack([-0.5 * ((first - at) / 0.5) ** 2, -0.5 * ((second - at) / 0.3) ** 2], axis=-1)

    return terms(points[:, None]).swapaxes(0, 1), terms(y), np.full(n, np.log(points[1] - points[0]))


def test_a_term_that_says_too_much_counts_for_less() -> None:
    weights = learn_weights(*images(400, 1))
    assert weights[0] == pytest.approx(1, abs=0.2)
    assert weights[1] == pytest.approx((0.3 / 1.2) ** 2, rel=0.4)
    fresh = images(400, 2)
    gain = log_density(weights, *fresh) - log_density(np.ones(2), *fresh)
    assert gain.mean() > 1
    right = log_density(np.array([1.0, 1 / 16]), *fresh)
    assert (right - log_density(weights, *fresh)).mean() < 0.02


def test_one_weight_for_all_terms_lies_between() -> None:
    weights = learn_one_weight(*images(60, 1))
    assert weights.shape == (2,)
    assert weights[0] == weights[1]
    assert (0.3 / 1.2) ** 2 < weights[0] < 0.5
    fresh = images(400, 2)
    assert (log_density(weights, *fresh) - log_density(np.ones(2), *fresh)).mean() > 0.5
