"""Calibration near an observation: an error that is in one half of the prior is seen there, and not in the other."""

import json

import numpy as np
import pytest

from eorinfer.validation.calibration import calibrate
from eorinfer.validation.local import LocalCalibration, calibrate_near
from eorinfer.validation.uniformity import LEVEL


def near(place: float, width: float, seed: int = 1, truths: int = 300) -> LocalCalibration:
    """Test normal posteriors of which those with a first mean above 0 have this width, near a mean of `place`."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-4, 4, (truths, 2))
    theta = mean + 0.5 * rng.standard_normal((truths, 2))
    claimed = np.where(mean[:, :1] > 0, width, 1.0)[:, None] * 0.5
    samples = mean[:, None] + claimed * rng.standard_normal((truths, 200, 2))
    log_q = [-0.5 * np.square((x - mean[:, None]) / claimed).sum(-1) for x in (theta[:, None], samples)]
    calibration = calibrate(["a", "b"], theta, samples, log_q[0][:, 0], log_q[1], seed)
    observed = [place, 0.0] + 0.5 * (width if place > 0 else 1.0) * rng.standard_normal((500, 2))
    return calibrate_near(theta, samples, observed, calibration, seed)


def test_an_error_in_one_half_is_seen_there_alone() -> None:
    there, elsewhere = near(2.0, width=0.6), near(-2.0, width=0.6)
    assert there.p < LEVEL < elsewhere.p
    for name in ("a", "b", "coverage"):
        wrong, right = there.effects[name], elsewhere.effects[name]
        assert wrong.width == pytest.approx(-0.4, abs=4 * wrong.width_error)
        assert abs(right.width) < 4 * right.width_error
    assert there.nearest == 75
    assert next(there.lines()).startswith("WARNING: NOT calibrated near the observation: l-C2ST p = 0.005")
    assert next(elsewhere.lines()).startswith("near the observation: l-C2ST p = ")
    json.dumps(there.content(), allow_nan=False)


def test_right_posteriors_are_seldom_called_wrong() -> None:
    p = [near(2.0, width=1.0, seed=seed, truths=100).p for seed in range(3)]
    assert min(p) > LEVEL
    assert max(p) > 0.1
