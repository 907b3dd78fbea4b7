"""The training task of NPE: a posterior network with the survey and the symmetries that it is trained through."""

import torch
from torch import Tensor, nn

from eorinfer.core.prior import Prior
from eorinfer.npe.atomic import atomic_loss
from eorinfer.npe.density import ThetaDensity
from eorinfer.separation.preprocessing import LineSeparation
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from simulators import Symmetry


class PosteriorTask(nn.Module):
    """A posterior network with the survey and the symmetries that it is trained through.

    With `atoms` the loss is the atomic one, for theta that is drawn from another distribution than the `prior`; without
    one this is flat.
    """

    #: Nats that features pay for a discrepancy between worlds, in `eorinfer.npe.aligned`.
    strength: float = 0.0

    def __init__(
        self,
        network: ThetaDensity,
        survey: Survey,
        symmetry: Symmetry,
        atoms: int | None = None,
        preprocessing: LineSeparation | None = None,
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        self.network, self.survey, self.symmetry, self.atoms = network, survey, symmetry, atoms
        self.preprocessing, self.prior = preprocessing, prior

    def observe(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Transform clean cubes (B, C, *cells) and observe them with fresh noise."""
        observed: Tensor = self.survey(augment(clean, self.symmetry, generator), generator)
        return observed if self.preprocessing is None else self.preprocessing(observed)

    def features(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Features (B, F) of clean cubes (B, C, *cells), observed anew."""
        features: Tensor = self.network.embedding(self.observe(rows, generator))
        return features

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """-log q(theta | x) + log of a flat density, or the atomic loss, (B,), for theta (B, P) and clean cubes."""
        theta, rows = batch
        features = self.features(rows, generator)
        if self.atoms is None:
            return -self.network.log_ratio(theta[None], features)[0]
        return atomic_loss(lambda t: self.network.log_prob(t, features), theta, self._log_prior, self.atoms, generator)

    def _log_prior(self, theta: Tensor) -> Tensor:
        """Log prior (M, B) of theta (M, B, P), up to a constant, which cancels among the candidates."""
        if self.prior is None or self.prior.flat:
            return theta.new_zeros(())
        flat = theta.detach().cpu().flatten(0, 1).numpy()
        return torch.from_numpy(self.prior.log_relative(flat)).view(theta.shape[:2]).to(theta)
