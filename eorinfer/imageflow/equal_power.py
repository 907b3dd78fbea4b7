"""Find images of different conditions whose power spectra agree: pairs that a power spectrum cannot tell apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes
    ----------
    first, second
        (n,) numbers of the images. No image is in two pairs; the order within a pair is random.
    chi2
        (n,) chi-square of the difference between their spectra.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    chi2: NDArray[np.float64]


def equal_power_pairs(
    power: NDArray[np.float64],
    scatter: NDArray[np.float64],
    y: NDArray[np.float64],
    apart: NDArray[np.float64],
    most: int,
    seed: int,
) -> Pairs:
    """Find pairs whose spectra differ by a chi-square below the number of bins, and whose conditions differ.

    Parameters
    ----------
    power
        (m, D) power spectra, averaged over the noise.
    scatter
        (m, D) standard deviations of the spectrum of one observation, sample variance included.
    y
        (m, P) conditions.
    apart
        (P,) differences, one of which the conditions of a pair must reach.
    most
        Number of pairs, at most; more are thinned at random.
    seed
        Seed of the choice.
    """
    rng = np.random.default_rng(seed)
    candidates: list[tuple[int, int, float]] = []
    for i in range(len(power) - 1):
        others = slice(i + 1, None)
        chi2 = ((power[i] - power[others]) ** 2 / (scatter[i] ** 2 + scatter[others] ** 2)).sum(1)
        alike = (chi2 < power.shape[1]) & (np.abs(y[others] - y[i]) >= apart).any(1)
        candidates += [(i, i + 1 + int(j), float(chi2[j])) for j in np.flatnonzero(alike)]
    used: set[int] = set()
    chosen: list[tuple[int, int, float]] = []
    for number in rng.permutation(len(candidates)):
        first, second, difference = candidates[number]
        if len(chosen) < most and not used & {first, second}:
            used |= {first, second}
            chosen.append((first, second, difference) if rng.random() < 0.5 else (second, first, difference))
    numbers = np.array([pair[:2] for pair in chosen], dtype=np.int64).reshape(-1, 2)
    return Pairs(numbers[:, 0], numbers[:, 1], np.array([pair[2] for pair in chosen]))
