"""A flow of images at any scale: it sees them divided by a power of two, so that their squares are numbers."""

import math

import torch
from torch import Tensor

from eorinfer.imageflow.density import ImageDensity


class ScaledDensity(ImageDensity):
    """Density of maps through a flow of the same maps in another unit.

    Parameters
    ----------
    flow
        Flow of the maps divided by `scale`.
    scale
        Power of two, from `eorinfer.core.numbers.unit_of`.
    """

    def __init__(self, flow: ImageDensity, scale: float) -> None:
        super().__init__(flow.shape, flow.low, flow.high)
        self.flow, self.scale = flow, scale
        self._log_scale = math.prod(flow.shape) * math.log(scale)

    @property
    def scales(self) -> tuple[tuple[int, ...], ...]:
        """Return the cells of the map at each scale of `log_prob_scales`, the coarsest first."""
        return self.flow.scales

    @property
    def terms(self) -> tuple[str, ...]:
        """Name the terms of `log_prob_scales`."""
        return self.flow.terms

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps x (B, C, *cells) of conditions y (B, P) into white noise z, and return ln |dz/dx| (B,) float64."""
        z, log_determinant = self.flow(x / self.scale, y)
        return z, log_determinant - self._log_scale

    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn white noise z (B, C, *cells) into maps of conditions y (B, P)."""
        return self.flow.inverse(z, y) * self.scale

    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the terms of ln p(x | y) in nats, (B, S) float64; the first has the scale of all cells."""
        logs = self.flow.log_prob_scales(x / self.scale, y)
        return torch.cat([logs[:, :1] - self._log_scale, logs[:, 1:]], dim=1)

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p(x | y) in nats, (B,) float64, for maps (B, C, *cells) and conditions (B, P)."""
        return self.flow.log_prob(x / self.scale, y) - self._log_scale

    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Start near maps x (n, C, *cells) of conditions y (n, P); errors as in `ImageDensity.fit_start`."""
        self.flow.fit_start(x / self.scale, y)
