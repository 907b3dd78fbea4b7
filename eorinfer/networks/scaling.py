"""Scale maps in physical units to numbers of order one, invertibly."""

import torch
from torch import Tensor, nn


class AsinhScaling(nn.Module):
    """Scale each channel by y = asinh(x / softening) / scale: linear in faint cells, logarithmic in bright ones.

    Zero stays zero: most cells of a line map are empty.

    Parameters
    ----------
    channels, dimension
        Number of channels C and of cell axes of the maps (B, C, *cells).
    """

    softening: Tensor
    scale: Tensor

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        shape = (channels, *(1,) * dimension)
        self.register_buffer("softening", torch.ones(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, x: Tensor, softening: float = 1.0) -> None:
        """Soften maps (B, C, *cells) at `softening` standard deviations, scale to unit variance; constants keep 1."""
        self.softening.copy_(softening * _deviation(x).view_as(self.softening))
        self.scale.copy_(_deviation(torch.asinh(x / self.softening)).view_as(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Scale maps (B, C, *cells) in physical units."""
        return torch.asinh(x / self.softening) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return self.softening * torch.sinh(y * self.scale)


def _deviation(x: Tensor) -> Tensor:
    """Compute the standard deviation (C,) of each channel, or 1 where that is 0."""
    std = x.std((0, *range(2, x.ndim)))
    return torch.where(std > 0, std, torch.ones_like(std))
