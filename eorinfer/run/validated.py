"""What is put to the test by ``validate``, whatever gives its posteriors, and what it says of the truths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import InputError
from eorinfer.core.observation import Observation
from eorinfer.core.prior import Prior
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.npe.batched import draw, log_density
from eorinfer.npe.check import check_observation
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import Config
from eorinfer.run.truths import Parts, find_truths
from eorinfer.validation.check import Check


@dataclass(frozen=True)
class Asked:
    """Posteriors of B observations whose parameters are known.

    Attributes
    ----------
    theta
        (B, P) those parameters.
    values
        (B, n, P) samples.
    at_truth, at_samples
        (B,) and (B, n): log density, normalised over the whole prior.
    share, pooled
        (B,) as in `eorinfer.npe.batched.Draws`, for a truncated prior.
    volume
        Share of the prior that truths were drawn from.
    std
        (P,) standard deviations of what they were drawn from.
    cubes
        (T, C, *cells): the first observations, to compare widths with.
    checks
        Whether the observations are unlike the simulations; empty where nothing can say.
    source
        In words.
    left_out
        Truths whose posterior could not be relied on.
    """

    theta: NDArray[np.float64]
    values: NDArray[np.float64]
    at_truth: NDArray[np.float64]
    at_samples: NDArray[np.float64]
    share: NDArray[np.float64]
    pooled: NDArray[np.bool_]
    volume: float
    std: NDArray[np.float64]
    cubes: NDArray[np.float32]
    checks: Sequence[Check]
    source: str
    left_out: int = 0


class Subject(Protocol):
    """A method that can be validated."""

    @property
    def method(self) -> str:
        """As in ``[inference] method``."""

    @property
    def key(self) -> str | None:
        """Hash of what it was trained on and how."""

    @property
    def prior(self) -> Prior:
        """Of what it infers."""

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For theta (n, P): whether its posterior can be there (n,)."""

    def ask(self, parts: Parts, rows: Rows) -> Asked:
        """Posteriors of the truths that the config asks for; `rows` are those that it was trained on."""

    def check(self, parts: Parts, observation: Observation) -> Check | None:
        """Whether an observation is unlike the simulations; None where nothing can say."""


@dataclass(frozen=True)
class NpeSubject:
    """A posterior by NPE, which answers at once."""

    posterior: Posterior
    method: str = "npe"

    @property
    def key(self) -> str | None:
        """Of its training."""
        return self.posterior.facts.get("key")

    @property
    def prior(self) -> Prior:
        """Before truncation."""
        return self.posterior.prior

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Inside its regions."""
        return self.posterior.contains(theta)

    def ask(self, parts: Parts, rows: Rows) -> Asked:
        """All at once."""
        settings, seed = parts.config.tables.validation, parts.config.tables.seed
        posterior, prior = self.posterior, self.posterior.prior
        truths = find_truths(parts, posterior, rows)
        parts.progress.line(f"validation: {len(truths.theta)} {truths.source}; {settings.samples} samples of each")
        own = run_seed(seed, RunStream.VALIDATION_SAMPLES)
        draws = draw(posterior, truths.read, settings.samples, own, truths.truncation)
        return Asked(
            truths.theta,
            draws.values,
            log_density(posterior, truths.theta[:, None], truths.read)[:, 0],
            log_density(posterior, draws.values, truths.read),
            draws.share,
            draws.pooled,
            1.0 if truths.truncation is None else truths.truncation.volume,
            prior.std if truths.truncation is None else truths.truncation.theta.std(0),
            truths.cubes,
            truths.checks,
            truths.source,
        )

    def check(self, parts: Parts, observation: Observation) -> Check | None:
        """Of its statistics and of what the networks read."""
        return check_observation(self.posterior, observation)


def npe_subject(config: Config, out: Path) -> NpeSubject:
    """The posterior of a run's last round.

    Raises
    ------
    InputError
        If there is none, or one for a single observation.
    """
    if not (out / "posterior" / "posterior.json").exists():
        raise InputError(f"{out}: no posterior to validate; run `eorinfer infer` first")
    posterior = Posterior.load(out / "posterior")
    if posterior.only_for is not None:
        raise InputError(
            f'{config.file}: [inference] proposal = "posterior" gives a posterior for one observation alone, '
            'which no other truth can test; validate a run with proposal = "truncated", or with one round'
        )
    return NpeSubject(posterior)
