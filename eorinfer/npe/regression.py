"""Regression with Gaussian errors: what the literature's CNNs give, as a posterior beside the flow's."""

import math

import torch
from torch import Tensor, nn

from eorinfer.core.prior import Prior
from eorinfer.npe.network import build_embedding
from eorinfer.npe.truncated import E
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings
from simulators import Observable


class RegressionNetwork(nn.Module):
    """q(theta | x), a Gaussian in theta itself, whose mean and full covariance are functions of the features of x.

    It knows nothing of the prior's edges: some of its mass may be outside. Used like `PosteriorNetwork`.

    Parameters
    ----------
    prior
        Prior whose box scales theta.
    observable, embedding, power_spectrum
        See `PosteriorNetwork`.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        prior: Prior,
        observable: Observable,
        embedding: EmbeddingSettings,
        power_spectrum: PowerSpectrumSettings,
    ) -> None:
        super().__init__()
        p = len(prior.parameters)
        self.embedding, features = build_embedding(p, observable, embedding, power_spectrum)
        self._rows, self._columns = torch.tril_indices(p, p, offset=-1)
        self.mean = nn.Linear(features, p)
        self.log_width = nn.Linear(features, p)
        self.below = nn.Linear(features, len(self._rows)) if p > 1 else None
        with torch.no_grad():
            for layer in (self.mean, self.log_width, self.below):
                if layer is not None:
                    layer.weight.zero_()
                    layer.bias.zero_()
        self.register_buffer("low", torch.tensor(prior.low))
        self.register_buffer("high", torch.tensor(prior.high))

    def loss(self, theta: Tensor, observed: Tensor) -> Tensor:
        """-log q(theta | x) + log prior, (B,), for theta (B, P) and cubes (B, C, *cells)."""
        return -self._log_ratio(theta[None], self.embedding(observed))[0]

    def log_prob_batch(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, B, P) float64, given the features (B, F) of several x: (n, B) float64."""
        return self._log_ratio(theta, features).double() - torch.log(self.high - self.low).sum()

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, P) float64, given the features (F,) of one x: (n,) float64."""
        return self.log_prob_batch(theta[:, None], features[None])[:, 0]

    def sample_batch(self, n: int, features: Tensor) -> Tensor:
        """(n, B, P) float64 draws, given the features (B, F) of several x; from torch's global random state."""
        mean, a = self._shape(features)
        white = torch.randn(n, *mean.shape).unsqueeze(-1)
        v = mean + torch.linalg.solve_triangular(a, white, upper=False).squeeze(-1)
        return self.low + (self.high - self.low) * (v.double() / E + 1) / 2

    def sample(self, n: int, features: Tensor) -> Tensor:
        """(n, P) float64 draws, given the features (F,) of one x; from torch's global random state."""
        return self.sample_batch(n, features[None])[:, 0]

    def _log_ratio(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log q - log prior of theta (n, B, P), given features (B, F): (n, B) float32."""
        v = ((2 * (theta - self.low) / (self.high - self.low) - 1) * E).float()
        mean, a = self._shape(features)
        white = (a @ (v - mean).unsqueeze(-1)).squeeze(-1)
        log_det = torch.log(torch.diagonal(a, dim1=-2, dim2=-1)).sum(-1)
        p = theta.shape[-1]
        log_q: Tensor = log_det - 0.5 * (white.square().sum(-1) + p * math.log(2 * math.pi))
        return log_q + p * math.log(2 * E)

    def _shape(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, P) and lower triangular A (B, P, P), in units of the prior: covariance (A^T A)^-1."""
        a = torch.diag_embed(torch.exp(-self.log_width(features)))
        if self.below is not None:
            a[:, self._rows, self._columns] = self.below(features)
        return self.mean(features), a
