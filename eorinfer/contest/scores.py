"""Scores of methods: information, volume, widths, bias and coverage of each, and ratios of any two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.contest.method import Method
from eorinfer.core.prior import Prior
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.validation.calibration import Calibration, calibrate, recovery
from eorinfer.validation.sharpness import mean_and_error, with_floor

#: Resamplings of the truths that errors of a mean are taken from.
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Score:
    """Score of one method, over the truths whose posteriors can be relied on.

    Attributes
    ----------
    method
        Trained method.
    posteriors
        Posteriors of all T truths, in their order.
    theta
        Parameters of the truths, (T, P).
    calibration
        SBC, expected coverage and TARP.
    """

    method: Method
    posteriors: TruthPosteriors
    theta: NDArray[np.float64]
    calibration: Calibration

    @classmethod
    def from_posteriors(
        cls, method: Method, posteriors: TruthPosteriors, theta: NDArray[np.float64], prior: Prior, seed: int
    ) -> "Score":
        """Test the posteriors of the first T truths (T, P)."""
        theta = theta[: len(posteriors)]
        good = posteriors[posteriors.good]
        truths, values = (prior.unit(t) for t in (theta[posteriors.good], good.values))
        calibration = calibrate(prior.names, truths, values, good.at_truth, good.at_samples, seed)
        return cls(method, posteriors, theta, calibration)

    @property
    def tarp_deviation(self) -> float:
        """Mean of expected coverage minus credibility, over all credibilities, with its sign."""
        return float((self.calibration.tarp[:, 1] - self.calibration.tarp[:, 0]).mean())

    @property
    def sbc_p(self) -> float:
        """Smallest p of a parameter's ranks, with Holm's correction over all tests."""
        of_parameters = [test for test in self.calibration.tests if test.quantity not in ("coverage", "tarp")]
        return min(test.p_holm for test in of_parameters)

    def content(self, prior: Prior) -> dict[str, Any]:
        """Give the scores as JSON."""
        good = self.posteriors[self.posteriors.good]
        theta = self.theta[self.posteriors.good]
        at_truth, without = with_floor(good.at_truth)
        return {
            "label": self.method.label,
            "truths": len(self.posteriors),
            "left_out": int((~self.posteriors.good).sum()),
            "gain": mean_and_error(at_truth - prior.log_prob(theta)) | {"without_density": without},
            "volume_over_prior": float(np.exp(np.median(good.entropy) - prior.entropy)),
            "recovery": recovery(prior.names, theta, good.values, prior.std),
            "calibrated": self.calibration.calibrated,
            "worst_p": self.calibration.worst.p_holm,
            "worst_test": f"{self.calibration.worst.quantity}, {self.calibration.worst.test}",
            "sbc_p": self.sbc_p,
            "tarp_deviation": self.tarp_deviation,
            "training_seconds": self.method.training_seconds,
            "seconds_per_observation": float(np.median(self.posteriors.seconds)),
        }


def compare(score: Score, other: Score, seed: int) -> dict[str, Any]:
    """Compare two methods on the truths for which both can be relied on.

    Returns
    -------
    dict
        Number of ``truths``; ``gain``, the mean of the difference of log posterior densities at the truth, with its
        bootstrap ``gain_error``; ``volume``, the median ratio of volumes; ``smaller``, the share of truths for which
        the volume is the smaller one; ``widths``, the median ratio of standard deviations of each parameter.
    """
    a, b = _common(score, other)
    difference = with_floor(a.at_truth)[0] - with_floor(b.at_truth)[0]
    rng = np.random.default_rng(seed)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(BOOTSTRAP)]
    log_volume = log_volumes(score, other)
    return {
        "truths": len(a),
        "gain": float(difference.mean()),
        "gain_error": float(np.std(means)),
        "volume": float(np.exp(np.median(log_volume))),
        "smaller": float(np.mean(log_volume < 0)),
        "widths": np.median(a.values.std(1) / b.values.std(1), axis=0).tolist(),
    }


def log_volumes(score: Score, other: Score) -> NDArray[np.float64]:
    """Give the log of the ratio of volumes (T,), for the truths for which both can be relied on."""
    a, b = _common(score, other)
    return a.entropy - b.entropy


def _common(score: Score, other: Score) -> tuple[TruthPosteriors, TruthPosteriors]:
    n = min(len(score.posteriors), len(other.posteriors))
    both = score.posteriors.good[:n] & other.posteriors.good[:n]
    return score.posteriors[:n][both], other.posteriors[:n][both]


def find_score(scores: Sequence[Score], name: str) -> Score | None:
    """Find the score of a method; None if it did not take part."""
    return next((score for score in scores if score.method.name == name), None)
