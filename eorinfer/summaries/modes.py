"""Fourier modes of batches of cubes in bins, and the auto and cross spectra that are averages over a bin."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.arrays import as_tensor
from eorinfer.core.numbers import unit_of
from eorinfer.summaries.bins import mode_components
from simulators.fourier import mode_weights


@dataclass(frozen=True)
class Pair:
    """Spectra of two batches of fields.

    The errors are those of Gaussian fields with these spectra, noise included.

    Attributes
    ----------
    cross
        V Re <delta_1 delta_2*>, with shape (..., *bins), float64, in the product of the units times Mpc^d.
    first, second
        Spectra of the two fields, each in the square of its unit times Mpc^d.
    counts
        Number of independent modes in each bin.
    """

    cross: Tensor
    first: Tensor
    second: Tensor
    counts: Tensor

    @property
    def coefficient(self) -> Tensor:
        """Compute the correlation r(k) = P_12 / sqrt(P_1 P_2), from -1 to 1; 0 where a field has no power."""
        product = self.first * self.second
        there = product > 0
        return torch.where(there, self.cross / torch.where(there, product, 1.0).sqrt(), 0.0)

    @property
    def error(self) -> Tensor:
        """Standard deviation of `cross`: sqrt((P_12^2 + P_1 P_2) / 2 N).

        A complex mode is two pairs of real numbers, so that P_1 itself has P_1 / sqrt(N).
        """
        return ((self.cross.square() + self.first * self.second) / (2 * self.counts)).sqrt()

    @property
    def coefficient_error(self) -> Tensor:
        """Standard deviation of `coefficient` for many modes: (1 - r^2) / sqrt(2 N)."""
        return (1 - self.coefficient.square()) / (2 * self.counts).sqrt()


class BinnedSpectrum(nn.Module):
    """Spectra of periodic cubes, averaged over bins of their modes. P(k) = V <|delta_k|^2>, without the zero mode.

    Parameters
    ----------
    cells, box_length
        Cells and comoving Mpc along each axis, in two or three dimensions.
    coordinates
        Coordinates of each flattened mode of `torch.fft.rfftn`, an array for each axis of the bins.
    edges
        Rising bin edges, one array for each of `coordinates`.

    Attributes
    ----------
    counts
        (*bins) float64 number of independent modes: half of all, since fields are real.

    Raises
    ------
    ValueError
        If a bin holds no mode.
    """

    #: No value is negative: networks see the logarithm.
    positive = True

    counts: Tensor
    _modes: Tensor
    _bins: Tensor
    _weights: Tensor

    def __init__(
        self,
        cells: tuple[int, ...],
        box_length: tuple[float, ...],
        coordinates: list[NDArray[np.float64]],
        edges: list[NDArray[np.float64]],
    ) -> None:
        super().__init__()
        self.cells = tuple(cells)
        self.bins = tuple(len(limits) - 1 for limits in edges)
        components, weights = mode_components(self.cells, box_length), mode_weights(self.cells).ravel()
        index = np.stack([np.searchsorted(x, k, side="right") - 1 for x, k in zip(edges, coordinates, strict=True)])
        inside = ((index >= 0) & (index < np.array(self.bins)[:, None])).all(axis=0)
        inside &= np.any(components, axis=0)
        modes = np.flatnonzero(inside)
        weights = weights[modes]
        flat = np.ravel_multi_index(tuple(index[:, modes]), self.bins)
        size = int(np.prod(self.bins))
        n_modes = np.bincount(flat, weights, minlength=size)
        if not n_modes.all():
            empty = np.unravel_index(int(np.flatnonzero(n_modes == 0)[0]), self.bins)
            ranges = [f"{limits[i]:g} and {limits[i + 1]:g}" for limits, i in zip(edges, empty, strict=True)]
            raise ValueError(f"no mode of this box lies between k = {' and between '.join(ranges)} 1/Mpc")
        self.register_buffer("counts", torch.from_numpy(n_modes.reshape(self.bins) / 2))
        # |FFT|^2 = N_cells^2 |delta_k|^2; the weights also turn the sum over a bin into its mean.
        volume = float(np.prod(box_length)) / float(np.prod(cells)) ** 2
        self.register_buffer("_modes", torch.from_numpy(modes))
        self.register_buffer("_bins", torch.from_numpy(flat))
        self.register_buffer("_weights", torch.from_numpy(volume * weights / n_modes[flat]))

    def forward(self, cubes: Tensor | NDArray[np.floating]) -> Tensor:
        """Compute the power spectra of a batch.

        Parameters
        ----------
        cubes
            Real fields, with shape (..., *cells): (B, C, *cells) as a rule. An array is read as a tensor.

        Returns
        -------
        Tensor
            P(k), with shape (..., *bins), float64, in the square of the field's unit times Mpc^d.
        """
        cubes = as_tensor(cubes)
        unit = _unit(cubes)
        return self._auto(self._fourier(cubes / unit)) * unit**2 if unit != 1 else self._auto(self._fourier(cubes))

    def cross(self, first: Tensor | NDArray[np.floating], second: Tensor | NDArray[np.floating]) -> Tensor:
        """Compute the cross spectra V Re <delta_1 delta_2*> (..., *bins) of two batches (..., *cells)."""
        first, second = as_tensor(first), as_tensor(second)
        a, b = _unit(first), _unit(second)
        return self._product(self._fourier(first / a), self._fourier(second / b)) * a * b

    def pair(self, first: Tensor | NDArray[np.floating], second: Tensor | NDArray[np.floating]) -> Pair:
        """Compute the cross spectra of two batches (..., *cells) and the spectra of each."""
        first, second = as_tensor(first), as_tensor(second)
        a, b = _unit(first), _unit(second)
        modes, others = self._fourier(first / a), self._fourier(second / b)
        return Pair(
            self._product(modes, others) * a * b, self._auto(modes) * a**2, self._auto(others) * b**2, self.counts
        )

    def _mean(self, k: NDArray[np.float64]) -> Tensor:
        """Average k (M,) of the flattened modes over each bin: (*bins)."""
        values = torch.from_numpy(k)[self._modes]
        return self._average(values) / self._average(torch.ones_like(values))

    def _auto(self, modes: Tensor) -> Tensor:
        return self._average(modes.real.square() + modes.imag.square())

    def _product(self, first: Tensor, second: Tensor) -> Tensor:
        return self._average((first * second.conj()).real)

    def _fourier(self, cubes: Tensor) -> Tensor:
        """Compute the Fourier modes that lie in bins, (..., n_modes)."""
        dims = tuple(range(-len(self.cells), 0))
        if tuple(cubes.shape[-len(self.cells) :]) != self.cells:
            raise ValueError(f"this power spectrum is for cells {self.cells}: got {tuple(cubes.shape)}")
        return torch.fft.rfftn(cubes, dim=dims).flatten(dims[0])[..., self._modes]

    def _average(self, power: Tensor) -> Tensor:
        """Sum (..., n_modes) over each bin with weights: (..., *bins) float64."""
        out = power.new_zeros((*power.shape[:-1], self.counts.numel()), dtype=torch.float64)
        return out.index_add(-1, self._bins, power.double() * self._weights).unflatten(-1, self.bins)


def _unit(cubes: Tensor) -> float:
    """Return the power of two that cubes are divided by, so that the squares of their modes are numbers."""
    return unit_of(float(cubes.detach().abs().max())) if cubes.numel() else 1.0
