"""Tasks of training: batches of clean cubes and conditions through augmentation and survey to a flow's loss."""

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import white_noise
from eorinfer.imageflow.density import ImageDensity
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import dequantised
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.data import Batches, Cubes
from simulators import Symmetry

#: Limits of the scale of the discriminative loss's candidates, in units of the conditions' range.
NEAREST, FARTHEST = 0.02, 1.0


class Conditioned(Batches):
    """Rows of a bank with their conditions.

    Parameters
    ----------
    cubes
        Clean cubes.
    y
        (n, S, P) conditions, of the whole image (S = 1) or of each of its slices, as `row_conditions` reads them.
    """

    def __init__(self, cubes: Cubes, y: Tensor) -> None:
        self._cubes, self.y = cubes, y
        self.slow = cubes.slow

    def __len__(self) -> int:
        return len(self.y)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Read conditions (B, S, P) and clean cubes (B, C, *cells)."""
        return self.y[indices], self._cubes.__getitems__(indices)[1]

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        return self._cubes.row_names(indices)


class ImageFlowTask(nn.Module):
    """Training of a flow through augmentation, survey and dequantisation.

    Parameters
    ----------
    flow, survey, symmetry
        Flow to train, survey that observes clean cubes, and symmetry of these.
    sigma
        Standard deviation of the dequantisation, in the unit of the images.
    candidates
        Number of conditions among which the loss seeks the right one; None for the density of the image.
    slice_first
        Whether slices are taken before augmentation and survey, with the symmetry of a slice, or after.
    axes
        Number of axes, from the last one on, across which slices are taken.
    """

    #: Loss in words.
    title = "-ln p(x|y) per cell"

    def __init__(
        self,
        flow: ImageDensity,
        survey: Survey,
        symmetry: Symmetry,
        sigma: float,
        candidates: int | None = None,
        *,
        slice_first: bool = False,
        axes: int = 1,
    ) -> None:
        super().__init__()
        self.flow, self.survey, self.symmetry, self.sigma, self.candidates = flow, survey, symmetry, sigma, candidates
        self.slice_first, self.axes = slice_first, axes

    def observe(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Observe a batch of clean cubes: conditions (B, P) and images of the flow's shape."""
        y, images = self.signals(batch, generator)
        return y, dequantised(images, self.sigma, generator)

    def signals(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Observe a batch as `observe` does, without the dequantisation."""
        y, images = batch
        if self.slice_first:
            y, images = self._one_of_each(y, images, generator)
        images = self.survey(augment(images, self.symmetry, generator), generator)
        y, images = self._one_of_each(y, images, generator)
        return y[:, 0], images

    def _one_of_each(self, y: Tensor, cubes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Take a random slice of each cube with its condition; leave cubes alone where the flow is one on cubes."""
        if cubes.ndim - 1 == len(self.flow.shape):
            return y, cubes
        n, places, device = len(y), cubes.shape[-1], generator.device
        chosen = torch.randint(places, (n,), generator=generator, device=device).to(y.device)
        axis = torch.zeros_like(chosen)
        if self.axes > 1:
            axis = torch.randint(self.axes, (n,), generator=generator, device=device).to(y.device)
        slices = cubes.new_empty(n, *self.flow.shape)
        for a in range(self.axes):
            rows = torch.nonzero(axis == a)[:, 0]
            slices[rows] = cubes[rows].movedim(-1 - a, 1)[torch.arange(len(rows), device=rows.device), chosen[rows]]
        number = axis * places + chosen if y.shape[1] > 1 else torch.zeros_like(chosen)
        return y[torch.arange(n, device=y.device), number][:, None], slices

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Compute the losses (B,): -ln p(x | y) in nats per cell, or -ln p(y | x) in nats."""
        y, images = self.observe(batch, generator)
        if self.candidates is None:
            return -self.flow.log_prob(images, y).float() / images[0].numel()
        candidates = near_candidates(y, self.flow.low, self.flow.high, self.candidates, generator)
        inside = ((candidates >= self.flow.low) & (candidates <= self.flow.high)).all(-1)
        inside[:, 0] = True
        # A flow far outside of its conditions may not be finite, and an infinity that is masked still has a gradient.
        candidates = torch.where(inside[..., None], candidates, y[:, None])
        repeated = images.repeat_interleave(self.candidates, dim=0)
        log_p = self.flow.log_prob(repeated, candidates.flatten(0, 1)).view(len(y), -1)
        return (torch.logsumexp(log_p.masked_fill(~inside, -torch.inf), dim=1) - log_p[:, 0]).float()


class DiffusionTask(ImageFlowTask):
    """Training of a diffusion's denoiser on images without noise; parameters as of `ImageFlowTask`."""

    title = "error over the Wiener filter's"
    flow: DiffusionFlow

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Compute the errors of the denoiser over those of the Wiener filter (B,)."""
        y, images = self.signals(batch, generator)
        return self.flow.losses(images, y, generator)


def near_candidates(y: Tensor, low: Tensor, high: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw candidates (B, n, P): y (B, P) first, then n - 1 conditions near it.

    All are draws around one centre, which is itself drawn around y. So each of them might have been the first, and
    only p(x | y) and the prior tell which is the more probable. Uniform draws would soon be told apart without effort.
    The scale is drawn anew for each row.
    """
    noise = white_noise(y, generator, (len(y), n, y.shape[1]))
    scale = torch.rand(len(y), generator=generator, device=generator.device, dtype=y.dtype).to(y.device)
    width = (NEAREST * (FARTHEST / NEAREST) ** scale)[:, None] * (high - low)
    centre = y + width * noise[:, 0]
    return torch.cat([y[:, None], centre[:, None] + width[:, None] * noise[:, 1:]], dim=1)
