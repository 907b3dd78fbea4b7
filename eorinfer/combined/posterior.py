"""NPE's posterior times ln p of an image flow, each by a weight: q(theta | x)^v p(x | theta)^w.

A density that is wrong by little in each cell is wrong by much in sum, and NPE knows only what its features kept. What
both are worth together is learned on images that both held out, see `learn_weights`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.combined.expansion import expanded
from eorinfer.combined.worth import exponents, log_ratio
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_versioned, write_json
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import seed_of
from eorinfer.cubes.observation import Observation, as_observation
from eorinfer.imageflow.interpolated import VERSION
from eorinfer.imageflow.model import ImageFlow
from eorinfer.npe.check import warn_of_unlike
from eorinfer.npe.posterior import Posterior, refuse_none
from simulators.base import fingerprint_of

Array = NDArray[np.float64]
#: File in a run folder, and its version.
FILE, FORMAT = "combined.json", 1
#: Draws from NPE about which ln p is expanded, at least.
DRAWS = 1000
LABEL = "NPE and image flow"


@dataclass(frozen=True)
class Weighed:
    """Draws from NPE for one observation, and what they count for.

    Attributes
    ----------
    theta
        (n, P).
    log_density
        (n,) log density of the combined posterior there.
    log_weight
        (n,) log of the ratio to NPE's density.
    """

    theta: Array
    log_density: Array
    log_weight: Array

    @property
    def weight(self) -> Array:
        """Weights (n,)."""
        return np.asarray(np.exp(self.log_weight))

    @property
    def effective(self) -> float:
        """Effective number of draws."""
        return float(self.weight.sum() ** 2 / np.square(self.weight).sum())


@dataclass(frozen=True)
class CombinedPosterior:
    """NPE and image flow combined.

    Attributes
    ----------
    npe
        Posterior by NPE, of one round.
    flow
        Diffusion whose conditions are its parameters.
    weights
        (w, v) of ln p and of NPE's ln q.
    facts
        Free notes: images that taught the weights, and how much better it is than NPE there.
    """

    npe: Posterior
    flow: ImageFlow
    weights: tuple[float, float]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of both trainings and the weights."""
        return fingerprint_of(keys_of(self.npe, self.flow) | {"weights": list(self.weights)})

    def sample(self, x: Observation | NDArray[Any] | Path | str, n: int = 10_000, seed: int | None = None) -> Samples:
        """Draw weighted samples from the posterior of one observation.

        Parameters
        ----------
        x, n, seed
            See `Posterior.sample`.

        Raises
        ------
        InputError
            See `Posterior.sample`.
        """
        refuse_none(n)
        observation = as_observation(x, self.npe.observable)
        warn_of_unlike(self.npe, [observation])
        return self.samples(self.weigh(observation, n, seed_of(seed)))

    def samples(self, weighed: Weighed) -> Samples:
        """Turn draws into samples of the posterior."""
        return Samples(weighed.theta, weighed.weight, self.npe.prior.parameters, LABEL)

    def weigh(self, observation: Observation, n: int, seed: int, at: Array | None = None) -> Weighed:
        """Draw n theta from NPE, and weigh them.

        Parameters
        ----------
        observation, n, seed
            See `Posterior.draw`.
        at
            (m, P) further theta, which come last.
        """
        theta, log_p, log_q = asked(self.npe, self.flow, observation, max(n, DRAWS), seed, at)
        own = len(theta) - (0 if at is None else len(at))
        log_weight = log_ratio(exponents(np.array(self.weights), log_p, log_q), own)
        kept = np.r_[: min(n, own), own : len(theta)]
        return Weighed(theta[kept], (log_q + log_weight)[kept], log_weight[kept])

    def save(self, folder: Path) -> None:
        """Write ``combined.json`` beside ``posterior/`` and ``field/``, which are there."""
        content = {"format": FORMAT, **keys_of(self.npe, self.flow), "weights": list(self.weights)}
        write_json(folder / FILE, content | {"facts": self.facts})

    @classmethod
    def load(
        cls, folder: Path | str, beside: Path | str | None = None, named: Collection[str] = ()
    ) -> "CombinedPosterior":
        """Read ``combined.json``, ``posterior/`` and ``field/`` of a run folder; for the others see `Posterior.load`.

        Raises
        ------
        InputError
            If one of them is not there, or they are not of one another.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise InputError(f'{folder}: no {FILE}: a run with [inference] method = "combined" writes it')
        npe, flow = Posterior.load(folder / "posterior", beside, named), ImageFlow.load(folder / "field")
        if (found := cls.kept(folder, npe, flow)) is None:
            raise InputError(f"{folder / FILE}: posterior/ and field/ were trained again since; run `eorinfer infer`")
        return found

    @classmethod
    def kept(cls, folder: Path, npe: Posterior, flow: ImageFlow) -> "CombinedPosterior | None":
        """Read what `save` wrote for these two; None where it is of others, or not there.

        Raises
        ------
        InputError
            If the file is not of this format.
        """
        if not (folder / FILE).exists():
            return None
        content = read_versioned(folder / FILE, FORMAT)
        if not keys_of(npe, flow).items() <= content.items():
            return None
        try:
            ln_p, ln_q = map(float, content["weights"])
            return cls(npe, flow, (ln_p, ln_q), dict(content["facts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / FILE}: cannot be read ({error!r}); remove it, and make it anew by infer"
            ) from error


def keys_of(npe: Posterior, flow: ImageFlow) -> dict[str, Any]:
    """Give the hashes of both trainings."""
    return {"npe": npe.facts["key"], "image_flow": flow.facts["key"], "ln_p": VERSION}


def asked(
    npe: Posterior, flow: ImageFlow, observation: Observation, n: int, seed: int, at: Array | None = None
) -> tuple[Array, Array, Array]:
    """Draw n theta from NPE, and ask both.

    Returns
    -------
    tuple
        theta (n, P), after them those of `at`; and ln p(x | theta), up to a constant, and NPE's ln q there.
    """
    drawn = npe.draw(observation, n, seed).values
    theta = drawn if at is None else np.concatenate([drawn, at])
    log_p = expanded(flow, flow.prepared(observation), drawn)(theta)
    return theta, log_p, npe.log_density(theta, observation)
