"""Scores of methods: information, volume, widths, bias and coverage of each, and ratios of any two."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
    again
        Scores of further trainings with other seeds, on the same truths.
    """

    method: Method
    posteriors: TruthPosteriors
    theta: NDArray[np.float64]
    calibration: Calibration
    again: "tuple[Score, ...]" = ()

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
    def trainings(self) -> "tuple[Score, ...]":
        """All trainings, this one first."""
        return (self, *self.again)

    @property
    def calibrated(self) -> bool:
        """Whether each training is calibrated."""
        return all(score.calibration.calibrated for score in self.trainings)

    def gain(self, prior: Prior, rows: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """Information gained over the prior: mean over truths and trainings, with its error in nats.

        Truths (T,) that count are `rows`, by default those whose posteriors can be relied on.
        """
        rows = self.posteriors.good if rows is None else rows
        known = prior.log_prob(self.theta[rows])
        found = [with_floor(score.posteriors.at_truth[rows]) for score in self.trainings]
        return mean_over_trainings([at_truth - known for at_truth, _ in found]) | {"without_density": found[0][1]}

    @property
    def sbc_p(self) -> float:
        """Smallest p of a parameter's ranks, with Holm's correction over all tests."""
        of_parameters = [test for test in self.calibration.tests if test.quantity not in ("coverage", "tarp")]
        return min(test.p_holm for test in of_parameters)

    def content(self, prior: Prior) -> dict[str, Any]:
        """Give the scores as JSON."""
        good = self.posteriors[self.posteriors.good]
        theta = self.theta[self.posteriors.good]
        content: dict[str, Any] = {
            "label": self.method.label,
            "truths": len(self.posteriors),
            "left_out": int((~self.posteriors.good).sum()),
            "gain": self.gain(prior),
            "volume_over_prior": float(np.exp(np.median(good.entropy) - prior.entropy)),
            "recovery": recovery(prior.names, theta, good.values, prior.std),
            "calibrated": self.calibrated,
            "worst_p": self.calibration.worst.p_holm,
            "worst_test": f"{self.calibration.worst.quantity}, {self.calibration.worst.test}",
            "sbc_p": self.sbc_p,
            "tarp_deviation": self.calibration.tarp_deviation,
            "tarp_chance": self.calibration.tarp_chance,
            "effects": {quantity: asdict(effect) for quantity, effect in self.calibration.effects.items()},
            "training_seconds": self.method.training_seconds,
            "seconds_per_observation": float(np.median(self.posteriors.seconds)),
        }
        if self.again:
            content["trainings"] = [
                {"gain": score.gain(prior)["mean"], "worst_p": score.calibration.worst.p_holm}
                for score in (replace(training, again=()) for training in self.trainings)
            ]
        return content


def mean_over_trainings(values: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """Mean of values (B,) of each of k trainings, and its error.

    The error is that of B truths and, with two trainings or more, of k draws from the scatter of their means, which
    is given as ``"training_scatter"``.
    """
    result = mean_and_error(np.mean(values, axis=0))
    if len(values) > 1:
        scatter = float(np.std([v.mean() for v in values], ddof=1))
        result["error"] = float(np.hypot(result["error"], scatter / np.sqrt(len(values))))
        result["training_scatter"] = scatter
    return result


def common_truths(scores: Sequence[Score], least: int) -> NDArray[np.bool_]:
    """Truths (T,) for which all methods that were evaluated on `least` or more of them can be relied on."""
    least = min(least, max(len(score.posteriors) for score in scores))
    masks = [score.posteriors.good for score in scores if len(score.posteriors) >= least]
    n = min(map(len, masks))
    return np.logical_and.reduce([mask[:n] for mask in masks])


def compare(score: Score, other: Score, seed: int) -> dict[str, Any]:
    """Compare two methods on the truths for which both can be relied on.

    Returns
    -------
    dict
        Number of ``truths``; ``gain``, the mean of the difference of log posterior densities at the truth, with its
        ``gain_error``, by bootstrap over truths and the scatter of trainings; ``volume``, the median ratio of volumes;
        ``smaller``, the share of truths for which the volume is the smaller one; ``widths``, the median ratio of
        standard deviations of each parameter. Trainings are paired by their number: they had the same batches.
    """
    a, b = _common(score, other)
    pairs = [_common(*pair) for pair in _pairs(score, other)]
    differences = [with_floor(p.at_truth)[0] - with_floor(q.at_truth)[0] for p, q in pairs]
    difference = np.mean(differences, axis=0)
    rng = np.random.default_rng(seed)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(BOOTSTRAP)]
    scatter = float(np.std([d.mean() for d in differences], ddof=1)) if len(differences) > 1 else 0.0
    log_volume = log_volumes(score, other)
    return {
        "truths": len(a),
        "gain": float(difference.mean()),
        "gain_error": float(np.hypot(np.std(means), scatter / np.sqrt(len(differences)))),
        "training_scatter": scatter if len(differences) > 1 else None,
        "volume": float(np.exp(np.median(log_volume))),
        "smaller": float(np.mean(log_volume < 0)),
        "widths": np.median(a.values.std(1) / b.values.std(1), axis=0).tolist(),
    }


def log_volumes(score: Score, other: Score) -> NDArray[np.float64]:
    """Give the log of the ratio of volumes (T,), mean of the trainings, where both methods can be relied on."""
    pairs = [_common(*pair) for pair in _pairs(score, other)]
    return np.asarray(np.mean([a.entropy - b.entropy for a, b in pairs], axis=0))


def _pairs(score: Score, other: Score) -> list[tuple[Score, Score]]:
    """Pair trainings by their number; a method of one training is compared with each of the other's."""
    a, b = score.trainings, other.trainings
    n = min(len(a), len(b)) if min(len(a), len(b)) > 1 else max(len(a), len(b))
    return [(a[i % len(a)], b[i % len(b)]) for i in range(n)]


def _common(score: Score, other: Score) -> tuple[TruthPosteriors, TruthPosteriors]:
    n = min(len(score.posteriors), len(other.posteriors))
    both = score.posteriors.good[:n] & other.posteriors.good[:n]
    return score.posteriors[:n][both], other.posteriors[:n][both]


def find_score(scores: Sequence[Score], name: str) -> Score | None:
    """Find the score of a method; None if it did not take part."""
    return next((score for score in scores if score.method.name == name), None)
