"""A trained posterior under another prior, by importance weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
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
            If fewer than `ENOUGH` samples count.
        """
        if n < ENOUGH:
            raise InputError(f"with_prior: n = {n}: at least {ENOUGH} samples are needed, of which some count less")
        drawn = self.posterior.sample(x, n, seed, label)
        log_w = self.prior.log_prob(drawn.values) - self.posterior.prior.log_prob(drawn.values)
        weights = np.exp(log_w - log_w.max()) if np.isfinite(log_w.max()) else np.zeros(n)
        effective = float(weights.sum() ** 2 / max(np.square(weights).sum(), 1e-300))
        if effective < ENOUGH:
            raise InputError(
                f"with_prior: {effective:.0f} of {n} samples count under the new prior, {ENOUGH} are needed; "
                "draw more, or train with this [prior] where the two hardly overlap"
            )
        return Samples(drawn.values, weights, self.prior.parameters, label)


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
    outside = 1 - posterior.prior.contains(prior.sample(DRAWS, np.random.default_rng(0))).mean()
    if outside > OUTSIDE:
        raise InputError(
            f"with_prior: {outside:.0%} of the new prior is outside of what was simulated, "
            + ", ".join(f"{p.name} in [{p.low:g}, {p.high:g}]" for p in posterior.prior.parameters)
        )
    return Reweighted(posterior, prior)
