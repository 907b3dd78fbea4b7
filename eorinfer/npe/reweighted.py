"""A trained posterior under another prior, by importance weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.special import logsumexp

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.pareto import TOO_HEAVY, largest_k, pareto_k
from eorinfer.settings.build_prior import build_prior
from eorinfer.settings.explain import explained
from eorinfer.settings.prior import PriorSettings

#: Effective samples below which weights are not to be relied on.
ENOUGH = 200
#: Share of the new prior outside of the old one's ranges up to which it is cut there.
OUTSIDE, DRAWS = 0.01, 10_000


Observed = Observation | NDArray[Any] | Path | str


class Trained(Protocol):
    """The members of an `eorinfer.Posterior` that weights need."""

    @property
    def prior(self) -> Prior:
        """Prior that its simulations were drawn from."""

    @property
    def regions(self) -> Sequence[object]:
        """Truncations for one observation."""

    @property
    def only_for(self) -> str | None:
        """The one observation that it holds for."""

    def sample(self, x: Observed, n: int, seed: int | None, label: str) -> Samples:
        """Draw from the posterior of one observation."""

    def sample_many(
        self, images: Sequence[Observed] | NDArray[Any], n: int, seed: int | None, label: str
    ) -> list[Samples]:
        """Draw from the posteriors of several observations."""

    def log_density(self, theta: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
        """Log density of theta (n, P)."""


@dataclass(frozen=True)
class Reweighted:
    """q(theta | x) p_new(theta) / p_old(theta): the posterior under a prior that no simulation was drawn from.

    Attributes
    ----------
    posterior
        Amortised posterior, trained under its own prior.
    prior
        The new one, of the same parameters.
    """

    posterior: Trained
    prior: Prior

    def sample(self, x: Observed, n: int = 10_000, seed: int | None = None, label: str = "NPE, other prior") -> Samples:
        """Draw from the trained posterior and weigh by the ratio of the priors.

        Parameters
        ----------
        x, n, seed, label
            See `Posterior.sample`.

        Returns
        -------
        Samples
            n samples with weights.

        Raises
        ------
        InputError
            If fewer than `ENOUGH` samples count, or the tail of their weights is too heavy.
        """
        _refuse_few(n)
        return self._weighed(self.posterior.sample(x, n, seed, label))

    def sample_many(
        self,
        images: Sequence[Observed] | NDArray[Any],
        n: int = 10_000,
        seed: int | None = None,
        label: str = "NPE, other prior",
    ) -> list[Samples]:
        """Draw from the posteriors of several observations; see `Posterior.sample_many` and `sample`.

        Raises
        ------
        InputError
            See `sample`; the message names the place of the observation.
        """
        _refuse_few(n)
        weighed = []
        for place, drawn in enumerate(self.posterior.sample_many(images, n, seed, label)):
            try:
                weighed.append(self._weighed(drawn))
            except InputError as error:
                raise InputError(f"images[{place}]: {error}") from error
        return weighed

    def log_density(
        self, theta: NDArray[np.float64], observation: Observation, n: int = 10_000, seed: int = 0
    ) -> NDArray[np.float64]:
        """Log density (m,) of theta (m, P) under the new prior; -inf outside of either prior.

        Parameters
        ----------
        theta, observation
            See `Posterior.log_density`.
        n, seed
            Number and seed of the samples of the trained posterior whose mean weight norms the density.

        Raises
        ------
        InputError
            See `sample` and `Posterior.log_density`.
        """
        _refuse_few(n)
        density = self.posterior.log_density(theta, observation)
        log_w = self._log_weights(self.posterior.sample(observation, n, seed, "").values)
        density += self._log_ratio(np.asarray(theta, np.float64))[0] - logsumexp(log_w) + np.log(n)
        return density

    def _log_ratio(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Log (n,) of the new prior over the old one at theta (n, P), and where only the new one has a density.

        There the log is -inf: nothing was simulated that could tell.
        """
        new, old = self.prior.log_prob(theta), self.posterior.prior.log_prob(theta)
        beyond = np.isneginf(old) & ~np.isneginf(new)
        return np.subtract(new, old, out=np.full(len(theta), -np.inf), where=np.isfinite(old)), beyond

    def _log_weights(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log weights (n,) of samples theta (n, P) of the trained posterior, if they can be relied on."""
        log_w, beyond = self._log_ratio(theta)
        if beyond.mean() > OUTSIDE:
            raise InputError(
                f"with_prior: {beyond.mean():.0%} of the samples lie where the new prior has a density and that of the "
                "training none: nothing was simulated there; train with this [prior]"
            )
        self._refuse_unlike(log_w)
        return log_w

    def _weighed(self, drawn: Samples) -> Samples:
        log_w = self._log_weights(drawn.values)
        return Samples(drawn.values, np.exp(log_w - log_w.max()), self.prior.parameters, drawn.label)

    @staticmethod
    def _refuse_unlike(log_w: NDArray[np.float64]) -> None:
        """Refuse log weights (n,) of which fewer than `ENOUGH` count, or whose largest were hardly drawn."""
        finite = log_w[np.isfinite(log_w)]
        effective = np.exp(2 * logsumexp(finite) - logsumexp(2 * finite)) if len(finite) else 0.0
        if effective < ENOUGH:
            raise InputError(
                f"with_prior: {effective:.0f} of {len(log_w)} samples count under the new prior, {ENOUGH} are needed; "
                "draw more, or train with this [prior] where the two hardly overlap"
            )
        if (k := pareto_k(log_w)) > (most := largest_k(len(log_w))):
            more = "draw more, or " if k <= TOO_HEAVY else ""
            raise InputError(
                f"with_prior: the tail of the weights has k = {k:.2f}, above {most:.2f}: the new prior is wide where "
                f"samples are few, and widths change from seed to seed; {more}train with this [prior]"
            )


def _refuse_few(n: int) -> None:
    if n < ENOUGH:
        raise InputError(f"with_prior: n = {n}: at least {ENOUGH} samples are needed, of which some count less")


def reweighted(posterior: Trained, prior: Prior | Mapping[str, Any]) -> Reweighted:
    """Put a trained posterior under another prior; see `Posterior.with_prior`."""
    if posterior.regions or posterior.only_for is not None:
        raise InputError(
            "with_prior: this posterior was trained for one observation; "
            "use the posterior of the first round (rounds/01), which holds for any"
        )
    if not isinstance(prior, Prior):
        try:
            settings = PriorSettings.model_validate(prior)
        except ValidationError as error:
            raise InputError(explained(Path("with_prior"), error, "prior", PriorSettings)) from error
        prior = build_prior(Path("with_prior"), settings, posterior.prior.parameters)
    if prior.names != posterior.prior.names:
        raise InputError(f"with_prior: of {', '.join(prior.names)}, but trained on {', '.join(posterior.prior.names)}")
    drawn = posterior.prior.log_prob(prior.sample(DRAWS, np.random.default_rng(0)))
    outside = np.isneginf(drawn).mean()
    if outside > OUTSIDE:
        raise InputError(
            f"with_prior: {outside:.0%} of the new prior is outside of what was simulated, "
            + ", ".join(f"{p.name} in [{p.low:g}, {p.high:g}]" for p in posterior.prior.parameters)
        )
    return Reweighted(posterior, prior)
