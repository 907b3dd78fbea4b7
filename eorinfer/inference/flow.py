"""Embedding and posterior flow as one network; the one module that builds sbi's estimators."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.neural_nets import posterior_nn
from torch import Tensor, nn

from eorinfer.inference.settings import EmbeddingSettings, FlowSettings, PowerSpectrumSettings
from eorinfer.networks.embedding import Embedding
from eorinfer.prior import Prior
from eorinfer.summaries.power import PowerSpectrum, default_edges
from simulators import Observable


class PosteriorNetwork(nn.Module):
    """q(theta | x): features of x condition a flow over u, the probit of theta in the prior's box.

    The prior is a standard normal in u, where the network starts, and every u is a theta
    inside the box: no mass leaks out. An affine map that the features give takes u to
    z = A (u - m) before the spline flow sees it. Without it the splines, which are the
    identity beyond a fixed interval, have to squeeze a narrow posterior together by
    stretching its tails over the whole prior.

    Parameters
    ----------
    prior
        Box of P parameters.
    observable
        The image.
    embedding, flow, power_spectrum
        Tables of the config.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        prior: Prior,
        observable: Observable,
        embedding: EmbeddingSettings,
        flow: FlowSettings,
        power_spectrum: PowerSpectrumSettings,
    ) -> None:
        super().__init__()
        p = len(prior.parameters)
        features = embedding.features or max(8, 4 * p)
        self.embedding = Embedding(
            observable.shape,
            features,
            build_power_spectrum(observable, power_spectrum) if embedding.power_spectrum else None,
            embedding.width if embedding.convolution else None,
            observable.symmetry.periodic,
            embedding.redshifts,
        )
        self.affine = ConditionalAffine(features, p)
        build = posterior_nn(
            flow.kind,
            z_score_theta="none",
            z_score_x="none",
            hidden_features=list(flow.hidden),  # an int means something else
            num_transforms=flow.transforms,
        )
        self.flow = build(torch.zeros(2, p), torch.zeros(2, features))
        self.register_buffer("low", torch.tensor(prior.low))
        self.register_buffer("high", torch.tensor(prior.high))

    def loss(self, theta: Tensor, observed: Tensor) -> Tensor:
        """-log q(theta | x) + log prior: the information gained, negative.

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
        u = self.normal(theta)
        features = self.embedding(observed)
        z, log_det = self.affine(u, features)
        loss: Tensor = self.flow.loss(z, condition=features)
        return loss - log_det + standard_normal(u)

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, P) float64, given the features (F,) of one x: (n,) float64."""
        u = self.normal(theta)
        inside = ((theta >= self.low) & (theta <= self.high)).all(-1)
        z, log_det = self.affine(u, features[None])
        log_q = self.flow.log_prob(z[:, None], condition=features[None]).squeeze(1) + log_det
        log_prior = -torch.log(self.high - self.low).sum()
        return torch.where(inside, (log_q - standard_normal(u)).double() + log_prior, -torch.inf)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """(n, P) float64 draws, given the features (F,) of one x; from torch's global random state."""
        z = self.flow.sample((n,), condition=features[None]).squeeze(1)
        u = self.affine.inverse(z, features[None]).double()
        return self.low + (self.high - self.low) * torch.special.ndtr(u)

    def normal(self, theta: Tensor) -> Tensor:
        """U (B, P) float32 of theta (B, P) float64; the box's edges lie at about 5 sigma."""
        unit = (theta - self.low) / (self.high - self.low)
        return torch.special.ndtri(unit.clamp(1e-7, 1 - 1e-7)).float()


class ConditionalAffine(nn.Module):
    """z = A (u - m), with m and the lower triangular A > 0 linear in the features; at first the identity.

    Parameters
    ----------
    features
        Length of the condition.
    parameters
        Length P of u.
    """

    def __init__(self, features: int, parameters: int) -> None:
        super().__init__()
        self._rows, self._columns = torch.tril_indices(parameters, parameters, offset=-1)
        self.mean = nn.Linear(features, parameters)
        self.log_diagonal = nn.Linear(features, parameters)
        self.below = nn.Linear(features, len(self._rows)) if parameters > 1 else None
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, u: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """U (n, P) and features (n or 1, F) to z (n, P) and log det A (n or 1,)."""
        a = self._factor(features)
        z = (a @ (u - self.mean(features)).unsqueeze(-1)).squeeze(-1)
        return z, torch.diagonal(a, dim1=-2, dim2=-1).log().sum(-1)

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        """Z (n, P) and features (n or 1, F) to u (n, P)."""
        a = self._factor(features)
        u = torch.linalg.solve_triangular(a, z.unsqueeze(-1), upper=False).squeeze(-1)
        return u + self.mean(features)

    def _factor(self, features: Tensor) -> Tensor:
        # Bounded: a posterior a thousandth of the prior's width is beyond what float32 resolves well.
        a = torch.diag_embed(torch.exp(7.0 * torch.tanh(self.log_diagonal(features) / 7.0)))
        if self.below is not None:
            a[:, self._rows, self._columns] = self.below(features)
        return a


def build_power_spectrum(observable: Observable, settings: PowerSpectrumSettings) -> PowerSpectrum:
    """The P(k) bins that a config describes, for an observable."""
    edges = default_edges(observable.cells, observable.box_length, settings.bins, settings.k_max)
    return PowerSpectrum(observable.cells, observable.box_length, edges.tolist())


def standard_normal(u: Tensor) -> Tensor:
    """Log density of u (..., P) under the standard normal: (...)."""
    return -0.5 * (u.square().sum(-1) + u.shape[-1] * math.log(2 * math.pi))


def as_theta(theta: NDArray[np.float64]) -> Tensor:
    """(n, P) as a float64 tensor."""
    return torch.as_tensor(np.ascontiguousarray(theta), dtype=torch.float64)
