"""Training of a diffusion: the loss of its denoiser, and the moving average of its weights that is kept."""

import copy
from typing import Any

import torch
from torch import Tensor

from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.task import ImageFlowTask

#: Share of the average that stays at each step, in the long run.
KEEP = 0.999


class DiffusionTask(ImageFlowTask):
    """Training of a diffusion on images without noise; parameters as of `ImageFlowTask`.

    The average of the weights over the last thousand steps or so has far less noise than the weights themselves.

    Attributes
    ----------
    average
        U-Net of averaged weights, which validates and is kept.
    """

    title = "error over the Wiener filter's"
    flow: DiffusionFlow
    steps: Tensor

    def __init__(self, flow: DiffusionFlow, *rest: Any, **more: Any) -> None:
        super().__init__(flow, *rest, **more)
        self.average = copy.deepcopy(flow.network).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Compute the errors of the denoiser over those of the Wiener filter (B,)."""
        y, images = self.signals(batch, generator)
        if not torch.is_grad_enabled():
            return self.flow.losses(images, y, generator, self.average)
        self._move_average()
        return self.flow.losses(images, y, generator)

    def finish(self) -> None:
        """Give the flow the averaged weights."""
        self.flow.network.load_state_dict(self.average.state_dict())

    @torch.no_grad()
    def _move_average(self) -> None:
        """Take the weights of the step before into the average."""
        keep = min(KEEP, float((1 + self.steps) / (10 + self.steps)))
        for mean, weight in zip(self.average.parameters(), self.flow.network.parameters(), strict=True):
            mean.lerp_(weight, 1 - keep)
        self.steps += 1
