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
    """Numbers that depend on the condition: linear, and a small network on top that starts at zero.

    Parameters
    ----------
    condition
        Length P of the condition.
    outputs
        Number of outputs.
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
        """U (B, P), in [-1, 1], to (B, outputs)."""
        out: Tensor = self.linear(u) + self.rest(u)
        return out

    @torch.no_grad()
    def start_at(self, constant: Tensor, slope: Tensor) -> None:
        """Make the outputs constant (n,) plus slope (n, P) times u."""
        self.linear.bias.copy_(constant)
        self.linear.weight.copy_(slope)


@dataclass(frozen=True)
class Modes:
    """The Fourier modes of a grid, as a real FFT stores them, and splines in k over them.

    Attributes
    ----------
    basis
        (K, M) values at the M modes of the K splines that are one at one knot and zero at the others.
    count
        (M,) float64, how many modes of the whole FFT each stands for: one where the last wavenumber is its
        own conjugate (zero, and Nyquist's of an even length), else two.
    """

    basis: Tensor
    count: Tensor

    @classmethod
    def of(cls, cells: tuple[int, ...], cell_size: tuple[float, ...], knots: int, line_of_sight: bool) -> "Modes":
        """Cubic splines in log k; the zero mode has a value of its own.

        Parameters
        ----------
        cells, cell_size
            Cells along each axis, and their comoving Mpc.
        knots
            Along k, at most.
        line_of_sight
            Whether the last axis differs from the others: then the splines are products of those in k across and
            k along it. Modes that do not vary across (an interferometer measures none) have a spline of their own.
        """
        squares = [component.ravel() ** 2 for component in wavevectors(cells, cell_size)]
        if line_of_sight:
            across, along = np.sqrt(np.sum(squares[:-1], axis=0)), np.sqrt(squares[-1])
            flat = across == 0
            # Zero is among the wavenumbers along the line of sight.
            v = np.log1p(along * cells[-1] * cell_size[-1] / (2 * np.pi))
            outer = _cardinal(np.log(across[~flat]), knots)[:, :, None] * _cardinal(v[~flat], knots)[:, None]
            parts = [(flat & (along > 0), _cardinal(v[flat & (along > 0)], knots))]
            parts.append((~flat, outer.reshape(len(outer), -1)))
        else:
            k = np.sqrt(np.sum(squares, axis=0))
            parts = [(k > 0, _cardinal(np.log(k[k > 0]), knots))]
        parts.insert(0, (~np.any([where for where, _ in parts], axis=0), np.ones((1, 1))))
        columns = []
        for where, values in parts:
            block = np.zeros((len(where), values.shape[1]))
            block[where] = values
            columns.append(block)
        basis = np.concatenate(columns, axis=1).T
        return cls(torch.tensor(basis, dtype=torch.float32), torch.from_numpy(mode_weights(cells).ravel()))


def _cardinal(x: NDArray[np.float64], knots: int) -> NDArray[np.float64]:
    """Natural cubic splines (m, K) at x (m,) that are one at one of the knots, which are about equally spaced."""
    if not len(x):
        return np.zeros((0, 0))
    x = np.round(x, 9)  # wavenumbers k and -k must get the very same values
    values = np.unique(x)
    wanted = np.linspace(values[0], values[-1], knots)
    # A knot where there is no mode would be free to go anywhere.
    at = values[np.unique(np.abs(values[:, None] - wanted).argmin(0))]
    if len(at) == 1:
        return np.ones((len(x), 1))
    return np.asarray(CubicSpline(at, np.eye(len(at)), bc_type="natural")(x))


class IsotropicConvolution(nn.Module):
    """x_k to M(|k|, y) x_k, M lower triangular in the channels with the positive diagonal T.

    M = diag(T) (1 + N), N strictly lower triangular; log T and N are splines in log k, their knots depend on the
    condition. The log-determinant is the sum of log T over all modes and channels, linear in the knots.

    Parameters
    ----------
    channels
        C.
    cells
        Shape of the grid.
    modes
        Modes and splines of the grid.
    condition, hidden
        Length of the condition, and the network that makes knots of it.
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
        """Maps (B, C, *cells) and conditions (B, P) to maps, and the log-determinant (B,) float64."""
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
        """Start as what whitens maps x (n, C, *cells) of conditions u (n, P).

        The channels' correlations are taken at their mean over the conditions, the power of what is left as a
        power of e linear in the condition: the logarithm of a mode's power has the same scatter and offset
        whatever its mean.

        Raises
        ------
        ValueError
            If there are modes without any power.
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
        """(B, C + pairs, K)."""
        knots: Tensor = self.conditioner(u)
        return knots.view(len(u), -1, len(self._basis))

    def _curves(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        """T (B, C, M) and the entries of N (B, pairs, M)."""
        curves = knots @ self._basis
        return torch.exp(curves[:, : self.channels]), curves[:, self.channels :]

    def _fourier(self, x: Tensor) -> Tensor:
        """(B, C, M, 2): real and imaginary part."""
        modes = torch.fft.rfftn(x, dim=tuple(range(2, x.ndim)))
        return torch.view_as_real(modes.flatten(2))

    def _back(self, modes: Tensor) -> Tensor:
        """Maps (B, C, *cells)."""
        grid = torch.view_as_complex(modes.contiguous()).view(*modes.shape[:2], *half_plane(self.cells))
        return torch.fft.irfftn(grid, s=self.cells, dim=tuple(range(2, 2 + len(self.cells))))
