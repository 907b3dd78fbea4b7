"""A normalizing flow on maps that is symmetric under translations and rotations: p(x | y) of a homogeneous field.

After TRENF (Dai & Seljak 2022, arXiv 2202.05282): convolutions that depend on |k| alone alternate with one
monotone spline for all cells; both depend on the condition y. A Gaussian field needs one convolution, a lognormal
one a spline before it.
"""

from collections.abc import Iterable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from eorinfer.imageflow.density import ImageDensity, log_normal
from eorinfer.imageflow.isotropic_convolution import Conditioner, IsotropicConvolution, Modes
from eorinfer.imageflow.spline import Spline

#: Half of the range over which the splines' knots are equally spaced at the start, in standard deviations.
BOUND = 4.0
#: Least standard deviation of a channel, as a share of that of all maps together.
FLOOR = 1e-3


class Layer(Protocol):
    """One invertible step of the flow."""

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo the step for z (B, C, *cells) of scaled conditions u (B, P)."""


class Standardisation(nn.Module):
    """Subtract the mean of each channel and divide by its standard deviation, both functions of the condition."""

    def __init__(self, channels: int, condition: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.conditioner = Conditioner(condition, 2 * channels, hidden)

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps (B, C, *cells) into maps, and return the log-determinant (B,) float64."""
        mean, log_std = self._moments(x, u)
        cells = x[0, 0].numel()
        return (x - mean) * torch.exp(-log_std), -cells * log_std.flatten(1).sum(-1, dtype=torch.float64)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward`."""
        mean, log_std = self._moments(z, u)
        return z * torch.exp(log_std) + mean

    @torch.no_grad()
    def fit(self, x: Tensor, u: Tensor) -> None:
        """Fit means and log standard deviations of maps (n, C, *cells), linear in their conditions (n, P)."""
        flat = x.double().flatten(2)
        floor = FLOOR * flat.std(dim=(0, 2))
        targets = torch.cat([flat.mean(-1), (flat.std(-1) + floor).log()], dim=1)
        design = torch.cat([torch.ones_like(u[:, :1]), u], dim=1).double()
        solution = torch.linalg.lstsq(design, targets).solution
        self.conditioner.start_at(solution[0], solution[1:].T)

    def _moments(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.conditioner(u).view(len(u), 2, -1, *(1,) * (x.ndim - 2)).unbind(1)
        return mean, log_std


class PixelSpline(nn.Module):
    """Map all cells of a channel by one monotone spline, whose knots depend on the condition."""

    def __init__(self, channels: int, knots: int, condition: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.conditioner = Conditioner(condition, 3 * knots * channels, hidden)
        self.channels = channels

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps (B, C, *cells) into maps, and return the log-determinant (B,) float64."""
        out, log_slope = self._spline(u).forward(x.reshape(len(x) * self.channels, -1))
        return out.view_as(x), log_slope.view(len(x), -1).sum(-1)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward`."""
        return self._spline(u).inverse(z.reshape(len(z) * self.channels, -1)).view_as(z)

    def _spline(self, u: Tensor) -> Spline:
        return Spline.from_parameters(self.conditioner(u).view(len(u) * self.channels, -1), BOUND)


class IsotropicFlow(ImageDensity):
    """Density p(x | y) of maps: standardisation, then splines and convolutions in turn, to white noise.

    Parameters
    ----------
    shape
        (C, *cells) of the maps, in two or three dimensions, which are taken to be periodic.
    cell_size
        Comoving Mpc along each cell axis.
    low, high
        (P,) range of each condition, which is scaled to [-1, 1].
    convolutions
        Number of convolutions; there is one spline more.
    k_knots, knots
        Number of knots of each convolution's T(|k|), and of each spline.
    hidden
        Widths of the hidden layers of the small networks from the condition to the knots.
    line_of_sight
        Whether the last axis differs from the others: T(k across, k along).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        cell_size: tuple[float, ...],
        low: Tensor,
        high: Tensor,
        *,
        convolutions: int = 2,
        k_knots: int = 12,
        knots: int = 8,
        hidden: tuple[int, ...] = (64, 64),
        line_of_sight: bool = False,
    ) -> None:
        super().__init__(shape, low, high)
        channels, *cells = shape
        p = len(low)
        modes = Modes.from_grid(tuple(cells), cell_size, k_knots, line_of_sight)
        self.layers = nn.ModuleList([Standardisation(channels, p, hidden), PixelSpline(channels, knots, p, hidden)])
        for _ in range(convolutions):
            self.layers.append(IsotropicConvolution(channels, tuple(cells), modes, p, hidden))
            self.layers.append(PixelSpline(channels, knots, p, hidden))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps x (B, C, *cells) of conditions y (B, P) into white noise z, and return ln |dz/dx| (B,) float64."""
        u = self.unit(y, x.dtype)
        log_det = x.new_zeros(len(x), dtype=torch.float64)
        for layer in self.layers:
            x, log_det_of_layer = layer(x, u)
            log_det = log_det + log_det_of_layer
        return x, log_det

    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn white noise z (B, C, *cells) into maps of conditions y (B, P)."""
        u = self.unit(y, z.dtype)
        for layer in reversed(list(cast("Iterable[Layer]", self.layers))):
            z = layer.inverse(z, u)
        return z

    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p(x | y) in nats, (B, 1) float64: this flow has one scale."""
        z, log_det = self(x, y)
        return (log_det + log_normal(z))[:, None]

    @torch.no_grad()
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Start as a Gaussian with the power of maps x (n, C, *cells), linear in their conditions y (n, P).

        Raises
        ------
        ValueError
            If there are Fourier modes without any power.
        """
        u = self.unit(y, x.dtype)
        for layer in self.layers:
            if isinstance(layer, Standardisation | IsotropicConvolution):
                layer.fit(x, u)
            x = layer(x, u)[0]
            if isinstance(layer, IsotropicConvolution):
                return
