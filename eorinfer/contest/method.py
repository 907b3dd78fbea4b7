"""A method of a contest, and the setup that all methods share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.run.context import RunContext
from eorinfer.settings.contest import ContestSettings, MethodName
from simulators.base import fingerprint_of

LABELS: dict[MethodName, str] = {
    "ps-diagonal": "P(k), diagonal covariance",
    "ps-fixed": "P(k), fixed covariance",
    "ps-full": "P(k), covariance of θ",
    "ps-2d": "P(k⊥, k∥), covariance of θ",
    "ps-neural": "P(k), neural likelihood",
    "npe-power": "NPE on P(k)",
    "npe-image": "NPE on the image",
    "npe-both": "NPE on image and P(k)",
    "npe-scattering": "NPE on scattering coefficients",
    "regression": "CNN regression, Gaussian errors",
    "image-flow": "image flow",
    "exact": "exact likelihood",
    "exact-emcee": "exact likelihood, by emcee",
}
#: Names in hashes and folders that are older than those of the config.
ON_DISK: dict[MethodName, str] = {"image-flow": "field-flow"}
#: Amortised methods: a new observation costs no sampling.
AMORTISED: tuple[MethodName, ...] = ("npe-power", "npe-image", "npe-both", "npe-scattering", "regression")


@dataclass(frozen=True)
class ContestSetup:
    """Run and training rows that all methods share.

    Attributes
    ----------
    context
        Run of the contest: config, bank, survey, preprocessing of the networks' input.
    rows
        Training rows of all methods: valid rows of the first round.
    key
        Hash of all that a training on them depends on.
    power_spectrum
        Gives the run's Gaussian likelihood of P(k), which is trained at the first call.
    """

    context: RunContext
    rows: Rows
    key: str
    power_spectrum: Callable[[], PowerSpectrumLikelihood]

    @property
    def settings(self) -> ContestSettings:
        """Table ``[contest]``."""
        return self.context.config.tables.contest

    def folder(self, name: MethodName) -> Path:
        """Folder of what a method has trained."""
        return self.context.folder / "contest" / ON_DISK.get(name, name)

    def key_of(self, name: MethodName, **more: Any) -> str:
        """Hash all that a method depends on."""
        draws = self.context.config.tables.mcmc.draws
        return fingerprint_of({"run": self.key, "method": ON_DISK.get(name, name), "draws": draws} | more)


@dataclass(frozen=True)
class Method:
    """A trained method.

    Attributes
    ----------
    name
        Name as in the config.
    key
        Hash from `ContestSetup.key_of`.
    training_seconds
        Seconds of training by the clock; what two methods share counts for both.
    evaluate
        Gives posteriors of observed cubes (B, C, *cells), from their parameters (B, P), a number of samples and a seed.
    """

    name: MethodName
    key: str
    training_seconds: float
    evaluate: Callable[[Tensor, NDArray[np.float64], int, int], TruthPosteriors]

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return LABELS[self.name]

    def truths(self, settings: ContestSettings) -> int:
        """Number of truths that it is evaluated on."""
        if self.name == "image-flow":
            return min(settings.truths, settings.image_flow_truths)
        return settings.truths if self.name in AMORTISED else min(settings.truths, settings.sampled_truths)
