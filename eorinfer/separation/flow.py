"""Flow matching of lines about their posterior mean: a velocity that carries coloured noise to residuals."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from eorinfer.networks.unet import Strides, UNet
from eorinfer.separation.spectra import ModeBins

#: Numbers that describe a time, and length of the vector that the network sees of them.
WAVES, CONDITIONS = 8, 32
#: Power below this share of a line's largest is not whitened: beyond the beam there is nothing to learn.
FLOOR = 1e-3


class ResidualFlow(nn.Module):
    """Draw residuals of lines, truth minus posterior mean, given the observed map and the mean.

    Conditional flow matching (Lipman et al. 2023, arXiv 2210.02747): at time t a residual is y = (1 - t) y0 + t y1,
    with y1 a true one and y0 Gaussian noise, and a network learns the mean velocity y1 - y0 at y. The noise has the
    power and cross power of the residuals. So a Gaussian residual that knows nothing of the observed map has the
    velocity c(t) y, with c = (2t - 1) / (t^2 + (1 - t)^2); the network learns what is beyond, in units of its standard
    deviation (t^2 + (1 - t)^2)^(-1/2). Residuals are whitened, so that modes of little power count as much.

    Parameters
    ----------
    channels, lines
        Number of channels C of observed maps, and of lines L.
    bins
        Bins of the modes of a map.
    strides, periodic
        See `UNet`.
    width, widest
        Channels of the first level of the network, doubled at each one up to `widest`.
    """

    whitening: Tensor
    source: Tensor

    def __init__(
        self, channels: int, lines: int, bins: ModeBins, strides: Strides, periodic: tuple[bool, ...], **size: Any
    ) -> None:
        super().__init__()
        self._bins, self._lines = bins, lines
        self.register_buffer("whitening", torch.ones(bins.count, lines))
        self.register_buffer("source", torch.eye(lines).repeat(bins.count, 1, 1))
        self.network = UNet(
            channels + 2 * lines,
            lines,
            strides,
            periodic,
            **size,
            dropout=0.0,
            guess=None,
            conditions=CONDITIONS,
            grouped=True,
        )
        self.time = nn.Sequential(nn.Linear(2 * WAVES, CONDITIONS), nn.SiLU())

    def fit(self, residuals: Tensor) -> None:
        """Set whitening and noise from residuals (B, L, *cells) in physical units."""
        spectra = self._bins.spectra(residuals, residuals)
        power = spectra.diagonal(dim1=1, dim2=2)
        whitening = (power + FLOOR * power.amax(0)).rsqrt()
        values, vectors = torch.linalg.eigh(whitening[:, :, None] * spectra * whitening[:, None])
        self.whitening.copy_(whitening)
        self.source.copy_((vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT)

    def white(self, residuals: Tensor) -> Tensor:
        """Whiten residuals (B, L, *cells) in physical units."""
        return self._bins.filtered(residuals, self.whitening)

    def losses(self, context: Tensor, white: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the squared error of the velocity (B, L), in units of its variance.

        Parameters
        ----------
        context
            (B, C + L, *cells) observed maps and means, scaled to order one.
        white
            (B, L, *cells) whitened true residuals y1.
        generator
            Source of times and noise.
        """
        batch = len(white)
        # Spread evenly over the batch: the loss depends on the time.
        share = torch.rand((), generator=generator, device=generator.device).to(white)
        time = (torch.arange(batch, device=white.device) + share) / batch
        noise = self.noise(tuple(white.shape), generator).to(white)
        t = time.view(-1, *(1,) * (white.ndim - 1))
        y = (1 - t) * noise + t * white
        slope, scale = _linear(t)
        wanted = (white - noise - slope * y) / scale
        return (self._beyond(context, y * scale, time).float() - wanted).square().flatten(2).mean(2)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw whitened noise y0 of a shape (B, L, *cells), on the device of the flow."""
        white = torch.randn(shape, generator=generator, device=generator.device).to(self.source)
        return self._bins.filtered(white, self.source)

    def velocity(self, context: Tensor, y: Tensor, time: float) -> Tensor:
        """Compute the velocity (B, L, *cells) at one time; parameters as for `losses`."""
        t = torch.full((len(y),), time, device=y.device)
        slope, scale = _linear(t.view(-1, *(1,) * (y.ndim - 1)))
        velocity: Tensor = slope * y + scale * self._beyond(context, y * scale, t).float()
        return velocity

    def residuals(self, white: Tensor) -> Tensor:
        """Undo `white`."""
        return self._bins.filtered(white, self.whitening, inverse=True)

    def _beyond(self, context: Tensor, y: Tensor, time: Tensor) -> Tensor:
        waves = math.pi * torch.arange(1, WAVES + 1, device=y.device) * time[:, None]
        condition = self.time(torch.cat([waves.sin(), waves.cos()], dim=1))
        found: Tensor = self.network(torch.cat([context, y], dim=1), condition=condition)
        return found


def _linear(t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the factor of y in its velocity, and the standard deviation of the rest, for Gaussian residuals."""
    variance = t.square() + (1 - t).square()
    return (2 * t - 1) / variance, variance.rsqrt()
