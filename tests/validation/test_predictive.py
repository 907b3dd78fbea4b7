"""The predictive check: bands that hold what they say, and a verdict that is right as often as it says."""

import json

import numpy as np
import pytest

from eorinfer.validation.predictive import UNLIKE, PredictiveCheck


def check(rng: np.random.Generator, n: int, off: float = 0.0, wide: float = 1.0) -> PredictiveCheck:
    """Skewed powers of 8 bins, correlated by a common factor; the observation may be off, or spread too far."""
    powers = np.exp(rng.standard_normal((n + 1, 1, 1)) + rng.standard_normal((n + 1, 1, 8)))
    powers[-1] = powers[-1] ** wide * np.exp(off)
    return PredictiveCheck.of(powers[:-1], powers[-1], 1)


@pytest.mark.parametrize(("n", "level"), [(12, 11 / 13), (32, 31 / 33), (39, 0.95), (200, 0.95)])
def test_the_outer_band_holds_what_it_says(n: int, level: float) -> None:
    rng = np.random.default_rng(n)
    found = [check(rng, n) for _ in range(800)]
    assert found[0].levels == pytest.approx((level, 0.68))
    # Bins of one observation are correlated: 800 of them count about as 1600.
    assert np.mean([c.inside.mean() for c in found]) == pytest.approx(level, abs=0.02)
    raw = np.quantile(np.random.default_rng(1).random((2000, 12)), [0.025, 0.975], axis=1)
    assert 0.78 < (raw[1] - raw[0]).mean() < 0.84, "the quantiles of twelve draws hold 82% of further ones"


def test_the_verdict_is_wrong_as_often_as_its_p_says() -> None:
    rng = np.random.default_rng(1)
    p = np.array([check(rng, 39).p for _ in range(600)])
    assert np.mean(p < UNLIKE) < 0.05
    assert np.mean(p <= 0.25) == pytest.approx(0.25, abs=0.05)
    off = [check(rng, 39, off=8.0) for _ in range(20)]
    assert all(c.unlike for c in off)
    assert "the observed power is UNLIKE simulations at the posterior: p = 0.025, farthest bin " in off[0].verdict(
        "power"
    )


def test_few_simulations_say_that_they_cannot_tell() -> None:
    found = check(np.random.default_rng(1), 12, off=20.0)
    assert not found.unlike
    assert found.verdict("power") == (
        "the observed power is like simulations at the posterior: p = 0.077 (12 simulations give 0.077 at the least); "
        "0 of 8 bins are inside the 85% band"
    )
    json.dumps(found.content("power"), allow_nan=False)


def test_values_of_any_sign_and_constant_bins() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((31, 2, 3))
    values[:, 1, 2] = 0.0
    found = PredictiveCheck.of(values[:-1], values[-1], 1)
    assert np.isfinite(found.p)
    assert found.inside[1, 2]
    odd = values[-1].copy()
    odd[1, 2] = 1.0
    unlike = PredictiveCheck.of(values[:-1], odd, 1)
    assert unlike.unlike
    assert unlike.farthest == (1, 2)
    assert "farthest bin 3 of channel 2" in unlike.verdict("vector")
