"""A method that takes part, and the ground that all of them stand on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.likelihood.answers import Answers
from eorinfer.run.truths import Parts
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
    "field-flow": "field flow",
    "exact": "exact likelihood",
    "exact-emcee": "exact likelihood, by emcee",
}
#: What gives posteriors at once, whatever is observed.
AMORTISED: tuple[MethodName, ...] = ("npe-power", "npe-image", "npe-both", "npe-scattering", "regression")


@dataclass(frozen=True)
class ContestSetup:
    """The same for every method.

    Attributes
    ----------
    parts
        Of the run: config, bank, survey.
    rows
        What all are trained on: valid rows of the prior's round.
    key
        Hash of all that a training on them depends on.
    preprocessing
        Of the run; for networks alone.
    power_spectrum
        The run's Gaussian likelihood of P(k), trained when it is first asked for.
    """

    parts: Parts
    rows: Rows
    key: str
    preprocessing: Any
    power_spectrum: Callable[[], Any]

    @property
    def settings(self) -> ContestSettings:
        """``[contest]``."""
        return self.parts.config.tables.contest

    def folder(self, name: MethodName) -> Path:
        """Where a method keeps what it has trained."""
        return self.parts.out / "contest" / name

    def key_of(self, name: MethodName, **more: Any) -> str:
        """Hash of all that a method depends on."""
        return fingerprint_of({"run": self.key, "method": name, "draws": self.parts.config.tables.mcmc.draws} | more)


@dataclass(frozen=True)
class Method:
    """A method, trained.

    Attributes
    ----------
    name
        As in the config.
    key
        Of `ContestSetup.key_of`.
    training_seconds
        By the clock; what two methods share counts for both.
    ask
        From observed cubes (B, C, *cells), their parameters (B, P), how many samples and a seed to answers.
    """

    name: MethodName
    key: str
    training_seconds: float
    ask: Callable[[Tensor, NDArray[np.float64], int, int], Answers]

    @property
    def label(self) -> str:
        """For tables and legends."""
        return LABELS[self.name]

    def truths(self, settings: ContestSettings) -> int:
        """How many it is asked about."""
        if self.name == "field-flow":
            return min(settings.truths, settings.field_truths)
        return settings.truths if self.name in AMORTISED else min(settings.truths, settings.sampled_truths)
