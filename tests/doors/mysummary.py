"""Summaries of one's own: a function of cubes, and a module that knows their cells."""

import torch
from torch import Tensor, nn

from simulators import Observable


def skewness(cubes: Tensor) -> Tensor:
    """(B, C, *cells) to (B, C): of either sign."""
    deviation = cubes - cubes.flatten(2).mean(-1).view(*cubes.shape[:2], *(1,) * (cubes.ndim - 2))
    variance = deviation.square().flatten(2).mean(-1)
    return deviation.pow(3).flatten(2).mean(-1) / variance.clamp_min(1e-12).pow(1.5)


class SmoothedVariance(nn.Module):
    """Variance of the cube averaged over blocks of 2 and 4 cells: never negative, so seen through its logarithm."""

    positive = True

    def __init__(self, observable: Observable) -> None:
        super().__init__()
        self.pools = [{2: nn.AvgPool2d, 3: nn.AvgPool3d}[len(observable.cells)](n) for n in (2, 4)]

    def forward(self, cubes: Tensor) -> Tensor:
        return torch.cat([pool(cubes).flatten(2).var(-1) for pool in self.pools], dim=1)
