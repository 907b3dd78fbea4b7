"""Tests of uniform ranks: false alarms at the level, errors seen as often as said, symptoms by name."""

import numpy as np
import pytest
from scipy.special import ndtr

from eorinfer.validation.uniformity import (
    LEVEL,
    effects,
    holm,
    mean_and_spread,
    smallest_visible,
    symptom,
    uniformity_tests,
)


def test_bands_hold_the_right_error_as_often_as_they_say() -> None:
    u = np.random.default_rng(1).random((300, 100))
    found = [effects({"a": of_a, "coverage": of_a}, 2, 1000) for of_a in u]
    for errors in (
        [effect["a"].width / effect["a"].width_error for effect in found],
        [(effect["a"].shift or 0.0) / (effect["a"].shift_error or 1.0) for effect in found],
        [effect["coverage"].width / effect["coverage"].width_error for effect in found],
    ):
        assert 0.58 < np.mean(np.abs(errors) < 1) < 0.78


@pytest.mark.parametrize(("shift", "side"), [(6.0, "high"), (-30.0, "low")])
def test_what_is_beyond_all_samples_is_said_to_be_far_not_how_far(shift: float, side: str) -> None:
    u = ndtr(np.random.default_rng(1).standard_normal(200) - shift).round(3)
    assert effects({"a": u}, 1, 1000)["a"].line() == f"mean more than 7 σ too {side}, so that widths cannot be told"


def test_few_samples_do_not_make_ranks_uneven() -> None:
    """1000 truths would see the steps of 100 samples if they were not filled."""
    rng = np.random.default_rng(2)
    p = []
    for _ in range(200):
        ranks = rng.integers(0, 21, 4000)
        p.append(uniformity_tests({"a": (ranks + rng.random(4000)) / 21})[0].p)
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.1


@pytest.mark.job
def test_the_false_alarm_rate_is_the_level() -> None:
    rng = np.random.default_rng(3)
    alarms = [
        min(test.p_holm for test in uniformity_tests({str(q): rng.random(100) for q in range(3)})) < 0.05
        for _ in range(150)
    ]
    assert np.mean(alarms) < 0.11
    p = mean_and_spread(rng.random((20000, 100)))
    assert abs(np.mean(p < 0.01) - 0.01) < 0.003


def test_holm() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).max() == 1.0


def test_the_smallest_visible_errors_are_seen_as_often_as_it_says() -> None:
    seen = smallest_visible(200, LEVEL / 8, seed=1)
    rng = np.random.default_rng(7)
    z = rng.standard_normal((1500, 200))
    for u in (ndtr(z / (1 - seen.too_narrow)), ndtr(z / (1 + seen.too_wide)), ndtr(z - seen.shift)):
        # Kolmogorov-Smirnov adds a little to what this test sees.
        assert 0.7 < np.mean(mean_and_spread(u) < LEVEL / 8) < 0.87
    more = smallest_visible(800, LEVEL / 8, seed=1)
    for name in ("too_narrow", "too_wide", "shift"):
        assert 1.5 < getattr(seen, name) / getattr(more, name) < 3.5, "about the square root of four"


def test_too_few_truths_see_nothing_and_say_so() -> None:
    seen = smallest_visible(20, 1e-15, seed=1)
    assert seen.too_wide == np.inf
    assert smallest_visible(20, LEVEL / 8, seed=1).shift > 0.8


def test_symptoms() -> None:
    u = np.linspace(0.001, 0.999, 500)
    assert symptom("a", np.where(u < 0.5, u**2, 1 - (1 - u) ** 2)) == "a is too narrow"
    assert symptom("a", 0.3 + 0.4 * u) == "a is too wide"
    assert symptom("a", u**2) == "a is too high"
    assert symptom("coverage", u**2) == "regions of highest density hold the truth too seldom"
