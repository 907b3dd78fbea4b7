"""Check of an observation against the simulations: where it is unlike them, no posterior can be trusted."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from eorinfer.core.seeds import WorkStream, stream_seed
from eorinfer.cubes.observation import Observation
from eorinfer.npe.batched import draw_untruncated
from eorinfer.npe.density import Ensemble
from eorinfer.npe.image_statistics import ImageStatistics, Statistics
from eorinfer.npe.reference import ROWS, Reference, as_unseen, best_kernel, regression
from eorinfer.survey.base import Survey
from eorinfer.training.data import Part
from eorinfer.validation.check import DISTRUST, FEWEST, deviation_words, is_far, smallest_p, weak_line

#: Chance of warning of an observation that is like the simulations.
LEVEL = 0.01
#: Distances that are compared: of the image's statistics, and of what the networks read.
TESTS = 2
#: Draws from an image's posterior at the best of which it is compared with simulations.
DRAWS = 256
#: Noise draws of each held-out row, and rows that are used at most.
NOISE_DRAWS, HELD_OUT = 2, 400
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
    tests
        Number of independent p-values that the two are worth, see `Reference.tests`.
    """

    p_statistics: float
    p_features: float
    deviations: tuple[tuple[str, float], ...]
    realisations: int
    tests: float = float(TESTS)

    @property
    def p(self) -> float:
        """p-value of the two together; 0 where one is not a number, which is an alarm."""
        both = np.array([self.p_statistics, self.p_features])
        return of_smallest(both.min(), self.tests) if np.isfinite(both).all() else 0.0

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
            like = (
                f"the observation is like the simulations (p = {self.p:.2g}, {self.realisations} realisations held out)"
            )
            return weak_line(self.realisations, TESTS) if self.weak else like
        reasons = []
        if not np.isfinite([self.p_statistics, self.p_features]).all():
            reasons.append("its statistics are not numbers")
        if of_smallest(self.p_statistics, self.tests) < LEVEL or self.p >= LEVEL:
            worst = [deviation_words(name, sigma) for name, sigma in self.deviations[:3] if abs(sigma) > 2]
            reasons.append(", ".join(worst) or "its statistics do not go together")
        if of_smallest(self.p_features, self.tests) < LEVEL:
            reasons.append("the networks read from it what they never read in training")
        few = (
            f", only {self.realisations} realisations held out"
            if self.weak
            else f", by {self.realisations} realisations"
        )
        return (
            f"WARNING: the observation is unlike the simulations (p = {max(self.p, 1e-9):.1g}{few}): "
            f"{'; '.join(reasons)}. {DISTRUST}"
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


def warn_of_unlike(posterior: Ensemble, observations: Sequence[Observation]) -> None:
    """Warn the caller of the caller of observations that are unlike the simulations of training."""
    for place, observation in enumerate(observations):
        check = check_observation(posterior, observation)
        if check is not None and check.unlike:
            which = f"images[{place}]: " if len(observations) > 1 else ""
            warnings.warn(which + check.line().removeprefix("WARNING: "), stacklevel=3)


def check_images(
    posterior: Ensemble, observed: Tensor, seed: int = 0, statistics: Statistics | None = None
) -> list[ObservationCheck]:
    """Compare images (B, C, *cells) with the simulations, each by itself.

    The posterior carries a reference, learned with the same statistics.
    """
    reference = posterior.reference
    assert reference is not None
    statistics = statistics or _statistics(posterior)
    distances, deviations = image_distances(posterior, reference, observed, seed, statistics)
    names, n, tests = statistics.names, int(reference.realisations), reference.tests()
    checks = []
    for (p_statistics, p_features), off in zip(reference.p_values(distances).T, deviations, strict=True):
        order = np.argsort(-np.abs(off))
        sorted_off = tuple((names[i], float(off[i])) for i in order)
        checks.append(ObservationCheck(float(p_statistics), float(p_features), sorted_off, n, tests))
    return checks


def image_distances(
    posterior: Ensemble, reference: Reference, observed: Tensor, seed: int, statistics: Statistics
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared distances (2, B) of images, of statistics and of features, and the deviations (B, S) of statistics."""
    seen = _seen(posterior, statistics, observed, seed)
    distance, deviations = reference.residuals(seen.statistics, seen.theta)
    return torch.stack([distance, reference.feature_logs(seen.features).mean(1).exp()]).numpy(), deviations.numpy()


@dataclass(frozen=True)
class HeldOut:
    """Rows that some networks of an ensemble have never seen.

    Attributes
    ----------
    networks
        Their numbers in the ensemble.
    rows
        The rows.
    seeds
        (m,) seeds of the realisations of these.
    """

    networks: tuple[int, ...]
    rows: Part
    seeds: NDArray[np.uint64]


def check_together(checks: Sequence[ObservationCheck]) -> float:
    """Compute the p-value of several observations of one instrument together, for example of its fields.

    What all share adds up, where each alone is within the scatter: normal quantiles of the p-values are summed
    (Stouffer). All are compared with the same n held-out realisations, whose own error does not average out:
    the variance of the sum of B is B (1 + B / n). The smaller of the two, of statistics and of features, counts as the
    smaller of as many p-values as for one observation.
    """
    n = max(1, min(check.realisations for check in checks))
    each = np.array([[check.p_statistics, check.p_features] for check in checks])
    if not np.isfinite(each).all():
        return 0.0
    b = len(each)
    z = norm.isf(np.clip(each, 1e-12, 1 - 1e-12)).sum(0) / np.sqrt(b * (1 + b / n))
    return of_smallest(norm.sf(z).min(), max(check.tests for check in checks))


def of_smallest(p: float, tests: float) -> float:
    """Chance that the smallest of so many independent p-values is as small."""
    return float(-np.expm1(tests * np.log1p(-min(p, 1.0)))) if p < 1 else 1.0


def learn_reference(
    posterior: Ensemble,
    training: Part,
    folds: Sequence[HeldOut],
    survey: Survey,
    seed: int,
    statistics: Statistics | None = None,
) -> Reference:
    """Learn the reference of a posterior, what simulations look like, from the rows of its training.

    Distances to compare with are those of all folds, each without its realisation in the reference, at parameters of
    the networks that held it out; see `eorinfer.npe.reference`. With a truncated prior only the rows inside it count.

    Parameters
    ----------
    posterior
        Just trained.
    training
        Rows that all networks were trained on; there may be none.
    folds
        The other rows.
    survey
        Observes them.
    seed
        Seed of the noise.
    statistics
        Of observed cubes; by default `ImageStatistics`.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, WorkStream.CHECK_NOISE))
    rng = np.random.default_rng(seed)
    statistics = statistics or _statistics(posterior)
    parts = [training, *(fold.rows for fold in folds)]
    inside = [np.flatnonzero(posterior.contains(part.theta.numpy())) for part in parts]
    if len(inside[0]) < FEW:
        inside[0] = np.arange(len(training))
    if len(np.unique(np.concatenate([f.seeds[i] for f, i in zip(folds, inside[1:], strict=True)]))) < FEW:
        inside[1:] = [np.arange(len(fold.rows)) for fold in folds]
    most = [ROWS - HELD_OUT, *(max(1, HELD_OUT // len(folds)),) * len(folds)]
    chosen = [np.sort(rng.permutation(i)[:n]) for i, n in zip(inside, most, strict=True)]

    def numbers(part: Part, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Theta in units of the prior's box, statistics and features of some rows."""
        theta = torch.from_numpy(posterior.prior.unit(part.theta[rows].numpy()))
        blocks = [
            (statistics(observed), torch.cat(posterior.read(observed), dim=1).double())
            for observed in observed_rows(part, rows, survey, generator)
        ]
        of_images, features = (torch.cat(column) for column in zip(*blocks, strict=True))
        return theta, of_images, features

    known = [numbers(part, rows) for part, rows in zip(parts, chosen, strict=True) if len(rows)]
    theta, of_images, features = (torch.cat(column) for column in zip(*known, strict=True))
    kernel = best_kernel(theta, of_images)
    reference = regression(theta, of_images, features, len(posterior.networks), kernel)

    seeds = np.concatenate([fold.seeds[rows] for fold, rows in zip(folds, chosen[1:], strict=True)])
    realisations, number = np.unique(seeds, return_inverse=True)
    seen: list[Seen] = []
    for _ in range(NOISE_DRAWS):
        for fold, rows in zip(folds, chosen[1:], strict=True):
            for observed in observed_rows(fold.rows, rows, survey, generator):
                seen.append(_seen(posterior, statistics, observed, seed, fold.networks))
    images, draws, read, unseen = (torch.cat([getattr(one, name) for one in seen]) for name in Seen.__annotations__)
    group = torch.from_numpy(np.tile(number, NOISE_DRAWS))
    in_reference = torch.cat([torch.full((len(theta) - len(number),), -1), torch.from_numpy(number)])
    distances, logs = images.new_empty(len(images)), images.new_empty(unseen.shape)
    for realisation, without in enumerate(reference.without(in_reference, kernel.noise)):
        own = group == realisation
        distances[own] = without.residuals(images[own], draws[own])[0]
        logs[own] = without.feature_logs(read[own])
    held_out = torch.stack([distances.clamp_min(1e-30).log(), as_unseen(logs, unseen)])
    return replace(reference, held_out=held_out, realisations=torch.tensor(len(realisations)))


def _statistics(posterior: Ensemble) -> ImageStatistics:
    """Statistics of images in the unit of the networks."""
    return ImageStatistics(posterior.observable, posterior.networks[0].embedding.unit)


@dataclass(frozen=True)
class Seen:
    """What the check looks at in B images.

    Attributes
    ----------
    statistics
        (B, S)
    theta
        (B, n, P) draws from the posteriors, in units of the prior's box.
    features
        (B, F) of all networks.
    unseen
        (B, K) whether each network is among those whose posteriors these are.
    """

    statistics: Tensor
    theta: Tensor
    features: Tensor
    unseen: Tensor


def _seen(
    posterior: Ensemble,
    statistics: Statistics,
    observed: Tensor,
    seed: int,
    networks: tuple[int, ...] | None = None,
) -> Seen:
    """Look at images, with the posteriors of these networks or of all."""
    read = posterior.read(observed)
    asked = tuple(range(len(read))) if networks is None else networks
    # Before truncation: where the best parameters are outside of it the image is all the same one of the simulator's.
    drawn = draw_untruncated([posterior.networks[i] for i in asked], [read[i] for i in asked], DRAWS, seed)
    theta = torch.from_numpy(posterior.prior.unit(drawn))
    unseen = torch.tensor([[i in asked for i in range(len(read))]]).expand(len(observed), -1)
    return Seen(statistics(observed), theta, torch.cat(read, dim=1).double(), unseen)


def observed_rows(cubes: Part, rows: NDArray[np.int64], survey: Survey, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of cubes through the survey, (B, C, *cells) at a time."""
    for start in range(0, len(rows), BATCH):
        with torch.no_grad():
            yield survey(cubes.__getitems__(rows[start : start + BATCH].tolist())[1], generator)
