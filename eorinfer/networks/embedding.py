"""What turns an observed cube into features for the posterior flow: a CNN and the power spectrum."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedding(nn.Module):
    """Features of an observed cube, from its convolutions, its power spectrum, or both.

    Neither branch normalises a single cube: the amplitude of a field is information.

    Parameters
    ----------
    shape
        (C, *cells) of the cube, 2D or 3D.
    features
        Length of the result.
    power_spectrum
        Module that maps (B, C, *cells) to (B, C, K), or None to leave that branch out.
    width
        Channels of the CNN's first stage, or None to leave that branch out.
    periodic
        For each cell axis, whether convolutions wrap around.
    redshifts
        Whether the C channels enter one CNN together, or each by itself.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        features: int,
        power_spectrum: nn.Module | None,
        width: int | None,
        periodic: tuple[bool, ...],
        redshifts: Literal["channels", "volumes"] = "channels",
    ) -> None:
        super().__init__()
        if power_spectrum is None and width is None:
            raise ValueError("an embedding needs convolutions, the power spectrum, or both")
        channels = shape[0]
        length = 0
        self.scaling = ImageScaling(channels, len(shape) - 1)
        self.spectrum = power_spectrum
        if power_spectrum is not None:
            k = power_spectrum(torch.zeros(1, *shape)).shape[-1]
            self.spectrum_scaling = LogScaling((channels, k))
            length += channels * k
        self.cnn = None
        self.volumes = redshifts == "volumes"
        if width is not None:
            inputs = 1 if self.volumes else channels
            self.cnn = ConvolutionalNetwork(inputs, shape[1:], width, periodic)
            length += self.cnn.features * (channels if self.volumes else 1)
        self.head = nn.Sequential(
            nn.Linear(length, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, features)
        )

    @torch.no_grad()
    def fit_scaling(self, observed: Tensor) -> None:
        """Set the scalings from a sample of observed cubes (B, C, *cells)."""
        self.scaling.fit(observed)
        if self.spectrum is not None:
            self.spectrum_scaling.fit(self.spectrum(observed))

    def forward(self, observed: Tensor) -> Tensor:
        """(B, C, *cells) to (B, features)."""
        parts = []
        if self.spectrum is not None:
            parts.append(self.spectrum_scaling(self.spectrum(observed)).flatten(1))
        if self.cnn is not None:
            scaled = self.scaling(observed)
            if self.volumes:
                each = self.cnn(scaled.flatten(0, 1).unsqueeze(1))
                parts.append(each.reshape(len(scaled), -1))
            else:
                parts.append(self.cnn(scaled))
        return self.head(torch.cat(parts, dim=1))


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
        """Take mean and standard deviation of (B, C, *cells); a constant channel keeps scale 1."""
        axes = (0, *range(2, x.ndim))
        self.mean.copy_(x.mean(axes).view_as(self.mean))
        std = x.std(axes).view_as(self.scale)
        self.scale.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *cells) to the same."""
        return (x - self.mean) / self.scale


class LogScaling(nn.Module):
    """Standardised logarithm of positive numbers that may be exactly zero.

    log(x + floor), the floor at a thousandth of the training set's median:
    an empty box has no power at all.
    """

    floor: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("floor", torch.ones(shape))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, x: Tensor) -> None:
        """Take the constants from (B, *shape)."""
        positive = torch.where(x > 0, x, torch.full_like(x, torch.nan))
        median = positive.nanmedian(dim=0).values
        self.floor.copy_(torch.where(median.isfinite(), 1e-3 * median, torch.ones_like(median)))
        logs = torch.log(x.to(self.floor) + self.floor)
        self.mean.copy_(logs.mean(0))
        std = logs.std(0)
        self.scale.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) to the same."""
        return (torch.log(x.to(self.floor) + self.floor) - self.mean) / self.scale


class ConvolutionalNetwork(nn.Module):
    """Residual CNN for 2D and 3D cubes.

    Each stage halves the cube by a convolution of stride 2 and doubles the
    channels, until 4 cells or fewer are left along the shortest side. All but the
    first, where most of the computing would be, add a residual block. The means over
    cells after every stage are the result.

    Parameters
    ----------
    inputs
        Channels of the cube.
    cells
        Its shape.
    width
        Channels after the first stage; at most 8 times that later.
    periodic
        For each cell axis, whether convolutions wrap around.
    """

    def __init__(self, inputs: int, cells: tuple[int, ...], width: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels, shortest, last = width, min(cells), inputs
        while True:
            stages.append(Stage(last, channels, len(cells), periodic, residual=bool(stages)))
            last, shortest = channels, -(-shortest // 2)
            if shortest <= 4:
                break
            channels = min(2 * channels, 8 * width)
        self.stages = nn.ModuleList(stages)
        self.features = sum(stage.channels for stage in self.stages)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *cells) to (B, features): means over cells of every stage's maps."""
        means = []
        for stage in self.stages:
            x = stage(x)
            means.append(x.flatten(2).mean(-1))
        return torch.cat(means, dim=1)


class Stage(nn.Module):
    """A convolution of stride 2, then perhaps a residual block that starts as the identity."""

    def __init__(self, inputs: int, channels: int, dimension: int, periodic: tuple[bool, ...], residual: bool) -> None:
        super().__init__()
        self.channels = channels
        self.down = Convolution(inputs, channels, dimension, periodic, stride=2)
        self.residual = residual
        if not residual:
            return
        self.first = Convolution(channels, channels, dimension, periodic)
        self.second = Convolution(channels, channels, dimension, periodic)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *cells) to (B, channels, *half the cells)."""
        x = F.silu(self.down(x))
        if not self.residual:
            return x
        return x + self.gain * self.second(F.silu(self.first(F.silu(x))))


class Convolution(nn.Module):
    """Kernel of 3 with periodic padding along some axes and reflection along the others."""

    def __init__(self, inputs: int, outputs: int, dimension: int, periodic: tuple[bool, ...], stride: int = 1) -> None:
        super().__init__()
        cls = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.convolution = cls(inputs, outputs, kernel_size=3, stride=stride)
        # F.pad counts axes from the last to the first
        ones = [1 if p else 0 for p in reversed(periodic) for _ in range(2)]
        self.wrap = tuple(ones)
        self.mirror = tuple(1 - one for one in ones)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *cells) to (B, outputs, *cells / stride)."""
        if any(self.wrap):
            x = F.pad(x, self.wrap, mode="circular")
        if any(self.mirror):
            x = F.pad(x, self.mirror, mode="reflect")
        return self.convolution(x)
