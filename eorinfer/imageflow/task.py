"""Tasks of training: batches of clean cubes and conditions through augmentation and survey to a flow's loss."""

import torch
from torch import Tensor, nn

from eorinfer.imageflow.density import ImageDensity
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import dequantised
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.data import Batches, Cubes
from simulators import Symmetry


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
        *,
        slice_first: bool = False,
        axes: int = 1,
    ) -> None:
        super().__init__()
        self.flow, self.survey, self.symmetry, self.sigma = flow, survey, symmetry, sigma
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
        """Compute the losses (B,): -ln p(x | y) in nats per cell."""
        y, images = self.observe(batch, generator)
        return -self.flow.log_prob(images, y).float() / images[0].numel()


class DiffusionTask(ImageFlowTask):
    """Training of a diffusion's denoiser on images without noise; parameters as of `ImageFlowTask`."""

    title = "error over that expected of a Wiener filter"
    flow: DiffusionFlow

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Compute the errors of the denoiser over those of the Wiener filter (B,)."""
        y, images = self.signals(batch, generator)
        return self.flow.losses(images, y, generator)
