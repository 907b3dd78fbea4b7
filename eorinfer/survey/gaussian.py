"""White Gaussian noise: the survey for which exact posteriors are known."""

import torch
from torch import Tensor

from eorinfer.core.arrays import white_noise
from eorinfer.survey.base import Survey


class WhiteNoiseSurvey(Survey):
    """Add independent Gaussian noise to every cell.

    Parameters
    ----------
    sigma
        Standard deviation per cell, in the unit of the cubes.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe clean cubes, with shape (B, C, *cells)."""
        return clean + self.sigma * white_noise(clean, generator)
