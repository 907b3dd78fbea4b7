"""Spherically averaged power spectra of batches of cubes, on torch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: The default edges stand clear of the first and last modes by this fraction, against rounding.
_NUDGE = 1e-6


class PowerSpectrum(nn.Module):
    """Power spectrum P(k) of periodic cubes, averaged in shells of k.

    P(k) = V <|delta_k|^2> with delta_k = (1 / N_cells) sum_x f(x) exp(-i k x), so that white noise
    of variance sigma^2 per cell has P = V sigma^2 / N_cells. The zero mode belongs to no bin.

    Parameters
    ----------
    cells
        Cells along each axis, in two or three dimensions.
    box_length
        Comoving Mpc along each axis.
    edges
        Rising bin edges in 1/Mpc; a bin is edges[i] <= k < edges[i + 1].
    n_bins
        Where `edges` is not given: this many logarithmic bins (default 10) from the fundamental
        mode of the longest axis to the corner of Fourier space; a bin without modes is merged
        into the one above it.

    Attributes
    ----------
    edges
        (n_bins + 1,) float64 in 1/Mpc.
    k
        (n_bins,) float64 mean wavenumber of the modes in each bin, in 1/Mpc.
    counts
        (n_bins,) float64 number of independent modes: half of all, since f is real.

    Raises
    ------
    ValueError
        If a bin of `edges` holds no mode.
    """

    edges: Tensor
    k: Tensor
    counts: Tensor
    _modes: Tensor
    _bins: Tensor
    _weights: Tensor

    def __init__(
        self,
        cells: tuple[int, ...],
        box_length: tuple[float, ...],
        edges: Sequence[float] | None = None,
        n_bins: int | None = None,
    ) -> None:
        super().__init__()
        if len(cells) not in (2, 3) or len(cells) != len(box_length):
            raise ValueError(f"cells {cells} and box_length {box_length} must both have two or three axes")
        if edges is not None and n_bins is not None:
            raise ValueError("give edges or n_bins, not both")
        self.cells = tuple(cells)
        k, weights = _half_plane(self.cells, box_length)
        if edges is None:
            limits = default_edges(cells, box_length, 10 if n_bins is None else n_bins)
        else:
            limits = np.array(edges, dtype=np.float64)
        if limits.ndim != 1 or len(limits) < 2 or np.any(np.diff(limits) <= 0):
            raise ValueError(f"bin edges must rise: got {limits}")

        bins = np.searchsorted(limits, k, side="right") - 1
        inside = np.flatnonzero((k > 0) & (bins >= 0) & (bins < len(limits) - 1))
        bins, k, weights = bins[inside], k[inside], weights[inside]
        n_modes = np.bincount(bins, weights, minlength=len(limits) - 1)
        if not n_modes.all():
            empty = int(np.flatnonzero(n_modes == 0)[0])
            low, high = limits[empty : empty + 2]
            raise ValueError(f"no mode of this box lies between k = {low:g} and {high:g} 1/Mpc")

        self.register_buffer("edges", torch.from_numpy(limits))
        self.register_buffer("k", torch.from_numpy(np.bincount(bins, weights * k) / n_modes))
        self.register_buffer("counts", torch.from_numpy(n_modes / 2))
        # |FFT|^2 = N_cells^2 |delta_k|^2; the weights also turn the sum over a bin into its mean.
        volume = float(np.prod(box_length)) / float(np.prod(cells)) ** 2
        self.register_buffer("_modes", torch.from_numpy(inside))
        self.register_buffer("_bins", torch.from_numpy(bins))
        self.register_buffer("_weights", torch.from_numpy(volume * weights / n_modes[bins]))

    def forward(self, cubes: Tensor) -> Tensor:
        """Power spectra of a batch.

        Parameters
        ----------
        cubes
            Real fields, with shape (..., *cells): (B, C, *cells) as a rule.

        Returns
        -------
        Tensor
            P(k), with shape (..., n_bins), float64, in the square of the field's unit times Mpc^d.
        """
        modes = self._fourier(cubes)
        return self._average(modes.real.square() + modes.imag.square())

    def cross(self, first: Tensor, second: Tensor) -> Tensor:
        """Cross spectra V Re <delta_1 delta_2*> of two batches (..., *cells), with shape (..., n_bins)."""
        return self._average((self._fourier(first) * self._fourier(second).conj()).real)

    def _fourier(self, cubes: Tensor) -> Tensor:
        """Binned modes of the half-plane, (..., n_modes)."""
        dims = tuple(range(-len(self.cells), 0))
        if tuple(cubes.shape[-len(self.cells) :]) != self.cells:
            raise ValueError(f"this power spectrum is for cells {self.cells}: got {tuple(cubes.shape)}")
        return torch.fft.rfftn(cubes, dim=dims).flatten(dims[0])[..., self._modes]

    def _average(self, power: Tensor) -> Tensor:
        """Weighted sum of (..., n_modes) over each bin, in float64."""
        out = power.new_zeros((*power.shape[:-1], len(self.k)), dtype=torch.float64)
        return out.index_add(-1, self._bins, power.double() * self._weights)


def default_edges(
    cells: tuple[int, ...],
    box_length: tuple[float, ...],
    n_bins: int,
    k_max: float | None = None,
    k_min: float | None = None,
) -> NDArray[np.float64]:
    """Logarithmic bin edges in 1/Mpc that leave no bin without modes.

    They run from `k_min`, by default the fundamental mode of the longest axis, to `k_max`, by
    default to the corner of Fourier space, so that no mode is left out; there may be fewer than
    `n_bins` bins.
    """
    k, _ = _half_plane(cells, box_length)
    fundamental = 2 * np.pi / max(box_length) if k_min is None else k_min
    highest = float(k.max()) * (1 + 2 * _NUDGE) if k_max is None else k_max
    if n_bins < 1 or highest <= fundamental:
        raise ValueError(f"no bins between k = {fundamental:g} and {highest:g} 1/Mpc (n_bins = {n_bins})")
    edges = np.geomspace(fundamental * (1 - _NUDGE), highest, n_bins + 1)
    filled = np.histogram(k[(k >= edges[0]) & (k < edges[-1])], edges)[0] > 0
    # Dropping the upper edge of an empty bin merges it with the one above.
    last = int(np.flatnonzero(filled)[-1])
    return np.concatenate([[edges[0]], edges[1 : last + 1][filled[:last]], [edges[-1]]])


def dimensionless(k: Tensor, power: Tensor, dimension: int) -> Tensor:
    """Variance per logarithmic k: k^3 P / (2 pi^2) in 3D, k^2 P / (2 pi) in 2D.

    Parameters
    ----------
    k
        Wavenumbers in 1/Mpc, with shape (n_bins,).
    power
        P(k), with shape (..., n_bins), in unit^2 Mpc^dimension.
    dimension
        2 or 3.

    Returns
    -------
    Tensor
        (..., n_bins) in unit^2.
    """
    solid = {2: 2 * np.pi, 3: 2 * np.pi**2}[dimension]
    return k**dimension * power / solid


def _half_plane(
    cells: tuple[int, ...], box_length: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavenumber of each flattened rfftn mode, and how many modes of the full FFT it stands for."""
    spacing = [length / n for n, length in zip(cells, box_length, strict=True)]
    axes = [2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(cells[:-1], spacing[:-1], strict=True)]
    axes.append(2 * np.pi * np.fft.rfftfreq(cells[-1], spacing[-1]))
    grid = np.meshgrid(*axes, indexing="ij")
    last = np.full(len(axes[-1]), 2.0)
    last[0] = 1.0
    if cells[-1] % 2 == 0:
        last[-1] = 1.0  # the Nyquist plane is its own conjugate
    weights = np.broadcast_to(last, grid[0].shape)
    return np.sqrt(sum(axis**2 for axis in grid)).ravel(), weights.ravel()
