"""Compare the ln p(x | y) of an image, scale by scale, with that of images like those of training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

#: Known images of the nearest conditions that an image is compared with, and the fewest realisations among them.
NEIGHBOURS, REALISATIONS = 200, 20
#: Spread below which ln p is taken not to vary, as a share of the largest ln p of the known images.
FLOOR = 1e-9


@dataclass(frozen=True)
class KnownImages:
    """Held-out images of the training set, with which others are compared.

    Attributes
    ----------
    log_p
        (m, S) `ImageDensity.log_prob_scales` at their condition, in nats.
    y
        (m, P) conditions.
    realisation
        (m,) numbers: images with the same number share initial conditions, or a box, and are not independent.
    """

    log_p: NDArray[np.float64]
    y: NDArray[np.float64]
    realisation: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> "KnownImages":
        """Return the images where `chosen` (m,) is true."""
        return KnownImages(self.log_p[chosen], self.y[chosen], self.realisation[chosen])


@dataclass(frozen=True)
class Comparison:
    """Result of comparing n images with known ones at S scales.

    Attributes
    ----------
    p
        (n, S) two-sided p-value: how often a known image has a ln p as far off or farther.
    deviation
        (n, S) deviation of ln p in standard deviations of the known images.
    freedom
        (n, S) degrees of freedom of that standard deviation, at most the number of known images.
    """

    p: NDArray[np.float64]
    deviation: NDArray[np.float64]
    freedom: NDArray[np.float64]


def compare_scales(
    log_p: NDArray[np.float64], y: NDArray[np.float64], known: KnownImages, neighbours: int = NEIGHBOURS
) -> Comparison:
    """Compare images with known ones of about the same condition, at each scale.

    Multiscale Flow (Dai & Seljak 2023, arXiv 2306.04689) does so: noise, beams and baryons shift the scales at which
    they act. An image may be too improbable (structure that training never saw) or too probable (too smooth).

    The realisation is a random effect: the image is taken to come from a new realisation. Its ln p then varies by the
    scatter between realisations and by the scatter within one. Both are estimated after a regression on y. Their sum
    has the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2, 110): about the number of realisations
    where these differ, about the number of images where they do not. The p-value is that of Student's t and includes
    the error of the mean. Since ln p is skewed, its spread is taken from the half of the known images on the same side
    of the median, with half of the degrees of freedom.

    Parameters
    ----------
    log_p
        (n, S) `ImageDensity.log_prob_scales` of the images at their condition, in nats.
    y
        (n, P) conditions of the images: for an observation the posterior's mean.
    known
        Images of the training set.
    neighbours
        Number of known images to compare with: those nearest in y, each condition in units of its scatter. More are
        taken where these have fewer than `REALISATIONS` realisations. Among them ln p is taken to be linear in y.

    Returns
    -------
    Comparison
        p is 1 where there are no more realisations than the regression on y uses up.
    """
    unit = known.y.std(0)
    unit = np.where(unit > 0, unit, 1.0)
    floor = FLOOR * (1 + np.abs(known.log_p).max(0))
    rows = [_compare(row, (known.y - at) / unit, known, neighbours, floor) for row, at in zip(log_p, y, strict=True)]
    return Comparison(*(np.array(column).reshape(np.shape(log_p)) for column in zip(*rows, strict=True)))


def _compare(
    log_p: NDArray[np.float64],
    off: NDArray[np.float64],
    known: KnownImages,
    neighbours: int,
    floor: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compare the ln p (S,) of one image with known ones, whose scaled conditions differ from its own by (m, P)."""
    nearest = np.argsort(np.square(off).sum(-1), kind="stable")
    # Enough images to hold `REALISATIONS` realisations.
    _, first = np.unique(known.realisation[nearest], return_index=True)
    needed = np.sort(first)[min(REALISATIONS, len(first)) - 1] + 1
    chosen = nearest[: max(neighbours, needed)]
    _, box, count = np.unique(known.realisation[chosen], return_inverse=True, return_counts=True)
    boxes, images = len(count), len(chosen)
    # What ln p does along y is not part of its scatter. Each realisation counts as one.
    design = np.column_stack([np.ones(images), off[chosen]])
    weight = 1 / count[box]
    normal = np.linalg.pinv(design.T @ (weight[:, None] * design))
    fitted = normal @ (design.T @ (weight[:, None] * known.log_p[chosen]))
    residual = known.log_p[chosen] - design @ fitted
    spare = boxes - np.linalg.matrix_rank(design)
    if spare < 1:
        zero = np.zeros_like(log_p)
        return zero + 1, zero, zero
    means = np.array([np.bincount(box, r) for r in residual.T]).T / count[:, None]
    within = np.square(residual - means[box]).sum(0) / max(images - boxes, 1)
    between = np.square(means).sum(0) / spare + floor**2
    # The variance of a realisation's mean holds only a share of the variance within it; an image has all of that.
    rest = (1 - np.mean(1 / count)) * within
    variance = between + rest
    freedom = variance**2 / (between**2 / spare + rest**2 / max(images - boxes, 1))
    spread = np.sqrt(variance + normal[0, 0] * between)
    # ln p is skewed: the images beyond the median on either side have a spread of their own.
    middle = np.array([_median(r, weight) for r in residual.T])
    off_middle = log_p - fitted[0] - middle
    same_side = np.where(off_middle > 0, residual >= middle, residual <= middle)
    weights = weight[:, None] * same_side
    half = np.sqrt((weights * np.square(residual - middle)).sum(0) / weights.sum(0) + floor**2)
    whole = np.sqrt((weight[:, None] * np.square(residual)).sum(0) / boxes + floor**2)
    deviation, freedom = off_middle / (half * spread / whole), freedom / 2
    return 2 * student.sf(np.abs(deviation), freedom), deviation, freedom


def _median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Compute the weighted median of values (k,)."""
    order = np.argsort(values)
    share = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])
