"""A survey without some of its cells: masked ones are 0 in every simulation, as in the observation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.survey.base import Survey


class MaskedSurvey(Survey):
    """Observe, then set masked cells to 0.

    Parameters
    ----------
    survey
        Survey of all cells.
    mask
        (C, *cells) of bool, true in cells that are left out.
    """

    _mask: Tensor

    def __init__(self, survey: Survey, mask: NDArray[np.bool_]) -> None:
        super().__init__()
        self.survey = survey
        self.register_buffer("_mask", torch.from_numpy(np.ascontiguousarray(mask)), persistent=False)

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe clean cubes, with shape (B, C, *cells)."""
        observed: Tensor = self.survey(clean, generator)
        return observed.masked_fill(self._mask, 0.0)
