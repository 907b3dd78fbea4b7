"""Embedding and posterior flow as one network."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.networks.density import build_flow
from eorinfer.networks.embedding import Embedding
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.truncated import E, TruncatedNormalMap
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.summaries.build import build_summary
from eorinfer.summaries.elements import Elements
from simulators import Observable
from simulators.parts import is_own, load_part

#: Draws from a prior that is not flat, by which a fresh network begins.
DRAWS = 4000


class PosteriorNetwork(ThetaDensity):
    """q(theta | x): features of x condition a flow over theta inside the prior's box.

    A truncated normal whose shape is linear in the features comes first; sbi's flow models
    what is left of it. A Gaussian likelihood under a flat or normal prior is met by the
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
    beside
        Folder of a user's own modules that they name.
    """

    bounded = True

    def __init__(
        self,
        prior: Prior,
        observable: Observable,
        embedding: EmbeddingSettings,
        flow: FlowSettings,
        power_spectrum: PowerSpectrumSettings,
        beside: Path | None = None,
    ) -> None:
        p = len(prior.parameters)
        network, features = build_embedding(p, observable, embedding, power_spectrum, beside)
        super().__init__(prior, network)
        self.normal = TruncatedNormalMap(features, p)
        self.flow = build_flow(flow, p, features, beside)
        if not prior.flat:
            # A fresh network is close to the prior, as one under a flat prior is.
            drawn = self.to_box(torch.from_numpy(prior.sample(DRAWS, np.random.default_rng(0))))
            self.normal.start_at(torch.from_numpy(prior.curved), drawn.mean(0), drawn.std(0))

    def log_ratio(self, theta: Tensor, features: Tensor) -> Tensor:
        """Log q - log of a flat density (n, B) float32, of theta (n, B, P) inside the box and features (B, F)."""
        z, log_det = self.normal(self.to_box(theta), features, self.widening)
        log_q: Tensor = self.flow.log_prob(z, condition=features) + log_det
        return log_q + theta.shape[-1] * math.log(2 * E)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """Draw theta (n, B, P) float64, given features (B, F) of several x; from torch's global random state."""
        z = self.flow.sample((n,), condition=features)
        return self.from_box(self.normal.inverse(z, features, self.widening))


def build_embedding(
    parameters: int,
    observable: Observable,
    settings: EmbeddingSettings,
    power_spectrum: PowerSpectrumSettings,
    beside: Path | None = None,
) -> tuple[Embedding, int]:
    """A fresh embedding, and the length of its features; that of data vectors sees their elements."""
    features = settings.features or max(8, 4 * parameters)
    bins = power_spectrum.model_copy(update={"bins": settings.bins})
    vectors = len(observable.cells) == 1
    names = [name for name in settings.all_summaries if is_own(name) or not vectors]
    summaries = {name: build_summary(name, observable, bins, beside) for name in names}
    network = None
    if settings.network and (settings.convolution or vectors):
        network = load_part(settings.network, beside).value(observable.shape, features, **(settings.options or {}))
    embedding = Embedding(
        observable.shape,
        features,
        summaries.pop("power", None),
        settings.width if settings.convolution and network is None and not vectors else None,
        observable.symmetry.periodic,
        settings.redshifts,
        summaries.pop("scattering", None),
        network,
        (*([Elements()] if vectors else []), *summaries.values()),
        power_spectrum.chunks,
    )
    return embedding, features
