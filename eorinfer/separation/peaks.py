"""Bright peaks of maps, and which of them are the same in two maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree


@dataclass(frozen=True)
class Peaks:
    """Peaks of one map, the highest first.

    Attributes
    ----------
    position
        (n, 2) in pixels.
    height
        (n,)
    """

    position: NDArray[np.float64]
    height: NDArray[np.float64]

    def above(self, threshold: float) -> NDArray[np.float64]:
        """Positions (m, 2) of those that are higher."""
        return self.position[: np.searchsorted(-self.height, -threshold)]


@dataclass(frozen=True)
class Counts:
    """Peaks of many maps: how many are true, how many were found, and how many of these are the same.

    Attributes
    ----------
    true, found
        Numbers of peaks.
    matched
        One-to-one: each peak counts once.
    pairs
        All pairs of a true and a found peak that are close, as Moriwaki et al. count: several peaks about one count
        several times, and with them precision may exceed one.
    """

    true: int
    found: int
    matched: int
    pairs: int

    def rates(self) -> dict[str, float]:
        """Precision and recall by either count; NaN where there is nothing to count."""
        return {
            "precision": _ratio(self.matched, self.found),
            "recall": _ratio(self.matched, self.true),
            "legacy_precision": _ratio(self.pairs, self.found),
            "legacy_recall": _ratio(self.pairs, self.true),
        }


def find_peaks(image: NDArray[np.floating], radius: float) -> Peaks:
    """Pixels that are the highest within `radius` pixels of them (Moriwaki & Yoshida 2021, with 10 pixels).

    Parameters
    ----------
    image
        (nx, ny); pixels at its lowest value, as empty ones are, are no peaks.
    radius
        Radius in pixels.
    """
    reach = int(radius)
    r2 = np.sum(np.square(np.mgrid[-reach : reach + 1, -reach : reach + 1]), axis=0)
    highest = maximum_filter(image, footprint=r2 <= radius**2, mode="nearest")
    position = np.argwhere((image == highest) & (image > image.min()))
    height = image[tuple(position.T)].astype(np.float64)
    order = np.argsort(-height, kind="stable")
    return Peaks(position[order].astype(np.float64), height[order])


def count(
    true: Sequence[Peaks], found: Sequence[Peaks], radius: float, true_above: float, found_above: float
) -> Counts:
    """Compare the peaks of maps with those of their reconstructions.

    Parameters
    ----------
    true, found
        Peaks of each map.
    radius
        Distance up to which two peaks are the same, in pixels.
    true_above, found_above
        Thresholds of the heights.
    """
    totals = np.zeros(4, int)
    for one, other in zip(true, found, strict=True):
        a, b = one.above(true_above), other.above(found_above)
        totals += (len(a), len(b), *matches(a, b, radius))
    return Counts(*totals.tolist())


def matches(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> tuple[int, int]:
    """Count pairs of points (n, 2) and (m, 2) within `radius`: the most in which each stands once, and all."""
    if not len(a) or not len(b):
        return 0, 0
    near: Any = KDTree(a).query_ball_point(b, radius)
    sizes = [len(some) for some in near]
    columns = np.concatenate([np.array(some, int) for some in near])
    rows = np.repeat(np.arange(len(b)), sizes)
    graph = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(b), len(a)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()), len(rows)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
