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

    The prior is a standard normal in u, where the flow starts, and every u is a
    theta inside the box: no mass leaks out.

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
        build = posterior_nn(
            flow.kind,
            z_score_theta="none",
            z_score_x="none",
            hidden_features=list(flow.hidden),  # type: ignore[arg-type] # an int means something else
            num_transforms=flow.transforms,
        )
        self.flow = build(torch.zeros(2, p), torch.zeros(2, features))
        self.register_buffer("low", torch.tensor(prior.low))
        self.register_buffer("high", torch.tensor(prior.high))

    def loss(self, theta: Tensor, observed: Tensor) -> Tensor:
        """-log q(u | x) + log N(u), the loss up to a constant that no network changes.

        Zero for a network that returns the prior, so that its negative is the information gained.

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
        loss: Tensor = self.flow.loss(u, condition=self.embedding(observed))
        return loss + standard_normal(u)

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, P) float64, given the features (F,) of one x: (n,) float64."""
        u = self.normal(theta)
        inside = ((theta >= self.low) & (theta <= self.high)).all(-1)
        log_q = self.flow.log_prob(u[:, None], condition=features[None]).squeeze(1)
        log_prior = -torch.log(self.high - self.low).sum()
        return torch.where(inside, (log_q - standard_normal(u)).double() + log_prior, -torch.inf)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """(n, P) float64 draws, given the features (F,) of one x; from torch's global random state."""
        u = self.flow.sample((n,), condition=features[None]).squeeze(1).double()
        return self.low + (self.high - self.low) * torch.special.ndtr(u)

    def normal(self, theta: Tensor) -> Tensor:
        """u (B, P) float32 of theta (B, P) float64; the box's edges lie at about 5 sigma."""
        unit = (theta - self.low) / (self.high - self.low)
        return torch.special.ndtri(unit.clamp(1e-7, 1 - 1e-7)).float()


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
