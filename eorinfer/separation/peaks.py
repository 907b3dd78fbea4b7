"""Find bright peaks of maps, and match those of two maps."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        (n, 2) positions in pixels.
    height
        (n,) values of the map.
    """

    position: NDArray[np.float64]
    height: NDArray[np.float64]

    def above(self, threshold: float) -> NDArray[np.float64]:
        """Return the positions (m, 2) of peaks higher than a threshold."""
        return self.position[: np.searchsorted(-self.height, -threshold)]


@dataclass(frozen=True)
class Counts:
    """Number of true peaks of many maps, of found ones, and of matches between them.

    Attributes
    ----------
    true, found
        Numbers of peaks.
    matched
        Number of one-to-one matches: each peak counts once.
    pairs
        Number of all close pairs of a true and a found peak, as Moriwaki et al. count. Several peaks about one count
        several times, so that precision may exceed one.
    """

    true: int
    found: int
    matched: int
    pairs: int

    def rates(self) -> dict[str, float]:
        """Compute precision and recall by both counts; NaN where there are no peaks."""
        return {
            "precision": _ratio(self.matched, self.found),
            "recall": _ratio(self.matched, self.true),
            "legacy_precision": _ratio(self.pairs, self.found),
            "legacy_recall": _ratio(self.pairs, self.true),
        }


def find_peaks(image: NDArray[np.floating], radius: float) -> Peaks:
    """Find pixels that are the highest within `radius` (Moriwaki & Yoshida 2021, with 10 pixels).

    Parameters
    ----------
    image
        (nx, ny) map; pixels at its lowest value, such as empty ones, are no peaks.
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


def flat(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps (N, nx, ny) as they are, and slices of cubes (N, nx, ny, nz) as (N * nz, nx, ny)."""
    return maps if maps.ndim == 3 else np.moveaxis(maps, -1, 1).reshape(-1, *maps.shape[1:3])


def count(
    true: Sequence[Peaks], found: Sequence[Peaks], radius: float, true_above: float, found_above: float
) -> Counts:
    """Compare the peaks of maps with those of their reconstructions.

    Parameters
    ----------
    true, found
        Peaks of each map.
    radius
        Distance in pixels below which two peaks match.
    true_above, found_above
        Thresholds of the heights.
    """
    totals = np.zeros(4, int)
    for true_peaks, found_peaks in zip(true, found, strict=True):
        a, b = true_peaks.above(true_above), found_peaks.above(found_above)
        totals += (len(a), len(b), *matches(a, b, radius))
    return Counts(*totals.tolist())


def best_threshold(
    true: Sequence[Peaks],
    found: Sequence[Peaks],
    radius: float,
    true_above: float,
    precision: float | None = None,
) -> float:
    """Find the threshold of reconstructions at which precision and recall by pairs have the largest harmonic mean.

    Parameters
    ----------
    true, found
        Peaks of each map, and of its reconstruction; of maps on which nothing is scored.
    radius
        Distance in pixels below which two peaks match.
    true_above
        Height of the true peaks sought.
    precision
        If given, the recall is to be the largest with at least this precision.

    Returns
    -------
    float
        Half-way between the heights of two found peaks; infinite if none will do.
    """
    sought = [peaks.above(true_above) for peaks in true]
    pairs = [_near(a, peaks.position, radius) for a, peaks in zip(sought, found, strict=True)]
    heights = np.concatenate([peaks.height for peaks in found])
    order = np.argsort(-heights, kind="stable")
    right, number = np.cumsum(np.concatenate(pairs)[order]), np.arange(1, len(order) + 1)
    if precision is None:
        merit = 2 * right / (number + sum(map(len, sought)))
    else:
        merit = np.where(right >= precision * number, right, 0)
    if not merit.any():
        return float("inf")
    last = int(merit.argmax())
    lower = heights[order[min(last + 1, len(order) - 1)]]
    return float(np.nextafter((heights[order[last]] + lower) / 2, -np.inf))


def _near(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Count the points (n, 2) closer than `radius` to each of the points (m, 2): (m,)."""
    if not len(a) or not len(b):
        return np.zeros(len(b), np.int64)
    return np.asarray(KDTree(a).query_ball_point(b, np.nextafter(radius, 0), return_length=True), np.int64)


def matches(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> tuple[int, int]:
    """Count pairs of points (n, 2) and (m, 2) closer than `radius`: the most with each point once, and all of them."""
    if not len(a) or not len(b):
        return 0, 0
    near: list[list[int]] = list(KDTree(a).query_ball_point(b, np.nextafter(radius, 0)))
    sizes = [len(numbers) for numbers in near]
    columns = np.concatenate([np.array(numbers, int) for numbers in near])
    rows = np.repeat(np.arange(len(b)), sizes)
    graph = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(b), len(a)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()), len(rows)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
