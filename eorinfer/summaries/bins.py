"""Modes of a grid and the bins of k that they fall in. Loads no torch."""

import numpy as np
from numpy.typing import NDArray

from simulators.fourier import wavevectors

#: Distance of the default edges from the first and last modes, as a fraction of k, against rounding.
_NUDGE = 1e-6


def default_edges(
    cells: tuple[int, ...],
    box_length: tuple[float, ...],
    n_bins: int,
    k_max: float | None = None,
    k_min: float | None = None,
) -> NDArray[np.float64]:
    """Compute logarithmic bin edges in 1/Mpc that leave no bin without modes.

    They run from `k_min`, by default the fundamental mode of the longest axis, to `k_max`, by
    default to the corner of Fourier space, so that no mode is left out; there may be fewer than
    `n_bins` bins.
    """
    k = mode_wavenumbers(cells, box_length)
    fundamental = 2 * np.pi / max(box_length) if k_min is None else k_min
    highest = float(k.max()) * (1 + 2 * _NUDGE) if k_max is None else k_max
    if n_bins < 1 or highest <= fundamental:
        raise ValueError(f"no bins between k = {fundamental:g} and {highest:g} 1/Mpc ({n_bins} bins)")
    edges = np.geomspace(fundamental * (1 - _NUDGE), highest, n_bins + 1)
    filled = np.histogram(k[(k >= edges[0]) & (k < edges[-1])], edges)[0] > 0
    if not filled.any():
        raise ValueError(f"no mode of the cube lies between k = {fundamental:g} and {highest:g} 1/Mpc")
    # Dropping the upper edge of an empty bin merges it with the one above.
    last = int(np.flatnonzero(filled)[-1])
    return np.concatenate([[edges[0]], edges[1 : last + 1][filled[:last]], [edges[-1]]])


def unmeasured(edges: NDArray[np.float64], measured: NDArray[np.float64]) -> list[tuple[float, float]]:
    """List the bins, as their two edges in 1/Mpc, that none of the measured modes (M,) falls in."""
    empty = np.flatnonzero(np.histogram(measured, edges)[0] == 0)
    return [(float(edges[i]), float(edges[i + 1])) for i in empty]


def mode_components(cells: tuple[int, ...], box_length: tuple[float, ...]) -> list[NDArray[np.float64]]:
    """Compute the components of k (M,) in 1/Mpc of the M flattened modes of `torch.fft.rfftn`, one array an axis.

    Raises
    ------
    ValueError
        If there are not two or three axes.
    """
    if not np.ndim(cells) == np.ndim(box_length) == 1 or len(cells) not in (2, 3) or len(cells) != len(box_length):
        raise ValueError(f"cells {cells} and box_length {box_length} must both have two or three axes")
    cell_size = [length / n for n, length in zip(cells, box_length, strict=True)]
    return [component.ravel() for component in wavevectors(cells, cell_size)]


def mode_wavenumbers(cells: tuple[int, ...], box_length: tuple[float, ...]) -> NDArray[np.float64]:
    """Compute |k| (M,) in 1/Mpc of each flattened mode of a real FFT."""
    return np.asarray(np.sqrt(sum(component**2 for component in mode_components(cells, box_length))))
