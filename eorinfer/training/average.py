"""A moving average of a network's weights in training."""

from collections.abc import Callable

import torch
from torch import Tensor


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Return an exponential average for `torch.optim.swa_utils.AveragedModel` that begins with a short memory.

    Parameters
    ----------
    decay
        Share of the average that stays at each step, in the end.
    """

    def update(averaged: Tensor, current: Tensor, number: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        return torch.lerp(current, averaged, kept_share(decay, float(number)))

    return update


def kept_share(decay: float, number: float) -> float:
    """Share of the average that step `number` keeps: little at first, so that the very first weights are forgotten."""
    return min(decay, (1 + number) / (10 + number))
