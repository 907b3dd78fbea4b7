"""Scale maps in physical units, and numbers that summarise them, to numbers of order one."""

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import asinh

#: Standard deviations outside [1e-12, 1e12] are computed again in double precision; shares of the mean that are noise.
_LOST, _ROUNDING = 1e-12, 1e-7


class AsinhScaling(nn.Module):
    """Scale each channel by y = asinh(x / softening) / scale: linear in faint cells, logarithmic in bright ones.

    Zero stays zero: most cells of a line map are empty.

    Parameters
    ----------
    channels, dimension
        Number of channels C and of cell axes of the maps (B, C, *cells).
    linear
        Divide by `softening` and `scale` alone: for maps so far below the softening that no more is left of it.
    """

    softening: Tensor
    scale: Tensor

    def __init__(self, channels: int, dimension: int, *, linear: bool = False) -> None:
        super().__init__()
        self._linear = linear
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
        return x / (self.softening * self.scale) if self._linear else asinh(x / self.softening) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return y * (self.softening * self.scale) if self._linear else self.softening * torch.sinh(y * self.scale)


class ImageScaling(nn.Module):
    """Shift and scale each channel by constants of the training set."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        shape = (channels, *(1,) * dimension)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, x: Tensor) -> None:
        """Fit mean and standard deviation of cubes (B, C, *cells); a constant channel keeps scale 1."""
        axes = (0, *range(2, x.ndim))
        self.mean.copy_(x.mean(axes).view_as(self.mean))
        self.scale.copy_(nonzero_deviation(x, axes).view_as(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise cubes (B, C, *cells)."""
        return (x - self.mean) / self.scale


class LinearScaling(nn.Module):
    """Numbers of either sign, standardised."""

    mean: Tensor
    scale: Tensor
    #: In the order of weights on disk, which are hashed in it.
    constants: tuple[str, ...] = ("mean", "scale")

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        for name in self.constants:
            self.register_buffer(name, torch.zeros(shape) if name == "mean" else torch.ones(shape))

    def fit(self, x: Tensor) -> None:
        """Take the constants from (B, *shape); a constant number keeps scale 1."""
        self._standardise(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) to the same."""
        return (self.transformed(x) - self.mean) / self.scale

    def transformed(self, x: Tensor) -> Tensor:
        """What is standardised, (B, *shape)."""
        return x.to(self.mean)

    def _standardise(self, made: Tensor) -> None:
        self.mean.copy_(made.mean(0))
        self.scale.copy_(nonzero_deviation(made, (0,)))


class LogScaling(LinearScaling):
    """Standardised logarithm of positive numbers that may be exactly zero.

    log(x + floor), the floor at a thousandth of the training set's median:
    an empty box has no power at all.
    """

    floor: Tensor
    constants = ("floor", "mean", "scale")

    def fit(self, x: Tensor) -> None:
        """Take the constants from (B, *shape)."""
        positive = torch.where(x > 0, x, torch.full_like(x, torch.nan))
        median = positive.nanmedian(dim=0).values
        self.floor.copy_(torch.where(median.isfinite(), 1e-3 * median, torch.ones_like(median)))
        self._standardise(self.transformed(x))

    def transformed(self, x: Tensor) -> Tensor:
        """Logarithm of x + floor."""
        return torch.log(x.to(self.floor) + self.floor)


class SignedScaling(LinearScaling):
    """Standardised asinh of numbers of either sign, linear up to some three median sizes of the training set."""

    unit: Tensor
    constants = ("unit", "mean", "scale")

    def fit(self, x: Tensor) -> None:
        """Take the constants from (B, *shape)."""
        median = x.abs().median(dim=0).values
        self.unit.copy_(torch.where(median > 0, 3 * median, torch.ones_like(median)))
        self._standardise(self.transformed(x))

    def transformed(self, x: Tensor) -> Tensor:
        """asinh(x / unit)."""
        return torch.asinh(x.to(self.unit) / self.unit)


def nonzero_deviation(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute the standard deviation over axes, and put 1 where it is 0, so that a constant keeps its scale."""
    std = x.std(axes)
    lost = ~((std > _LOST) & (std < 1 / _LOST))
    if bool(lost.any()):
        # Squares of numbers this small or large are lost in float32; rounding must not count as a deviation.
        exact, mean = x.double().std(axes), x.double().mean(axes).abs()
        std = torch.where(lost, torch.where(exact > _ROUNDING * mean, exact, 0.0).to(std), std)
    return torch.where(std > 0, std, torch.ones_like(std))
