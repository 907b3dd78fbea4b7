"""The grid of a real FFT: its shape, its wavenumbers, and how many modes of the full FFT each of its modes stands for.

A real FFT (``rfftn``) keeps half of the modes along the last axis, since the others are their complex conjugates.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def half_plane(cells: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the real FFT of a grid of `cells`."""
    return (*cells[:-1], cells[-1] // 2 + 1)


def frequencies(
    cells: Sequence[int], cell_size: Sequence[float], *, half: bool = True, dtype: type[np.floating] = np.float64
) -> list[NDArray[np.floating]]:
    """Compute the frequencies along each axis of a grid.

    Parameters
    ----------
    cells, cell_size
        Number of cells along each axis, and their length.
    half
        Whether the last axis keeps only what a real FFT does.
    dtype
        Precision in which the frequencies are computed.

    Returns
    -------
    list of ndarray
        (n,) cycles per unit of length in FFT order, one array for each axis.
    """
    axes = []
    for axis, (n, size) in enumerate(zip(cells, cell_size, strict=True)):
        last = half and axis == len(cells) - 1
        numbers = np.arange(n // 2 + 1) if last else (np.arange(n) + n // 2) % n - n // 2
        axes.append(numbers.astype(dtype) * dtype(1.0 / (n * size)))
    return axes


def wavevectors(cells: Sequence[int], cell_size: Sequence[float]) -> list[NDArray[np.float64]]:
    """Compute the components of k of every mode of a real FFT.

    Returns
    -------
    list of ndarray
        (*half plane) float64 in radians per unit of length, one array for each axis.
    """
    axes = [2 * np.pi * frequency for frequency in frequencies(cells, cell_size)]
    return list(np.meshgrid(*axes, indexing="ij"))


def wavenumbers(cells: Sequence[int], box_length: float) -> NDArray[np.float64]:
    """Compute |k| (*half plane) in 1/Mpc for a cube whose side is `box_length` Mpc."""
    axes = frequencies(cells, (box_length / cells[0],) * len(cells))
    return np.asarray(2 * np.pi * np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij"))))


def mode_weights(cells: Sequence[int]) -> NDArray[np.float64]:
    """Count the modes of the full FFT that each mode of a real FFT stands for.

    Returns
    -------
    ndarray
        (*half plane): 1 where the last wavenumber is its own conjugate (zero, and Nyquist's of an even length), else 2.
    """
    weights = np.full(half_plane(cells), 2.0)
    weights[..., 0] = 1.0
    if cells[-1] % 2 == 0:
        weights[..., -1] = 1.0
    return weights
