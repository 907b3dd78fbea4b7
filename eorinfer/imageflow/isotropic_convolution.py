"""Convolutions with a kernel that depends on distance alone, as invertible layers (TRENF, arXiv 2202.05282)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from simulators.fourier import half_plane, mode_weights, wavevectors


class Conditioner(nn.Module):
    """Numbers as a function of the condition: linear, plus a small network that starts at zero.

    Parameters
    ----------
    condition
        Length P of the condition.
    outputs
        How many numbers to compute.
    hidden
        Widths of the network's hidden layers.
    """

    def __init__(self, condition: int, outputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, outputs)
        layers: list[nn.Module] = []
        for before, after in zip((condition, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.rest = nn.Sequential(*layers, nn.Linear((condition, *hidden)[-1], outputs))
        for layer in (self.linear, self.rest[-1]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, u: Tensor) -> Tensor:
        """Compute (B, outputs) from conditions u (B, P) in [-1, 1]."""
        out: Tensor = self.linear(u) + self.rest(u)
        return out

    @torch.no_grad()
    def start_at(self, constant: Tensor, slope: Tensor) -> None:
        """Make the outputs constant (n,) plus slope (n, P) times u."""
        self.linear.bias.copy_(constant)
        self.linear.weight.copy_(slope)


@dataclass(frozen=True)
class Modes:
    """Splines in k over the Fourier modes of a grid, as a real FFT stores them.

    Attributes
    ----------
    basis
        (K, M) values at the M modes of K splines; spline i is one at knot i and zero at the others.
    count
        (M,) float64 number of modes of the full FFT that each mode stands for.
    """

    basis: Tensor
    count: Tensor

    @classmethod
    def from_grid(
        cls, cells: tuple[int, ...], cell_size: tuple[float, ...], knots: int, line_of_sight: bool
    ) -> "Modes":
        """Build cubic splines in log k; the zero mode has a value of its own.

        Parameters
        ----------
        cells, cell_size
            Number of cells along each axis, and their side in comoving Mpc.
        knots
            Number of knots along k, at most.
        line_of_sight
            Whether the last axis differs from the others. Then the splines are products of one in k across and one in
            k along. Modes that do not vary across (an interferometer measures none) have splines of their own.
        """
        squares = [component.ravel() ** 2 for component in wavevectors(cells, cell_size)]
        if line_of_sight:
            across, along = np.sqrt(np.sum(squares[:-1], axis=0)), np.sqrt(squares[-1])
            flat = across == 0
            # Not log k: zero is among the wavenumbers along the line of sight.
            v = np.log1p(along * cells[-1] * cell_size[-1] / (2 * np.pi))
            outer = _cardinal(np.log(across[~flat]), knots)[:, :, None] * _cardinal(v[~flat], knots)[:, None]
            blocks = [(flat & (along > 0), _cardinal(v[flat & (along > 0)], knots))]
            blocks.append((~flat, outer.reshape(len(outer), -1)))
        else:
            k = np.sqrt(np.sum(squares, axis=0))
            blocks = [(k > 0, _cardinal(np.log(k[k > 0]), knots))]
        blocks.insert(0, (~np.any([where for where, _ in blocks], axis=0), np.ones((1, 1))))
        columns = []
        for where, values in blocks:
            block = np.zeros((len(where), values.shape[1]))
            block[where] = values
            columns.append(block)
        basis = np.concatenate(columns, axis=1).T
        return cls(torch.tensor(basis, dtype=torch.float32), torch.from_numpy(mode_weights(cells).ravel()))


def _cardinal(x: NDArray[np.float64], knots: int) -> NDArray[np.float64]:
    """Evaluate natural cubic splines (m, K) at x (m,), each one at its own knot; knots are about equally spaced."""
    if not len(x):
        return np.zeros((0, 0))
    x = np.round(x, 9)  # wavenumbers k and -k must get the very same values
    values = np.unique(x)
    wanted = np.linspace(values[0], values[-1], knots)
    # A knot without a mode would not be constrained.
    at = values[np.unique(np.abs(values[:, None] - wanted).argmin(0))]
    if len(at) == 1:
        return np.ones((len(x), 1))
    return np.asarray(CubicSpline(at, np.eye(len(at)), bc_type="natural")(x))


class IsotropicConvolution(nn.Module):
    """Multiply each mode by M(|k|, y), lower triangular in the channels with the positive diagonal T.

    M = diag(T) (1 + N), N strictly lower triangular; log T and N are splines in log k, their knots depend on the
    condition. The log-determinant is the sum of log T over all modes and channels, linear in the knots.

    Parameters
    ----------
    channels
        Number of channels C.
    cells
        Cells of the grid along each axis.
    modes
        Splines over the modes of the grid.
    condition, hidden
        Length of the condition, and widths of the network from it to the knots.
    """

    _basis: Tensor
    _count: Tensor
    _total: Tensor

    def __init__(
        self, channels: int, cells: tuple[int, ...], modes: Modes, condition: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.channels, self.cells = channels, cells
        self.register_buffer("_basis", modes.basis, persistent=False)
        self.register_buffer("_count", modes.count, persistent=False)
        self.register_buffer("_total", modes.basis.double() @ modes.count, persistent=False)
        self.pairs = [(i, j) for i in range(channels) for j in range(i)]
        self.conditioner = Conditioner(condition, (channels + len(self.pairs)) * len(modes.basis), hidden)

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Filter maps (B, C, *cells) of conditions (B, P), and return the log-determinant (B,) float64."""
        knots = self._knots(u)
        transfer, mixing = self._curves(knots)
        modes = self._fourier(x)
        rows = list(modes.unbind(1))
        for (i, j), n in zip(self.pairs, mixing.unbind(1), strict=True):
            rows[i] = rows[i] + n[..., None] * modes[:, j]
        out = self._back(torch.stack(rows, dim=1) * transfer[..., None])
        return out, (knots[:, : self.channels].double() @ self._total.double()).sum(-1)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward` for maps (B, C, *cells)."""
        transfer, mixing = self._curves(self._knots(u))
        rows = list((self._fourier(z) / transfer[..., None]).unbind(1))
        for (i, j), n in zip(self.pairs, mixing.unbind(1), strict=True):
            rows[i] = rows[i] - n[..., None] * rows[j]  # by rows, so that row j < i is done
        return self._back(torch.stack(rows, dim=1))

    @torch.no_grad()
    def fit(self, x: Tensor, u: Tensor) -> None:
        """Fit the convolution that whitens maps x (n, C, *cells) of conditions u (n, P).

        The correlations of the channels are averaged over the conditions. The log power of what remains is linear in
        the condition: the logarithm of a mode's power has the same scatter and offset whatever its mean.

        Raises
        ------
        ValueError
            If some modes have no power.
        """
        modes = torch.view_as_complex(self._fourier(x).double())
        spectra = torch.einsum("ncm,ndm->mcd", modes, modes.conj()).real / len(x)
        diagonal = spectra.diagonal(dim1=1, dim2=2)
        if bool((diagonal <= 1e-12 * diagonal.mean(0)).any()):
            raise ValueError("there are Fourier modes without power, in which no density is defined")
        basis, weight = self._basis.double().T, self._count.sqrt()[:, None]

        def spline(values: Tensor) -> Tensor:
            return torch.linalg.lstsq(basis * weight, values * weight).solution

        # Rows of the inverse Cholesky factor over their diagonal: N.
        factor = torch.linalg.inv(torch.linalg.cholesky(spectra))
        mixing = factor / factor.diagonal(dim1=1, dim2=2)[..., None]
        below = [spline(mixing[:, i, j, None])[:, 0] for i, j in self.pairs]
        curves = {pair: basis @ knots for pair, knots in zip(self.pairs, below, strict=True)}
        constants, slopes = [], []
        for i in range(self.channels):
            row = modes[:, i] + sum((curves[i, j] * modes[:, j] for j in range(i)), torch.zeros_like(modes[:, i]))
            power = row.abs().square() / math.prod(self.cells)
            # Rows 1 to P of the solution: slopes of the log power in the condition, for each mode.
            design = torch.cat([torch.ones_like(u[:, :1]), u], dim=1).double()
            slope = spline(torch.linalg.lstsq(design, power.clamp_min(1e-30).log()).solution[1:].T)
            level = (power * torch.exp(-(basis @ slope @ design[:, 1:].T).T)).mean(0)
            constants.append(-0.5 * spline(level.log()[:, None])[:, 0])
            slopes.append(-0.5 * slope)
        constant = torch.cat([*constants, *below])
        slope = torch.cat([*slopes, *(torch.zeros_like(slopes[0]) for _ in below)])
        self.conditioner.start_at(constant, slope)

    def _knots(self, u: Tensor) -> Tensor:
        """Compute the knots (B, C + pairs, K) of the conditions (B, P)."""
        knots: Tensor = self.conditioner(u)
        return knots.view(len(u), -1, len(self._basis))

    def _curves(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        """Compute T (B, C, M) and the entries of N (B, pairs, M)."""
        curves = knots @ self._basis
        return torch.exp(curves[:, : self.channels]), curves[:, self.channels :]

    def _fourier(self, x: Tensor) -> Tensor:
        """Compute the modes (B, C, M, 2) of maps, real and imaginary part last."""
        modes = torch.fft.rfftn(x, dim=tuple(range(2, x.ndim)))
        return torch.view_as_real(modes.flatten(2))

    def _back(self, modes: Tensor) -> Tensor:
        """Compute the maps (B, C, *cells) of modes (B, C, M, 2)."""
        grid = torch.view_as_complex(modes.contiguous()).view(*modes.shape[:2], *half_plane(self.cells))
        return torch.fft.irfftn(grid, s=self.cells, dim=tuple(range(2, 2 + len(self.cells))))
