"""Calibration near one observation: sbi's local classifier test, and the errors of the nearest truths.

A posterior can be right on average over the prior and wrong where the observation is. l-C2ST trains a classifier to
tell truths from posterior samples, observation by observation, and asks it about one (Linhart et al. 2023,
arXiv 2306.03580).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.diagnostics.lc2st import LC2ST
from sklearn.linear_model import LogisticRegression

from eorinfer.validation.calibration import Calibration
from eorinfer.validation.uniformity import LEVEL, TARP, Effect, effects

#: Trainings of the classifier under the null hypothesis, by permutation.
TRIALS = 200
#: Share, and least number, of the truths that are the nearest.
NEAREST, FEWEST = 0.25, 50
#: Standard deviations of a posterior beyond which a truth counts as just as far: one at 40 would dwarf all others where
#: the classifier scales its inputs, and keep its fit from ending.
FARTHEST = 8.0


@dataclass(frozen=True)
class LocalCalibration:
    """Calibration near one observation.

    Attributes
    ----------
    p
        p-value of l-C2ST there; `1 / (TRIALS + 1)` at the least.
    nearest
        Number of truths whose posterior means are nearest to the observation's.
    effects
        Errors of these, by quantity.
    """

    p: float
    nearest: int
    effects: dict[str, Effect]

    def lines(self) -> Iterator[str]:
        """Say it in plain words."""
        word = "WARNING: NOT calibrated near the observation" if self.p < LEVEL else "near the observation"
        yield f"{word}: l-C2ST p = {self.p:.2g}; of the {self.nearest} truths with the nearest posteriors:"
        for quantity, effect in self.effects.items():
            yield f"    {quantity}: {effect.line()}"

    def content(self) -> dict[str, Any]:
        """Write it for JSON."""
        said = {quantity: asdict(effect) | {"line": effect.line()} for quantity, effect in self.effects.items()}
        return {"p": self.p, "nearest": self.nearest, "effects": said}


def calibrate_near(
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    observed: NDArray[np.float64],
    calibration: Calibration,
    seed: int,
) -> LocalCalibration:
    """Test posteriors near that of one observation.

    Means of posteriors stand for the observations, and parameters are in standard deviations from them, so that any
    method can be tested and a wrong width looks the same everywhere. If the posterior is right given an observation, it
    is right given its mean.

    Parameters
    ----------
    theta, samples
        Truths (B, P) and posterior samples (B, n, P), in units of the prior's box.
    observed
        Posterior samples (m, P) of the observation, in the same units.
    calibration
        Calibration of these truths, whose ranks the nearest are taken from.
    seed
        Seed of the sample that is drawn from each posterior; sbi's permutations have fixed seeds.
    """
    rng = np.random.default_rng(seed)
    mean, std = samples.mean(1), np.maximum(samples.std(1, ddof=1), 1e-12)
    drawn = samples[np.arange(len(samples)), rng.integers(samples.shape[1], size=len(samples))]
    at, at_std = observed.mean(0), np.maximum(observed.std(0, ddof=1), 1e-12)
    test = LC2ST(
        prior_samples=_scaled(theta, mean, std),
        xs=torch.from_numpy(mean),
        posterior_samples=_scaled(drawn, mean, std),
        seed=seed % 2**31,
        classifier=LocalQuadratic,
        classifier_kwargs={"max_iter": 1000},
        z_score=True,
        num_trials_null=TRIALS,
    )
    with torch.random.fork_rng(devices=[]):  # sbi seeds torch's own state for each permutation
        test.train_on_observed_data(verbosity=0).train_under_null_hypothesis(verbosity=0)
    p = float(test.p_value(_scaled(observed, at, at_std), torch.from_numpy(at)))
    scale = np.maximum(mean.std(0), 1e-12)
    nearest = np.argsort(np.linalg.norm((mean - at) / scale, axis=1))[: max(FEWEST, int(NEAREST * len(mean)))]
    fractions = {quantity: u[nearest] for quantity, u in calibration.fractions.items() if quantity != TARP}
    found = effects(fractions, theta.shape[1], samples.shape[1])
    return LocalCalibration((p * TRIALS + 1) / (TRIALS + 1), len(nearest), found)


def _scaled(theta: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]) -> torch.Tensor:
    """Give theta (n, P) in standard deviations about the mean, `FARTHEST` at most."""
    return torch.from_numpy(np.clip((theta - mean) / std, -FARTHEST, FARTHEST))


class LocalQuadratic(LogisticRegression):
    """Logistic regression on standardised parameters u and means s, side by side in each row.

    What tells a truth from a sample is linear in u and its products where the posterior is a normal of wrong mean and
    covariance; how wrong may change with s and its square.
    """

    def fit(self, X: NDArray[np.float64], y: NDArray[np.int64]) -> "LocalQuadratic":
        """Fit to rows X (n, 2 P) of classes y."""
        return super().fit(self._features(X), y)

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n, 2) of the classes of rows X (n, 2 P)."""
        return np.asarray(super().predict_proba(self._features(X)))

    @staticmethod
    def _features(x: NDArray[np.float64]) -> NDArray[np.float64]:
        u, s = np.split(np.asarray(x), 2, axis=1)
        i, j = np.triu_indices(u.shape[1])
        squares = u[:, i] * u[:, j]
        own, place = np.hstack([u, u**2]), np.hstack([s, s**2])
        return np.hstack([u, squares, (own[:, :, None] * place[:, None]).reshape(len(u), -1)])
