"""A method of a contest, and the setup that all methods share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import InputError
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.run.config import Config
from eorinfer.run.context import RunContext
from eorinfer.settings.contest import METHODS, ContestSettings, MethodName, MethodRow
from simulators.base import fingerprint_of
from simulators.parts import is_own, load_part

#: Names in hashes and folders that are older than those of the config, or that a run's own chain does not have.
ON_DISK: dict[MethodName, str] = {"image-flow": "field-flow", "combined": "npe-and-field-flow"}


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
        return self.context.folder / "contest" / ON_DISK.get(name, name).replace(":", "-")

    def key_of(self, name: MethodName, **more: Any) -> str:
        """Hash all that a method depends on."""
        draws = self.context.config.tables.mcmc.draws
        return fingerprint_of({"run": self.key, "method": ON_DISK.get(name, name), "draws": draws} | more)


def stored_name(name: MethodName, number: int) -> str:
    """Name the folder of a method's first or later training."""
    return name if number == 1 else f"{name}-seed-{number}"


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
    own_row
        Row of a user's own method, which is not in the table.
    number
        Number of the training, from 1: a network may be trained several times, with other seeds.
    """

    name: MethodName
    key: str
    training_seconds: float
    evaluate: Callable[[Tensor, NDArray[np.float64], int, int], TruthPosteriors]
    own_row: MethodRow | None = None
    number: int = 1

    @property
    def stored(self) -> str:
        """Name of its folder in ``contest/``."""
        return stored_name(self.name, self.number)

    @property
    def row(self) -> MethodRow:
        """Row of the table of methods."""
        return self.own_row or METHODS[self.name]

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return self.row.label

    def truths(self, settings: ContestSettings) -> int:
        """Number of truths that it is evaluated on."""
        return min(settings.truths, getattr(settings, self.row.truths))


class OwnMethod(ABC):
    """Base of a user's own method, ``[contest] methods = ["module:Class"]``.

    Parameters
    ----------
    setup
        Run and training rows; what is trained is kept in ``setup.folder(name)``.
    name
        The name ``"module:Class"``.
    """

    #: Name in tables and legends.
    label: ClassVar[str] = "own method"
    #: Whether a new observation costs no sampling; other methods see `sampled_truths` alone.
    amortised: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, setup: ContestSetup, name: MethodName) -> None:
        """Train, or load."""

    @abstractmethod
    def evaluate(self, observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> TruthPosteriors:
        """Give posteriors of observed cubes (B, C, *cells), n samples each; theta (B, P) are the true parameters."""


def build_method(setup: ContestSetup, name: MethodName) -> Method:
    """Train a method, or load it where it is kept."""
    if is_own(name):
        return _own_method(setup, name)
    module, _, function = METHODS[name].build.partition(":")
    method: Method = getattr(import_module(module), function)(setup, name)
    return method


def check_own_methods(config: Config) -> None:
    """Refuse classes that are no method, before anything is trained.

    Raises
    ------
    InputError
        Saying which members lack, and what to derive the class from.
    """
    for name in filter(is_own, config.tables.contest.methods):
        value, where = load_part(name, config.modules).value, f'{config.file}: [contest] methods: "{name}"'
        if not (isinstance(value, type) and issubclass(value, OwnMethod)):
            raise InputError(f"{where} is no method: derive it from eorinfer.contest.method.OwnMethod")
        if missing := sorted(value.__abstractmethods__):
            raise InputError(f"{where} has no {', '.join(missing)}; eorinfer.contest.method.OwnMethod asks for it")


def _own_method(setup: ContestSetup, name: MethodName) -> Method:
    part = load_part(name, setup.context.config.modules)
    start = time.monotonic()
    made: OwnMethod = part.value(setup, name)
    row = MethodRow(name, made.label, "truths" if made.amortised else "sampled_truths", name)
    key = setup.key_of(name, source=part.digest)
    return Method(name, key, time.monotonic() - start, made.evaluate, row)
