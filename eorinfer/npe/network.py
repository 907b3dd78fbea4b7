"""Embedding and posterior flow as one network."""

import math

import torch
from torch import Tensor, nn

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.networks.density import build_flow
from eorinfer.networks.embedding import Embedding
from eorinfer.npe.truncated import E, TruncatedNormalMap
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.summaries.power import build_power_spectrum
from eorinfer.summaries.scattering import Scattering
from simulators import Observable


class PosteriorNetwork(nn.Module):
    """q(theta | x): features of x condition a flow over theta inside the prior's box.

    A truncated normal whose shape is linear in the features comes first; sbi's flow models
    what is left of it. A Gaussian likelihood under a flat prior is met by the
    first alone, at the edges of the box too; no mass leaks out, and the tails are
    a normal's unless the data say otherwise.

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
        self.embedding, features = build_embedding(p, observable, embedding, power_spectrum)
        self.normal = TruncatedNormalMap(features, p)
        self.flow = build_flow(flow, p, features)
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
        return -self._log_ratio(theta[None], self.embedding(observed))[0]

    def log_prob_batch(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, B, P) float64, given the features (B, F) of several x: (n, B) float64."""
        inside = ((theta >= self.low) & (theta <= self.high)).all(-1)
        log_ratio = self._log_ratio(torch.clamp(theta, self.low, self.high), features).double()
        return torch.where(inside, log_ratio - torch.log(self.high - self.low).sum(), -torch.inf)

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log density in theta (n, P) float64, given the features (F,) of one x: (n,) float64."""
        return self.log_prob_batch(theta[:, None], features[None])[:, 0]

    def sample_batch(self, n: int, features: Tensor) -> Tensor:
        """(n, B, P) float64 draws, given the features (B, F) of several x; from torch's global random state."""
        v = self.normal.inverse(self.flow.sample((n,), condition=features), features)
        return self.low + (self.high - self.low) * (v / E + 1) / 2

    def sample(self, n: int, features: Tensor) -> Tensor:
        """(n, P) float64 draws, given the features (F,) of one x; from torch's global random state."""
        return self.sample_batch(n, features[None])[:, 0]

    def _log_ratio(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log q - log prior of theta (n, B, P) inside the box, given features (B, F): (n, B) float32."""
        v = (2 * (theta - self.low) / (self.high - self.low) - 1) * E
        z, log_det = self.normal(v, features)
        log_q: Tensor = self.flow.log_prob(z, condition=features) + log_det
        return log_q + theta.shape[-1] * math.log(2 * E)


def build_embedding(
    parameters: int, observable: Observable, settings: EmbeddingSettings, power_spectrum: PowerSpectrumSettings
) -> tuple[Embedding, int]:
    """A fresh embedding, and the length of its features."""
    features = settings.features or max(8, 4 * parameters)
    spectrum = power_spectrum.model_copy(update={"bins": settings.bins})
    embedding = Embedding(
        observable.shape,
        features,
        build_power_spectrum(observable, spectrum) if settings.power_spectrum else None,
        settings.width if settings.convolution else None,
        observable.symmetry.periodic,
        settings.redshifts,
        build_scattering(observable) if settings.scattering else None,
    )
    return embedding, features


def build_scattering(observable: Observable) -> nn.Module:
    """Scattering coefficients of an observable.

    Raises
    ------
    InputError
        If kymatio is not installed, or the maps are too small.
    """
    try:
        return Scattering(observable.cells, observable.symmetry.periodic)
    except ImportError as error:
        raise InputError("scattering coefficients need kymatio: pip install 'eorinfer[scattering]'") from error
    except ValueError as error:
        raise InputError(str(error)) from error
