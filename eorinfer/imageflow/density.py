"""Base of the image flows: densities, the same by scale, and samples."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import to_symmetric, white_noise


class ImageDensity(nn.Module):
    """Density p(x | y) of maps x (B, C, *cells) under conditions y (B, P), by an invertible map to white noise.

    Parameters
    ----------
    shape
        (C, *cells) of the maps.
    low, high
        (P,) range of each condition, which is scaled to [-1, 1].
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
        """Return the cells of the map at each scale of `log_prob_scales`, the coarsest first."""
        return (self.shape[1:],)

    @property
    def terms(self) -> tuple[str, ...]:
        """Name the terms of `log_prob_scales`."""
        if len(self.scales) == 1:
            return ("ln p",)
        return tuple(f"ln p at {' x '.join(map(str, cells))} cells" for cells in self.scales)

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps x (B, C, *cells) of conditions y (B, P) into white noise z, and return ln |dz/dx| (B,) float64."""

    @abstractmethod
    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn white noise z (B, C, *cells) into maps of conditions y (B, P)."""

    @abstractmethod
    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the terms of ln p(x | y) in nats, one a scale, the coarsest first: (B, S) float64."""

    @abstractmethod
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Start near maps x (n, C, *cells) of conditions y (n, P).

        Raises
        ------
        ValueError
            If the maps have a mode or a detail that never varies.
        """

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p(x | y) in nats, (B,) float64, for maps (B, C, *cells) and conditions (B, P)."""
        return self.log_prob_scales(x, y).sum(-1)

    def sample(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one map for each condition y (B, P): (B, C, *cells) float32, on the device of the weights."""
        z = white_noise(self.low.float(), generator, (len(y), *self.shape))
        return self.inverse(z, y.to(self.low.device))

    def unit(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Scale conditions y (B, P) to [-1, 1]."""
        return to_symmetric(y, self.low, self.high).to(dtype)


def log_normal(z: Tensor) -> Tensor:
    """Compute ln p of white noise z (B, ...) in nats: (B,) float64."""
    flat = z.flatten(1)
    return -0.5 * (flat.square().sum(-1, dtype=torch.float64) + flat.shape[1] * math.log(2 * math.pi))
