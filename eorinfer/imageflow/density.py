"""Contract of every flow on images: densities, the same by scale, and samples."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import to_symmetric, white_noise


class ImageDensity(nn.Module):
    """p(x | y) of maps x (B, C, *cells) under conditions y (B, P), by an invertible map to white noise.

    Parameters
    ----------
    shape
        (C, *cells) of the maps.
    low, high
        Range of each of the P conditions, which is scaled to [-1, 1].
    """

    low: Tensor
    high: Tensor

    def __init__(self, shape: tuple[int, ...], low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.shape = shape
        # Copies: a flow within a flow has bounds of its own, as weights in a file must not share memory.
        self.register_buffer("low", low.double().clone())
        self.register_buffer("high", high.double().clone())

    @property
    def scales(self) -> tuple[tuple[int, ...], ...]:
        """Cells of the map at each scale of `log_prob_scales`, the coarsest first."""
        return (self.shape[1:],)

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x (B, C, *cells) of conditions y (B, P): what should be white noise, and ln |dz/dx| (B,) float64."""

    @abstractmethod
    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """White noise z (B, C, *cells) to maps of conditions y (B, P)."""

    @abstractmethod
    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Ln p(x | y) in nats as a sum over scales, the coarsest first: (B, S) float64."""

    @abstractmethod
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Start near maps x (n, C, *cells) of conditions y (n, P).

        Raises
        ------
        ValueError
            If there is something in the maps that never varies.
        """

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Ln p(x | y) in nats, (B,) float64, for maps (B, C, *cells) and conditions (B, P)."""
        return self.log_prob_scales(x, y).sum(-1)

    def sample(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """One map of each condition y (B, P): (B, C, *cells) float32, on the device of the weights."""
        z = white_noise(self.low.float(), generator, (len(y), *self.shape))
        return self.inverse(z, y.to(self.low.device))

    def unit(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Conditions y (B, P) in [-1, 1]."""
        return to_symmetric(y, self.low, self.high).to(dtype)


def log_normal(z: Tensor) -> Tensor:
    """Ln of the density of white noise z (B, ...): (B,) float64."""
    flat = z.flatten(1)
    return -0.5 * (flat.square().sum(-1, dtype=torch.float64) + flat.shape[1] * math.log(2 * math.pi))
