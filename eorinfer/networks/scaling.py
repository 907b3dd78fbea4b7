"""Scale maps in physical units to numbers of order one, invertibly."""

import torch
from torch import Tensor, nn

#: Standard deviations outside [1e-12, 1e12] are computed again in double precision; shares of the mean that are noise.
_LOST, _ROUNDING = 1e-12, 1e-7


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
        axes = (0, *range(2, x.ndim))
        self.softening.copy_(softening * nonzero_deviation(x, axes).view_as(self.softening))
        self.scale.copy_(nonzero_deviation(torch.asinh(x / self.softening), axes).view_as(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Scale maps (B, C, *cells) in physical units."""
        return torch.asinh(x / self.softening) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return self.softening * torch.sinh(y * self.scale)


def nonzero_deviation(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute the standard deviation over axes, and put 1 where it is 0, so that a constant keeps its scale."""
    std = x.std(axes)
    lost = ~((std > _LOST) & (std < 1 / _LOST))
    if bool(lost.any()):
        # Squares of numbers this small or large are lost in float32; rounding must not count as a deviation.
        exact, mean = x.double().std(axes), x.double().mean(axes).abs()
        std = torch.where(lost, torch.where(exact > _ROUNDING * mean, exact, 0.0).to(std), std)
    return torch.where(std > 0, std, torch.ones_like(std))
