"""A trained posterior: networks and all that is needed to use them again, as a folder without pickle."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.own import check_recorded
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import item_seed, seed_of
from eorinfer.cubes.observation import Observation, as_observation
from eorinfer.npe import ensemble
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.check import warn_of_unlike
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.inside import draw_inside
from eorinfer.npe.reference import Reference
from eorinfer.npe.region import Region, high_density, inside_all
from eorinfer.npe.reweighted import Reweighted, reweighted
from eorinfer.separation.model import Separator
from eorinfer.separation.preprocessing import LineSeparation
from eorinfer.settings.survey import SurveySettings
from eorinfer.training.bundle import BundleKind, weights_of_members
from eorinfer.training.data import validation_rows
from simulators import Observable

#: Draws that a region is made from.
REGION_DRAWS = 10000


@dataclass(frozen=True)
class Posterior:
    """q(theta | x), the mean of an ensemble of networks, inside the prior and the regions.

    Attributes
    ----------
    prior, observable
        Box of theta, and what x must be like.
    survey
        Survey of the training.
    preprocessing
        Module that changes observed cubes before the networks see them; None for none.
    architecture
        Architecture of each network.
    networks
        The ensemble.
    regions
        Truncations that its simulations were drawn from; empty when they are from the prior.
    facts
        Free notes: bank fingerprint, rounds, losses.
    reference
        Statistics of simulations, to compare observations with; None if they were not kept.
    only_for
        `Observation.digest` of the one observation that it holds for, when its simulations were drawn from
        a posterior; None when it holds for all, or for those inside the regions.
    mask
        Cells (C, *cells) that its simulations lack, and are left out of observations; None without any.

    Examples
    --------
    >>> from eorinfer import Posterior
    >>> posterior = Posterior.load("runs/gaussian/posterior")
    >>> samples = posterior.sample("runs/gaussian/observation.h5", 100, seed=1)
    >>> samples.values.shape
    (100, 2)
    """

    bundle: ClassVar[BundleKind] = BundleKind("posterior", "posterior.json", 2)

    prior: Prior
    observable: Observable
    survey: SurveySettings
    architecture: Architecture
    networks: tuple[ThetaDensity, ...]
    regions: tuple[Region, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    reference: Reference | None = None
    only_for: str | None = None
    preprocessing: LineSeparation | None = None
    mask: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        seen = f"{self.observable.name} {' x '.join(map(str, self.observable.shape))}"
        rows = self.facts.get("training_rows")
        trained = f"trained on {rows} simulations" if rows else "untrained"
        rounds = f" in {len(self.regions) + 1} rounds" if self.regions else ""
        return (
            f"Posterior(q({', '.join(self.prior.names)} | {seen}), {trained}{rounds}, "
            f"survey {self.survey.kind}, {len(self.networks)} x {self.architecture.flow.kind})"
        )

    def read(self, observed: Tensor) -> list[Tensor]:
        """Compute the features (B, F) that each network of the ensemble reads from observed cubes (B, C, *cells)."""
        with torch.no_grad():
            seen = observed if self.preprocessing is None else self.preprocessing(observed)
            return [network.embedding(seen) for network in self.networks]

    def sample(
        self,
        x: Observation | NDArray[Any] | Path | str,
        n: int = 10_000,
        seed: int | None = None,
        label: str = "NPE",
    ) -> Samples:
        """Draw from the posterior of one observation, and warn where it is unlike the simulations of training.

        Parameters
        ----------
        x
            Observation, array (C, *cells) in the unit and with the axes of `observable`, or file.
        n
            Number of samples.
        seed
            Seed of the draw; without one every call draws others.
        label
            Name in legends.

        Raises
        ------
        InputError
            If the observation does not fit, n is below 1, or the seed is no whole number; see also `draw`.
        """
        refuse_none(n)
        observation = self._taken(x)
        warn_of_unlike(self, [observation])
        return self.draw(observation, n, seed_of(seed), label)

    def sample_many(
        self,
        images: Sequence[Observation | NDArray[Any] | Path | str] | NDArray[Any],
        n: int = 1000,
        seed: int | None = None,
        label: str = "NPE",
    ) -> list[Samples]:
        """Draw from the posteriors of several observations, by one pass of the networks.

        Parameters
        ----------
        images
            Array (N, C, *cells), or N observations as in `sample`.
        n
            Number of samples of each.
        seed, label
            See `sample`.

        Raises
        ------
        InputError
            See `sample`; the message names the place of the observation.
        """
        refuse_none(n)
        seed = seed_of(seed)
        if isinstance(images, Observation | Path | str):
            raise InputError("images: give a list of observations; for one there is Posterior.sample")
        observations = []
        for place, x in enumerate(images):
            try:
                observations.append(self._taken(x))
            except InputError as error:
                raise InputError(f"images[{place}]: {error}") from error
        if not observations:
            return []
        warn_of_unlike(self, observations)
        if self.regions or self.only_for:
            return [self.draw(one, n, item_seed(seed, place), label) for place, one in enumerate(observations)]
        features = self.read(torch.from_numpy(np.stack([one.values for one in observations])))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            theta = ensemble.draw(self.networks, n, features)
        return [Samples.unweighted(values, self.prior.parameters, label) for values in theta]

    def folds(self, seed: NDArray[np.uint64], fraction: float = 0.1) -> "list[tuple[Posterior, NDArray[np.bool_]]]":
        """Split rows by the network that held them out in training: these can test it, or show what is new to it.

        Parameters
        ----------
        seed
            (n,) seeds of the realisations of all rows of the training.
        fraction
            ``[training] validation_fraction``, for posteriors of older versions, which did not note it. All their
            networks held out the same rows.

        Returns
        -------
        list
            A posterior of one network, and the rows (n,) that it held out; no row is in two of them.
        """
        if (noted := self.facts.get("folds")) is None:
            return [(self, validation_rows(seed, fraction))]
        return [
            (replace(self, networks=(self.networks[member],)), validation_rows(seed, noted["fraction"], member))
            for member in range(noted["networks"])
        ]

    def draw(self, observation: Observation, n: int, seed: int, label: str = "NPE") -> Samples:
        """Draw from the posterior of one observation, without the check that `sample` makes.

        Parameters
        ----------
        observation
            Checked against `observable`.
        n
            Number of samples.
        seed
            Seed of the draw.
        label
            Name in legends.

        Raises
        ------
        InputError
            If the observation does not fit, lies outside the region of a truncated posterior, or is another
            than the one that this posterior is for.
        """
        if self.only_for not in (None, observation.digest):
            raise InputError(
                "this posterior was trained on draws from the posterior of another observation; "
                "use the posterior of the first round (rounds/01), which holds for any observation"
            )
        theta = draw_inside(
            self.networks,
            self._features(observation),
            self.contains,
            n,
            seed,
            label=label,
            truncated=bool(self.regions),
        )
        return Samples.unweighted(theta, self.prior.parameters, label)

    def log_density(self, theta: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
        """Log density (n,) of theta (n, P), before truncation; -inf outside the prior.

        Raises
        ------
        InputError
            If theta has another shape, or the observation does not fit.
        """
        try:
            theta = np.asarray(theta, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"theta must be an array (n, P) of numbers ({error})") from error
        if theta.ndim != 2 or theta.shape[1] != len(self.prior.parameters):
            raise InputError(f"theta has shape {theta.shape}, expected (n, {len(self.prior.parameters)})")
        return ensemble.log_density(self.networks, theta[None], self._features(observation))[0]

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which theta (n, P) are inside the prior and every region: (n,)."""
        return inside_all(self.prior, self.regions, theta)

    def with_prior(self, prior: Prior | Mapping[str, Any]) -> Reweighted:
        """Put the posterior under another prior, by importance weights; nothing is trained.

        Parameters
        ----------
        prior
            Prior of the same parameters, or entries as in ``[prior]``: ``{"slope": {"normal": [-1.5, 0.2]}}``.
            Parameters that are not named are flat in the ranges of the training.

        Returns
        -------
        Reweighted
            Its ``sample`` and ``sample_many`` give samples with weights, its ``log_density`` is normed.

        Raises
        ------
        InputError
            If this posterior is for one observation, or the prior is another kind of thing or lies outside of the old
            one. Its ``sample`` raises it too, where fewer than 200 samples count.
        """
        return reweighted(self, prior)

    def region(self, observation: Observation, truncation: float, seed: int) -> Region:
        """Find the region of all but the share `truncation` of the posterior's mass."""
        theta = self.draw(observation, REGION_DRAWS, seed).values
        log_density = self.log_density(theta, observation)
        if not np.isfinite(log_density).all():
            raise WorkError(
                f"the posterior has no density at {int((~np.isfinite(log_density)).sum())} of {len(theta)} of its own "
                "samples, so that no region can be truncated by it; train it with a lower [training] learning_rate"
            )
        threshold, box = high_density(theta, log_density, truncation, self.box)
        # Its density is what counts; where it was truncated itself is another region.
        return Region(replace(self, regions=(), reference=None), observation, threshold, box)

    @property
    def box(self) -> Prior:
        """Part of the prior that the last region spans; all of it without regions."""
        return self.regions[-1].box if self.regions else self.prior

    def save(self, folder: Path) -> None:
        """Write ``posterior.json``, ``weights.safetensors``, ``reference.safetensors`` and ``regions/`` whole."""
        description: dict[str, Any] = {
            "prior": self.prior.to_json(),
            "observable": asdict(self.observable),
            "survey": self.survey.model_dump(mode="json"),
            "preprocessing": self.preprocessing.choices if self.preprocessing else None,
            "ensemble": len(self.networks),
            "regions": [
                {"threshold": r.threshold, "low": r.box.low.tolist(), "high": r.box.high.tolist()} for r in self.regions
            ],
            "only_for": self.only_for,
            "facts": self.facts,
        }
        description |= self.architecture.tables() | ensemble.scalars(self.networks)
        if own := self.architecture.own_digests():
            description["own"] = own
        reference = None if self.reference is None else self.reference.arrays()
        mask = None if self.mask is None else {"mask": torch.from_numpy(self.mask.astype(np.uint8))}
        with self.bundle.writing(
            folder, description, weights_of_members(self.networks), reference=reference, mask=mask
        ) as temporary:
            if self.preprocessing is not None:
                self.preprocessing.separator.save(temporary / "preprocessing")
            for number, region in enumerate(self.regions, start=1):
                region_folder = temporary / "regions" / f"{number:02d}"
                region.posterior.save(region_folder)
                region.observation.write(region_folder / "observation.h5")

    @classmethod
    def load(cls, folder: Path | str, beside: Path | str | None = None, named: Collection[str] = ()) -> "Posterior":
        """Read what `save` wrote, on the CPU.

        Parameters
        ----------
        folder
            The bundle.
        beside
            Folder of your own modules, for a posterior that was made with some; none is imported otherwise.
        named
            Names of your own parts that may be on Python's path instead, since your config names them.

        Raises
        ------
        InputError
            If the folder has no posterior of this format, or was made with a module that `beside` does not have.
        """
        beside = None if beside is None else Path(beside)
        with cls.bundle.reading(Path(folder)) as bundle:
            check_recorded(bundle.description, bundle.folder, beside, named)
            prior = Prior.from_json(bundle["prior"])
            observable = bundle.observable
            architecture = Architecture.from_tables(bundle, beside)
            preprocessing = None
            if separation := bundle["preprocessing"]:
                preprocessing = LineSeparation(Separator.load(bundle.folder / "preprocessing"), **separation)
            seen = preprocessing.observable(observable) if preprocessing else observable
            networks = ensemble.read_networks(bundle, lambda: architecture.build(prior, seen))
            regions = []
            for number, region in enumerate(bundle["regions"], start=1):
                region_folder = bundle.folder / "regions" / f"{number:02d}"
                observation = Observation.read(region_folder / "observation.h5", observable)
                box = prior.within(np.array(region["low"]), np.array(region["high"]))
                regions.append(Region(cls.load(region_folder, beside, named), observation, region["threshold"], box))
            reference, mask = bundle.tensors("reference"), bundle.tensors("mask")
            return cls(
                prior,
                observable,
                bundle.survey,
                architecture,
                networks,
                tuple(regions),
                bundle["facts"],
                None if reference is None else Reference(**reference),
                bundle.description.get("only_for"),
                preprocessing,
                None if mask is None else mask["mask"].numpy().astype(bool),
            )

    def _taken(self, x: Observation | NDArray[Any] | Path | str) -> Observation:
        """Take an observation as callers have it; refuse one that lacks cells which the simulations have."""
        observation = as_observation(x, self.observable, self.mask)
        if observation.mask is not None:
            more = observation.mask if self.mask is None else observation.mask & ~self.mask
            if more.any():
                raise InputError(
                    f"observation: {int(more.sum())} cells are masked that this posterior's simulations have; "
                    "train one with the same [observation] mask"
                )
        return observation

    def _features(self, observation: Observation) -> list[Tensor]:
        """Features (1, F) that each network reads from one observation."""
        observation = self._taken(observation)
        return self.read(torch.from_numpy(observation.values[None]))


def refuse_none(n: int) -> None:
    """Refuse a number of samples below one."""
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n = {n}: must be a whole number of samples, at least 1")
