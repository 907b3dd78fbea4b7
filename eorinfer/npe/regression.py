"""Regression with Gaussian errors: what the literature's CNNs give, as a posterior beside the flow's."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from eorinfer.core.prior import Prior
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.network import build_embedding
from eorinfer.npe.truncated import E
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings
from simulators import Observable


class RegressionNetwork(ThetaDensity):
    """q(theta | x), a Gaussian in theta itself, whose mean and full covariance are functions of the features of x.

    It knows nothing of the prior's edges: some of its mass may be outside.

    Parameters
    ----------
    prior
        Prior whose ranges scale theta.
    observable, embedding, power_spectrum, beside
        See `PosteriorNetwork`.
    """

    bounded = False

    def __init__(
        self,
        prior: Prior,
        observable: Observable,
        embedding: EmbeddingSettings,
        power_spectrum: PowerSpectrumSettings,
        beside: Path | None = None,
    ) -> None:
        p = len(prior.parameters)
        network, features = build_embedding(p, observable, embedding, power_spectrum, beside)
        super().__init__(prior.flattened(), network)  # a Gaussian in theta, whatever the prior
        self._rows, self._columns = torch.tril_indices(p, p, offset=-1)
        self.mean = nn.Linear(features, p)
        self.log_width = nn.Linear(features, p)
        self.below = nn.Linear(features, len(self._rows)) if p > 1 else None
        with torch.no_grad():
            for layer in (self.mean, self.log_width, self.below):
                if layer is not None:
                    layer.weight.zero_()
                    layer.bias.zero_()

    def log_ratio(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log q - log of a flat density (n, B) float32, of theta (n, B, P) and features (B, F)."""
        v = self.to_box(theta).float()
        mean, a = self._shape(features)
        white = (a @ (v - mean).unsqueeze(-1)).squeeze(-1)
        log_det = torch.log(torch.diagonal(a, dim1=-2, dim2=-1)).sum(-1)
        p = theta.shape[-1]
        log_q: Tensor = log_det - 0.5 * (white.square().sum(-1) + p * math.log(2 * math.pi))
        return log_q + p * math.log(2 * E)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """Draw theta (n, B, P) float64, given features (B, F) of several x; from torch's global random state."""
        mean, a = self._shape(features)
        white = torch.randn(n, *mean.shape).unsqueeze(-1)
        v = mean + torch.linalg.solve_triangular(a, white, upper=False).squeeze(-1)
        return self.from_box(v.double())

    def _shape(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, P) and lower triangular A (B, P, P) of the box [-E, E], with covariance (A^T A)^-1."""
        a = torch.diag_embed(torch.exp(-self.log_width(features)))
        if self.below is not None:
            a[:, self._rows, self._columns] = self.below(features)
        return self.mean(features), a / self.widening
