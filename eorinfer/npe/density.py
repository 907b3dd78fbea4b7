"""Base of all densities of theta: the box that theta is in, and the loss; an ensemble of them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.arrays import from_symmetric, to_symmetric
from eorinfer.core.prior import Prior
from eorinfer.networks.embedding import Embedding
from eorinfer.npe.reference import Reference
from eorinfer.npe.truncated import E
from simulators import Observable


class ThetaDensity(nn.Module):
    """q(theta | x): an embedding reads features of x, and these condition a density of theta.

    A derived class gives `log_ratio` and `sample`, both for several x at once.

    Parameters
    ----------
    prior
        Box of P parameters.
    embedding
        Cubes (B, C, *cells) to features (B, F).

    Attributes
    ----------
    bounded
        True if no mass is outside the prior's box.
    widening
        Factor on all widths, 1 or larger, found after the training on rows that it did not see.
    """

    bounded: ClassVar[bool]
    low: Tensor
    high: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, prior: Prior, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.widening = 1.0
        low, high = prior.box
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        # The same in theta itself: not in the files, where the box is.
        self.register_buffer("lowest", torch.tensor(prior.low), persistent=False)
        self.register_buffer("highest", torch.tensor(prior.high), persistent=False)
        self._logarithmic = np.flatnonzero(prior.logarithmic).tolist()

    @abstractmethod
    def log_ratio(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log q - log of a flat density (n, B) float32, of theta (n, B, P) float64 and features (B, F) of several x.

        Both densities are of the prior's coordinates. Theta is inside the box if the density is `bounded`.
        """

    @abstractmethod
    def sample(self, n: int, features: Tensor) -> Tensor:
        """Draw theta (n, B, P) float64, given features (B, F) of several x; from torch's global random state."""

    def loss(self, theta: Tensor, observed: Tensor) -> Tensor:
        """-log q(theta | x) + log of a flat density: with a flat prior the information gained, negative.

        Parameters
        ----------
        theta
            (B, P) float64.
        observed
            (B, C, *cells).

        Returns
        -------
        Tensor
            (B,)
        """
        return -self.log_ratio(theta[None], self.embedding(observed))[0]

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density (n, B) float64, in theta (n, B, P) float64, given features (B, F) of several x."""
        log_volume = torch.log(self.high - self.low).sum()
        if self._logarithmic:
            log_volume = log_volume + torch.log(theta[..., self._logarithmic]).sum(-1)
        if not self.bounded:
            return self.log_ratio(theta, features).double() - log_volume
        inside = ((theta >= self.lowest) & (theta <= self.highest)).all(-1)
        log_ratio = self.log_ratio(torch.clamp(theta, self.lowest, self.highest), features).double()
        return torch.where(inside, log_ratio - log_volume, -torch.inf)

    def to_box(self, theta: Tensor) -> Tensor:
        """Scale theta (..., P) so that the prior's box is [-E, E], of unit variance where the prior is flat."""
        return to_symmetric(theta, self.low, self.high, self._logarithmic) * E

    def from_box(self, v: Tensor) -> Tensor:
        """Undo `to_box`: v (..., P) float64 to theta (..., P)."""
        return from_symmetric(v / E, self.low, self.high, self._logarithmic)


class Ensemble(Protocol):
    """The members of a posterior that batched draws, and the check of an observation, use."""

    @property
    def prior(self) -> Prior:
        """Box of theta."""

    @property
    def observable(self) -> Observable:
        """Shape, unit and axes of x."""

    @property
    def networks(self) -> Sequence[ThetaDensity]:
        """The members."""

    @property
    def regions(self) -> Sequence[Any]:
        """Truncations of the prior; empty without any."""

    @property
    def reference(self) -> Reference | None:
        """Statistics of simulations; None if they were not kept."""

    def read(self, observed: Tensor) -> list[Tensor]:
        """Compute the features (B, F) of each member from observed cubes (B, C, *cells)."""

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which theta (n, P) are inside the prior and every region: (n,)."""
