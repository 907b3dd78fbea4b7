"""The alarm of the field flow: p-values that are uniform for images like the known ones, and small for others."""

import numpy as np
import pytest

from eorinfer.inference.field_alarm import scale_p_values


def images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ln p at two scales, whose level and scatter depend on the condition."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(0, 1, (n, 1))
    return 1000 * y + np.array([1.0, 10.0]) * (1 + y) * rng.standard_normal((n, 2)), y


def test_images_like_the_known_ones_have_uniform_p_values() -> None:
    p = scale_p_values(*images(2000, 1), *images(4000, 2))
    assert p.shape == (2000, 2)
    for level in (0.05, 0.3, 0.7):
        assert (p < level).mean(0) == pytest.approx(np.full(2, level), abs=0.035)


def test_others_are_told_apart_at_their_scale() -> None:
    known, y = images(4000, 2)
    log_p, own = images(1, 3)
    at = scale_p_values(log_p[0] - np.array([0.0, 200.0]), own[0], known, y)
    assert at.shape == (2,)
    assert at[0] == scale_p_values(log_p[0], own[0], known, y)[0]
    assert at[1] == pytest.approx(2 / 201)
    assert scale_p_values(log_p[0] + np.array([20.0, 0.0]), own[0], known, y)[0] == pytest.approx(2 / 201)


def test_fewer_known_images_than_neighbours() -> None:
    p = scale_p_values(np.zeros(2), np.zeros(1), np.arange(-9.0, 10).repeat(2).reshape(19, 2), np.zeros((19, 1)))
    assert p == pytest.approx([1.0, 1.0])
