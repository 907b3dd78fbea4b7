"""Spectra of maps by bins of their modes, and filters that are given by bins, on maps of any size."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from simulators.fourier import frequencies, half_plane

#: Power below this share of the largest is not whitened: beyond the beam there is nothing to learn.
FLOOR = 1e-3


def whitening(spectra: Tensor) -> Tensor:
    """Compute factors (count, L) that give all modes of maps with these spectra (count, L, L) about the same power."""
    power = spectra.diagonal(dim1=1, dim2=2)
    return (power + FLOOR * power.amax(0)).rsqrt()


class ModeBins:
    """Bins of the modes of `torch.fft.rfftn`, or of cosine transforms: by k across the sky, and by mode along it.

    Spectra are measured on maps of the size of training. Filters are interpolated in k, so that they also apply to
    maps with more cells across the line of sight.

    Parameters
    ----------
    cells, cell_size
        Cells of the maps of training and their side; the line of sight of a cube is the last axis.
    mirrored
        Continue maps by their mirror images, in place of their other side. Of maps that are not periodic the other
        side is a step at the edge, whose power a filter that sharpens makes the largest of all.
    """

    def __init__(self, cells: tuple[int, ...], cell_size: tuple[float, ...], *, mirrored: bool = False) -> None:
        self.cells, self._mirrored = cells, mirrored
        self._axes = tuple(range(-len(cells), 0))
        self._sizes = cell_size[:2] if all(cell_size[:2]) else (1.0, 1.0)
        self._lowest = min(1 / (n * size) for n, size in zip(cells, self._sizes, strict=False)) / (1 + mirrored)
        self._along = self._grid(cells)[2] if len(cells) == 3 else 1
        across = self._across(cells)
        # The zero mode has a bin of its own.
        rounded = torch.where(across > 0, torch.round(across).clamp(min=1), 0)
        self._values, index = torch.unique(rounded, return_inverse=True)
        self.number = self._numbers(index)
        self.count = len(self._values) * self._along
        self._places: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def modes(self, maps: Tensor) -> Tensor:
        """Transform maps (B, L, *cells) to flattened modes (B, L, M), in the precision of the maps."""
        if not self._mirrored:
            return torch.fft.rfftn(maps, dim=self._axes).flatten(2)
        for axis in self._axes:
            maps = _along(axis, maps, _cosines(maps.shape[axis]).to(maps))
        return maps.flatten(2)

    def spectra(self, first: Tensor, second: Tensor) -> Tensor:
        """Measure cross spectra (count, L, K) float64 of maps (B, L, *cells) and (B, K, *cells), of training's size.

        White noise of unit variance has a spectrum of one.
        """
        a, b = self.modes(first.double()), self.modes(second.double())
        sums = torch.zeros(self.count, a.shape[1], b.shape[1], dtype=torch.float64)
        products = torch.einsum("bik,bjk->kij", a, b.conj()).real.cpu()
        sums.index_add_(0, self.number, products)
        modes = torch.bincount(self.number, minlength=self.count) * len(a) * math.prod(self.cells)
        return sums / modes[:, None, None]

    def filtered(self, maps: Tensor, table: Tensor, *, inverse: bool = False) -> Tensor:
        """Filter maps (B, L, *cells) by a real table.

        Parameters
        ----------
        maps
            Maps, as large as in training or larger across the line of sight.
        table
            (count, L) factors of the modes of each line, or (count, K, L) for mixtures of the lines.
        inverse
            Divide by the factors, which undoes the filter.
        """
        cells = tuple(maps.shape[2:])
        with torch.autocast(maps.device.type, enabled=False):
            gain = self._interpolated(table.to(maps.device, torch.float32), cells)
            gain = gain.reciprocal() if inverse else gain
            modes = self.modes(maps.float())
            modes = gain.T * modes if table.ndim == 2 else torch.einsum("kij,bjk->bik", gain.to(modes.dtype), modes)
            grid = modes.reshape(*modes.shape[:2], *self._grid(cells))
            if not self._mirrored:
                return torch.fft.irfftn(grid, s=cells, dim=self._axes)
            for axis in self._axes:
                n = grid.shape[axis]
                grid = _along(axis, grid, _cosines(n).to(grid).T / n)
            return grid

    def _interpolated(self, table: Tensor, cells: tuple[int, ...]) -> Tensor:
        """Interpolate a table (count, ...) at the modes of a grid: (M, ...)."""
        if cells not in self._places:
            self._places[cells] = self._place(cells)
        low, high, share = (x.to(table.device) for x in self._places[cells])
        return torch.lerp(table[low], table[high], share[(..., *(None,) * (table.ndim - 1))])

    def _place(self, cells: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Find for each mode of a grid the bins below and above it, and its share of the way between them."""
        across = self._across(cells)
        # No mode but the zero mode takes part in the bin of the zero mode.
        at = torch.where(across > 0, across.clamp(min=1.0), 0.0).numpy()
        place = torch.from_numpy(np.interp(at, self._values.numpy(), np.arange(len(self._values))))
        low = place.floor().long()
        high = (low + 1).clamp(max=len(self._values) - 1)
        share = (place - low).float()[..., None].expand(*place.shape, self._along)
        return self._numbers(low), self._numbers(high), share.flatten()

    def _across(self, cells: tuple[int, ...]) -> Tensor:
        """Compute k across the line of sight of each mode, in units of the lowest one of training."""
        if self._mirrored:
            x, y = (torch.arange(n) / (2 * n * size) for n, size in zip(cells[:2], self._sizes, strict=True))
        else:
            x, y = (torch.from_numpy(f) for f in frequencies(cells[:2], self._sizes, half=len(cells) == 2))
        return torch.hypot(x[:, None], y) / self._lowest

    def _grid(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the modes of a grid."""
        return cells if self._mirrored else half_plane(cells)

    def _numbers(self, across: Tensor) -> Tensor:
        """Number the bins of all flattened modes from the bins across the line of sight."""
        return (across[..., None] * self._along + torch.arange(self._along)).flatten()


def _along(axis: int, maps: Tensor, matrix: Tensor) -> Tensor:
    """Multiply an axis of maps by a matrix (before, after)."""
    if axis == -1:
        return maps @ matrix
    return matrix.T @ maps if axis == -2 else (maps.movedim(axis, -1) @ matrix).movedim(-1, axis)


@lru_cache(maxsize=8)
def _cosines(n: int) -> Tensor:
    """Compute the waves (cells, modes) of a cosine transform (DCT-II), each with a mean square of one."""
    place, mode = torch.arange(n, dtype=torch.float64) + 0.5, torch.arange(n, dtype=torch.float64)
    waves = torch.cos(math.pi / n * place[:, None] * mode)
    return torch.where(mode > 0, math.sqrt(2) * waves, waves)
