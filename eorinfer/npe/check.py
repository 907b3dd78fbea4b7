"""Check of an observation against the simulations: where it is unlike them, no posterior can be trusted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.seeds import WorkStream, stream_seed
from eorinfer.cubes.observation import Observation
from eorinfer.npe.batched import draw_untruncated
from eorinfer.npe.density import Ensemble
from eorinfer.npe.reference import ROWS, ImageStatistics, Reference, regression
from eorinfer.survey.base import Survey
from eorinfer.training.data import Part
from eorinfer.validation.check import FEWEST, is_far, smallest_p, weak_line

#: Chance of warning of an observation that is like the simulations.
LEVEL = 0.01
#: Distances that are compared: of the image's statistics, and of what the networks read.
TESTS = 2
#: Draws from an image's posterior at the best of which it is compared with simulations.
DRAWS = 256
#: Noise draws of each held-out row, and rows that are used at most.
NOISE_DRAWS, HELD_OUT = 2, 250
#: Held-out realisations inside the truncated prior below which those outside of it are used too.
FEW = 20
#: Cubes at once.
BATCH = 64


@dataclass(frozen=True)
class ObservationCheck:
    """Difference between an observation and the simulations.

    Attributes
    ----------
    p_statistics, p_features
        Shares of simulations whose statistics, or features of the networks, are as unusual.
    deviations
        Statistics by name, and by how many standard deviations they are off at the best
        parameters that the posterior allows; the largest first.
    realisations
        Number of realisations that training held out.
    """

    p_statistics: float
    p_features: float
    deviations: tuple[tuple[str, float], ...]
    realisations: int

    @property
    def p(self) -> float:
        """p-value of the two together (Bonferroni); 0 where one is not a number, which is an alarm."""
        both = np.array([self.p_statistics, self.p_features])
        return float(min(1.0, TESTS * both.min())) if np.isfinite(both).all() else 0.0

    @property
    def unlike(self) -> bool:
        """True if a warning is due."""
        return self.p < LEVEL or (self.weak and is_far(self.p, self.deviations))

    @property
    def weak(self) -> bool:
        """True if too few realisations were held out to call the observation like the simulations."""
        return self.realisations < FEWEST

    def line(self) -> str:
        """Say the result in plain words, on one line."""
        if not self.unlike:
            like = f"the observation is like the simulations (p = {self.p:.2g})"
            return weak_line(self.p, self.realisations, TESTS) if self.weak else like
        reasons = []
        if not np.isfinite([self.p_statistics, self.p_features]).all():
            reasons.append("its statistics are not numbers")
        if TESTS * self.p_statistics < LEVEL or self.p >= LEVEL:
            worst = [
                f"{name} {abs(sigma):.1f} sigma too {'high' if sigma > 0 else 'low'}"
                for name, sigma in self.deviations[:3]
                if abs(sigma) > 2
            ]
            reasons.append(", ".join(worst) or "its statistics do not go together")
        if TESTS * self.p_features < LEVEL:
            reasons.append("the networks read from it what they never read in training")
        few = f", only {self.realisations} realisations held out" if self.weak else ""
        return (
            f"WARNING: the observation is unlike the simulations (p = {max(self.p, 1e-9):.1g}{few}): "
            f"{'; '.join(reasons)}. "
            "Do not trust this posterior before you know why: the unit, the noise level, foregrounds, "
            "or physics that the simulator lacks"
        )

    def content(self) -> dict[str, Any]:
        """Write the check for JSON."""
        return {
            "unlike": self.unlike,
            "weak": self.weak,
            "p": self.p,
            "realisations": self.realisations,
            "smallest_p": smallest_p(self.realisations, TESTS),
            "p_statistics": self.p_statistics,
            "p_features": self.p_features,
            "deviations_sigma": dict(self.deviations[:10]),
            "line": self.line(),
        }


def check_observation(posterior: Ensemble, observation: Observation) -> ObservationCheck | None:
    """Compare an observation with the simulations; None for a posterior that carries no reference.

    Raises
    ------
    InputError
        If the observation's shape, unit or axes do not fit.
    """
    observation.check(posterior.observable, "observation")
    return check_images(posterior, torch.from_numpy(observation.values[None]))[0] if posterior.reference else None


def check_images(posterior: Ensemble, observed: Tensor, seed: int = 0) -> list[ObservationCheck]:
    """Compare images (B, C, *cells) with the simulations, each by itself; the posterior carries a reference."""
    reference = posterior.reference
    assert reference is not None
    distances, deviations = _distances(posterior, reference, observed, seed)
    names = _statistics(posterior).names
    checks = []
    for (statistics, read), off in zip(reference.p_values(distances).T, deviations, strict=True):
        order = np.argsort(-np.abs(off))
        sorted_off = tuple((names[i], float(off[i])) for i in order)
        checks.append(ObservationCheck(float(statistics), float(read), sorted_off, int(reference.realisations)))
    return checks


def learn_reference(
    posterior: Ensemble,
    training: Part,
    validation: Part,
    realisations: NDArray[np.uint64],
    survey: Survey,
    seed: int,
) -> Reference:
    """Learn the reference of a posterior, what simulations look like, from its training rows.

    Distances to compare with are those of the rows that training held out: the networks may
    know the others too well. With a truncated prior only the rows inside it count.

    Parameters
    ----------
    posterior
        Just trained.
    training, validation
        Rows of the training; those held out for validation have the seeds `realisations` (m,).
    survey
        Observes them.
    seed
        Seed of the noise.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, WorkStream.CHECK_NOISE))
    inside = np.flatnonzero(posterior.contains(training.theta.numpy()))
    if len(inside) < FEW:
        inside = np.arange(len(training))
    rows = np.sort(np.random.default_rng(seed).permutation(inside)[:ROWS])
    theta = torch.from_numpy(posterior.prior.unit(training.theta[rows].numpy()))
    statistics = _statistics(posterior)
    numbers = []
    for observed in observed_rows(training, rows, survey, generator):
        numbers.append((statistics(observed), torch.cat(posterior.read(observed), dim=1).double()))
    reference = regression(theta, *(torch.cat(column) for column in zip(*numbers, strict=True)))
    held = np.flatnonzero(posterior.contains(validation.theta.numpy()))
    if len(np.unique(realisations[held])) < FEW:
        held = np.arange(len(validation))
    held = np.random.default_rng(seed).permutation(held)[:HELD_OUT]
    distances = [
        _distances(posterior, reference, observed, seed)[0]
        for _ in range(NOISE_DRAWS)
        for observed in observed_rows(validation, held, survey, generator)
    ]
    logs = torch.from_numpy(np.log(np.maximum(np.concatenate(distances, axis=1), 1e-30)))
    count = torch.tensor(len(np.unique(realisations[held])))
    return replace(reference, held_out=logs, realisations=count)


def _statistics(posterior: Ensemble) -> ImageStatistics:
    """Statistics of images in the unit of the networks."""
    return ImageStatistics(posterior.observable, posterior.networks[0].embedding.unit)


def _distances(
    posterior: Ensemble, reference: Reference, observed: Tensor, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared distances (2, B) of images, and the deviations (B, S) of their statistics."""
    read = posterior.read(observed)
    # Before truncation: where the best parameters are outside of it the image is all the same one of the simulator's.
    theta = torch.from_numpy(posterior.prior.unit(draw_untruncated(posterior.networks, read, DRAWS, seed)))
    distance, deviation = reference.residuals(_statistics(posterior)(observed), theta)
    far = reference.feature_distances(torch.cat(read, dim=1).double())
    return torch.stack([distance, far]).numpy(), deviation.numpy()


def observed_rows(cubes: Part, rows: NDArray[np.int64], survey: Survey, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of cubes through the survey, (B, C, *cells) at a time."""
    for start in range(0, len(rows), BATCH):
        with torch.no_grad():
            yield survey(cubes.__getitems__(rows[start : start + BATCH].tolist())[1], generator)
