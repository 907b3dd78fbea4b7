"""Base of the surveys on torch: clean cubes and a generator in, observed cubes out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Survey(nn.Module, ABC):
    """Module that observes clean cubes as a telescope does.

    Implementations take all their randomness from the generator that they are given, so that
    one seed always gives one noise realisation.
    """

    @abstractmethod
    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe a batch.

        Parameters
        ----------
        clean
            Clean cubes, with shape (B, C, *cells).
        generator
            Source of the noise; it may live on another device than `clean`.

        Returns
        -------
        Tensor
            Observed cubes of the same shape, unit, dtype and device.
        """


class Identity(Survey):
    """Observe the clean cube itself, without noise."""

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Return `clean`, with shape (B, C, *cells), and leave the generator alone."""
        return clean
