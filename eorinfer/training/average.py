"""A moving average of a network's weights in training."""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaging(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the ``multi_avg_fn`` of `torch.optim.swa_utils.AveragedModel`: an average that begins with a short memory.

    Parameters
    ----------
    decay
        Share of the average that stays at each step, in the end.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, number: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - kept_share(decay, float(number)))
        else:
            torch._foreach_copy_(averaged, current)

    return update


def kept_share(decay: float, number: float) -> float:
    """Share of the average that step `number` keeps: little at first, so that the very first weights are forgotten."""
    return min(decay, (1 + number) / (10 + number))
