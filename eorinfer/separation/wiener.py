"""The best linear separation: a Wiener filter by the mean spectra of mocks."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from eorinfer.separation.spectra import ModeBins
from simulators.fourier import half_plane

#: Share of the mean power added to every channel's power, so that channels with the same data can be inverted.
FLOOR = 1e-6


class WienerFilter(nn.Module):
    """Estimate lines from observed maps, mode by mode: l = mean + S_lo S_oo^-1 (o - mean).

    S_oo are the spectra and cross spectra of the observed channels in training mocks, S_lo those of a line with them.
    So the signal of all lines and the noise enter with their true statistics. The spectra are averaged over directions
    across the line of sight and kept apart by mode along it. The zero mode is included: the mean is estimated too.

    Parameters
    ----------
    channels, lines
        Number of channels C of observed maps, and of lines L.
    cells, cell_size
        Cells of the maps and their side; the line of sight of a cube is the last axis.
    """

    mean_observed: Tensor
    mean_lines: Tensor
    gain_real: Tensor
    gain_imaginary: Tensor
    _bins: Tensor

    def __init__(self, channels: int, lines: int, cells: tuple[int, ...], cell_size: tuple[float, ...]) -> None:
        super().__init__()
        self._axes = tuple(range(-len(cells), 0))
        self._cells = cells
        bins = ModeBins(cells, cell_size)
        count = bins.count
        self.register_buffer("_bins", bins.number, persistent=False)
        ones = (1,) * len(cells)
        self.register_buffer("mean_observed", torch.zeros(channels, *ones))
        self.register_buffer("mean_lines", torch.zeros(lines, *ones))
        self.register_buffer("gain_real", torch.zeros(count, lines, channels))
        self.register_buffer("gain_imaginary", torch.zeros(count, lines, channels))

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure the spectra of batches of observed maps (B, C, *cells) and lines (B, L, *cells)."""
        pairs = list(batches)
        self.mean_observed.copy_(torch.cat([_means(observed) for observed, _ in pairs]).mean(0))
        self.mean_lines.copy_(torch.cat([_means(lines) for _, lines in pairs]).mean(0))
        count, lines, channels = self.gain_real.shape
        own = torch.zeros(count, channels, channels, dtype=torch.complex128)
        cross = torch.zeros(count, lines, channels, dtype=torch.complex128)
        for observed, line in pairs:
            o, t = self._modes(observed - self.mean_observed), self._modes(line - self.mean_lines)
            own.index_add_(0, self._bins, torch.einsum("bik,bjk->kij", o, o.conj()))
            cross.index_add_(0, self._bins, torch.einsum("bik,bjk->kij", t, o.conj()))
        power = own.diagonal(dim1=1, dim2=2).real.mean(1)
        own += (FLOOR * power + torch.finfo(torch.float32).tiny)[:, None, None] * torch.eye(channels)
        gain = torch.linalg.solve(own, cross, left=False)
        self.gain_real.copy_(gain.real)
        self.gain_imaginary.copy_(gain.imag)

    def forward(self, observed: Tensor) -> Tensor:
        """Turn observed maps (B, C, *cells) into lines (B, L, *cells)."""
        gain = torch.complex(self.gain_real, self.gain_imaginary).to(torch.complex128)[self._bins]
        modes = torch.einsum("kij,bjk->bik", gain, self._modes(observed - self.mean_observed))
        grid = modes.view(*modes.shape[:2], *half_plane(self._cells))
        maps = torch.fft.irfftn(grid, s=self._cells, dim=self._axes)
        return maps.to(observed) + self.mean_lines

    def _modes(self, maps: Tensor) -> Tensor:
        return torch.fft.rfftn(maps.double(), dim=self._axes).flatten(2)


def _means(maps: Tensor) -> Tensor:
    """Average maps (B, C, *cells) over cells: (B, C, 1, ...)."""
    return maps.double().mean(tuple(range(2, maps.ndim)), keepdim=True)
