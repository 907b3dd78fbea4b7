"""Images of different conditions whose power spectra agree: pairs that a power spectrum cannot tell apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes
    ----------
    first, second
        (n,) numbers of the images; no image is in two pairs, and which of the two is first is drawn.
    chi2
        (n,) of the difference between their spectra.
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
    """Pairs whose spectra differ by a chi-square below the number of bins, and whose conditions differ.

    Parameters
    ----------
    power
        (m, D) spectra, averaged over the noise.
    scatter
        (m, D) standard deviations of what one observation of such an image would give, sample variance included.
    y
        (m, P) conditions.
    apart
        (P,) by how much at least one of the conditions has to differ.
    most
        Number of pairs, at most; drawn at random if there are more.
    seed
        Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[int, int, float]] = []
    for i in range(len(power) - 1):
        others = slice(i + 1, None)
        chi2 = ((power[i] - power[others]) ** 2 / (scatter[i] ** 2 + scatter[others] ** 2)).sum(1)
        alike = (chi2 < power.shape[1]) & (np.abs(y[others] - y[i]) >= apart).any(1)
        found += [(i, i + 1 + int(j), float(chi2[j])) for j in np.flatnonzero(alike)]
    used: set[int] = set()
    chosen: list[tuple[int, int, float]] = []
    for number in rng.permutation(len(found)):
        one, other, chi2_of = found[number]
        if len(chosen) < most and not used & {one, other}:
            used |= {one, other}
            chosen.append((one, other, chi2_of) if rng.random() < 0.5 else (other, one, chi2_of))
    numbers = np.array([pair[:2] for pair in chosen], dtype=np.int64).reshape(-1, 2)
    return Pairs(numbers[:, 0], numbers[:, 1], np.array([pair[2] for pair in chosen]))
