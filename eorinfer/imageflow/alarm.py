"""Is an image like those that a field flow was trained on? Its ln p(x | y), scale by scale, among known images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

#: Known images of the nearest conditions that an image is compared with, and of how many realisations at least.
NEIGHBOURS, REALISATIONS = 200, 20
#: Spread, over ln p's own in all known images, below which there is none.
FLOOR = 1e-9


@dataclass(frozen=True)
class KnownImages:
    """Images like those of training, which training held out.

    Attributes
    ----------
    log_p
        (m, S): `ImageDensity.log_prob_scales` at their condition.
    y
        (m, P), that condition.
    realisation
        (m,): images of one number share initial conditions, or a box, and are not independent.
    """

    log_p: NDArray[np.float64]
    y: NDArray[np.float64]
    realisation: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> "KnownImages":
        """Some of them."""
        return KnownImages(self.log_p[chosen], self.y[chosen], self.realisation[chosen])


@dataclass(frozen=True)
class Comparison:
    """Comparison of images with known ones.

    Attributes
    ----------
    p
        (n, S): how often known images have so low or so high a ln p, two-sided.
    deviation
        (n, S): by how many standard deviations of known images ln p is off.
    freedom
        (n, S): degrees of freedom of that standard deviation, at most the number of known images.
    """

    p: NDArray[np.float64]
    deviation: NDArray[np.float64]
    freedom: NDArray[np.float64]


def compare_scales(
    log_p: NDArray[np.float64], y: NDArray[np.float64], known: KnownImages, neighbours: int = NEIGHBOURS
) -> Comparison:
    """Compare images with known ones of about the same condition, at each scale.

    As in Multiscale Flow (Dai & Seljak 2023, arXiv 2306.04689), where noise, beams and baryons shift the scales at
    which they act. An image may be too improbable (structure that training never saw) or too probable (too smooth).

    The realisation is a random effect: an image is taken to come from a new one, whose ln p differs from the mean by
    what realisations differ and by what images of one differ. Both are estimated after a regression on y, and their sum
    has the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2, 110): about the number of realisations
    where those differ, about the number of images where they do not. The p-value is that of Student's t, with the error
    of the mean. Since ln p is skewed, its spread is taken from the half of the known images that are on the same side
    of the median, with half of the degrees of freedom.

    Parameters
    ----------
    log_p
        (n, S) of images: `ImageDensity.log_prob_scales` at their condition.
    y
        (n, P), that condition: for an observation the posterior's mean.
    known
        Images to compare with.
    neighbours
        Number of known images to use, at most: those nearest in y, each condition over its own scatter; but never fewer
        than those of the nearest `REALISATIONS`. Among these ln p is taken to be linear in y.

    Returns
    -------
    Comparison
        p is 1 where there are hardly more realisations than conditions: then nothing can be said.
    """
    unit = known.y.std(0)
    unit = np.where(unit > 0, unit, 1.0)
    floor = FLOOR * (1 + np.abs(known.log_p).max(0))
    found = [_compare(one, (known.y - at) / unit, known, neighbours, floor) for one, at in zip(log_p, y, strict=True)]
    return Comparison(*(np.array(column).reshape(np.shape(log_p)) for column in zip(*found, strict=True)))


def _compare(
    found: NDArray[np.float64],
    off: NDArray[np.float64],
    known: KnownImages,
    neighbours: int,
    floor: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """One image (S,), among known ones whose conditions are off by (m, P)."""
    nearest = np.argsort(np.square(off).sum(-1), kind="stable")
    # As many as hold the wanted number of realisations.
    _, first = np.unique(known.realisation[nearest], return_index=True)
    needed = np.sort(first)[min(REALISATIONS, len(first)) - 1] + 1
    some = nearest[: max(neighbours, needed)]
    _, box, count = np.unique(known.realisation[some], return_inverse=True, return_counts=True)
    boxes, images = len(count), len(some)
    # What ln p does along y is not part of its scatter. Each realisation counts as one.
    design = np.column_stack([np.ones(images), off[some]])
    weight = 1 / count[box]
    normal = np.linalg.pinv(design.T @ (weight[:, None] * design))
    fitted = normal @ (design.T @ (weight[:, None] * known.log_p[some]))
    residual = known.log_p[some] - design @ fitted
    spare = boxes - np.linalg.matrix_rank(design)
    if spare < 1:
        nothing = np.zeros_like(found)
        return nothing + 1, nothing, nothing
    means = np.array([np.bincount(box, r) for r in residual.T]).T / count[:, None]
    within = np.square(residual - means[box]).sum(0) / max(images - boxes, 1)
    between = np.square(means).sum(0) / spare + floor**2
    # The variance of a realisation's mean has a share of that within, which an image has whole.
    rest = (1 - np.mean(1 / count)) * within
    variance = between + rest
    freedom = variance**2 / (between**2 / spare + rest**2 / max(images - boxes, 1))
    spread = np.sqrt(variance + normal[0, 0] * between)
    # ln p is skewed: the images beyond the median on either side have a spread of their own.
    middle = np.array([_median(r, weight) for r in residual.T])
    off_middle = found - fitted[0] - middle
    same_side = np.where(off_middle > 0, residual >= middle, residual <= middle)
    weights = weight[:, None] * same_side
    half = np.sqrt((weights * np.square(residual - middle)).sum(0) / weights.sum(0) + floor**2)
    whole = np.sqrt((weight[:, None] * np.square(residual)).sum(0) / boxes + floor**2)
    deviation, freedom = off_middle / (half * spread / whole), freedom / 2
    return 2 * student.sf(np.abs(deviation), freedom), deviation, freedom


def _median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Median of values (k,) with weights (k,)."""
    order = np.argsort(values)
    share = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


def scale_p_values(
    log_p: NDArray[np.float64], y: NDArray[np.float64], known: KnownImages, neighbours: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """The p-values (n, S) alone of `compare_scales`, for n images, or (S,) for one image (S,) of condition y (P,)."""
    return compare_scales(np.atleast_2d(log_p), np.atleast_2d(y), known, neighbours).p.reshape(np.shape(log_p))
