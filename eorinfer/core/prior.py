"""The prior of theta: a box of parameters, flat unless a density says otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.dependence import Dependence
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.marginals import Marginal, Table, marginal_from_json
from eorinfer.core.samples import Samples
from simulators import Parameter
from simulators.base import fingerprint_of

#: Draws at a time where some are rejected, and draws that an entropy is taken from.
BLOCK, DRAWS = 10_000, 20_000
#: Share of draws inside a cut below which drawing gives up.
HARDLY = 1e-6
#: Name in a run folder.
FILE = "prior.json"


@dataclass(frozen=True)
class Prior:
    """Density of theta inside [low, high] of each parameter, zero outside.

    All that is not flat is said here. Networks, grids and proposals see a box of *coordinates*, which are theta itself
    or, for a log-uniform parameter, its logarithm. There the density is `log_density`, that of a flat prior, times a
    factor. The two functions that differ from zero only where the prior is not flat are `log_slope`, for the
    logarithms, and `log_factor`.

    Attributes
    ----------
    parameters
        The P parameters in the order of theta; their `low` and `high` are the box.
    marginals
        Density of each parameter, None for a flat one; empty where all are flat.
    dependence
        How parameters depend on each other; None where they are independent.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import Prior
    >>> from simulators import GaussianField
    >>> prior = Prior.from_ranges(GaussianField().parameters, {"slope": (-3.0, 0.0)})
    >>> prior.sample(4, np.random.default_rng(1)).shape
    (4, 2)
    """

    parameters: tuple[Parameter, ...]
    marginals: tuple[Marginal | None, ...] = ()
    dependence: Dependence | None = None

    @classmethod
    def from_ranges(cls, parameters: tuple[Parameter, ...], ranges: Mapping[str, tuple[float, float]]) -> "Prior":
        """Take the default ranges of `parameters`, with those of the names in `ranges` replaced.

        Raises
        ------
        InputError
            If a name is none of them, or a range does not rise.
        """
        names = [p.name for p in parameters]
        if unknown := [name for name in ranges if name not in names]:
            raise InputError(f"prior: {unknown[0]!r} is no parameter; they are {', '.join(names)}")
        for name, (low, high) in ranges.items():
            if not -np.inf < low < high < np.inf:
                raise InputError(f"prior: {name} = [{low:g}, {high:g}]: must be [low, high], finite, low below high")
        return cls(
            tuple(
                replace(p, low=ranges[p.name][0], high=ranges[p.name][1]) if p.name in ranges else p for p in parameters
            )
        )

    @classmethod
    def from_marginals(
        cls,
        parameters: tuple[Parameter, ...],
        marginals: Mapping[str, Marginal],
        dependence: Dependence | None = None,
    ) -> "Prior":
        """Give the named parameters a density, which sets their ranges too; the others stay flat."""
        densities = tuple(marginals.get(p.name) for p in parameters)
        ranged = tuple(
            replace(p, low=m.low, high=m.high) if m else p for p, m in zip(parameters, densities, strict=True)
        )
        return cls(ranged, densities if any(densities) else (), dependence)

    @classmethod
    def from_samples(cls, samples: Samples) -> "Prior":
        """Estimate the joint density of weighted samples: marginals by getdist, and how parameters depend on another.

        Parameters
        ----------
        samples
            Samples inside the ranges of their own parameters.

        Raises
        ------
        ValueError
            If a parameter has one value, or there are too few samples, or they lie in a plane.
        """
        marginals: dict[str, Marginal] = {
            p.name: Table.from_points(*samples.density(p.name), p.low, p.high) for p in samples.parameters
        }
        dependence = None
        if len(marginals) > 1:
            u = np.column_stack([m.cdf(x) for m, x in zip(marginals.values(), samples.values.T, strict=True)])
            dependence = Dependence.from_quantiles(range(len(marginals)), u, samples.weights)
        return cls.from_marginals(samples.parameters, marginals, dependence)

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> "Prior":
        """Read what `to_json` gave."""
        if not isinstance(content, Mapping):
            return cls(tuple(Parameter(**parameter) for parameter in content))
        marginals = tuple(None if m is None else marginal_from_json(m) for m in content["marginals"])
        dependence = content["dependence"]
        return cls(
            tuple(Parameter(**parameter) for parameter in content["parameters"]),
            marginals,
            None if dependence is None else Dependence.from_json(dependence),
        )

    def to_json(self) -> list[dict[str, Any]] | dict[str, Any]:
        """Parameters with their ranges, for JSON; with the densities where the prior is not flat."""
        parameters = [asdict(parameter) for parameter in self.parameters]
        if self.flat:
            return parameters
        return {
            "parameters": parameters,
            "marginals": [None if m is None else m.to_json() for m in self.marginals],
            "dependence": None if self.dependence is None else self.dependence.to_json(),
        }

    def write(self, folder: Path) -> None:
        """Write ``prior.json`` where the prior is not flat: ranges are with each chain."""
        content = self.to_json()
        if isinstance(content, dict):
            write_json(folder / FILE, content)

    @classmethod
    def read(cls, folder: Path) -> "Prior | None":
        """Read what `write` wrote; None if there is nothing."""
        return cls.from_json(read_json(folder / FILE)) if (folder / FILE).exists() else None

    @property
    def flat(self) -> bool:
        """Whether all parameters are flat."""
        return not self.marginals

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in the order of theta."""
        return [p.name for p in self.parameters]

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower bounds (P,)."""
        return np.array([p.low for p in self.parameters], np.float64)

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper bounds (P,)."""
        return np.array([p.high for p in self.parameters], np.float64)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviations (P,)."""
        std = (self.high - self.low) / np.sqrt(12.0)
        for i, marginal in self._dense:
            std[i] = marginal.std
        return std

    # -- coordinates ---------------------------------------------------------------------------

    @property
    def logarithmic(self) -> NDArray[np.bool_]:
        """Parameters whose coordinate is their logarithm, (P,)."""
        columns = np.zeros(len(self.parameters), bool)
        columns[[i for i, marginal in self._dense if marginal.logarithmic]] = True
        return columns

    @property
    def curved(self) -> NDArray[np.bool_]:
        """Parameters whose coordinate is not flat, (P,)."""
        columns = np.zeros(len(self.parameters), bool)
        columns[[i for i, marginal in self._dense if not marginal.logarithmic]] = True
        return columns

    def coordinates(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates (..., P) of theta (..., P); of a value that is not positive NaN, where they are logarithms."""
        log = self.logarithmic
        if not log.any():
            return theta
        made = np.array(theta, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            made[..., log] = np.log(made[..., log])
        return made

    def from_coordinates(self, c: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (..., P) of coordinates (..., P); the inverse of `coordinates`."""
        log = self.logarithmic
        if not log.any():
            return c
        made = np.array(c, np.float64)
        made[..., log] = np.exp(made[..., log])
        # exp(log(x)) may lie beyond x by a rounding error.
        near = np.isclose(made, np.clip(made, self.low, self.high), rtol=1e-12, atol=0)
        return np.where(near, np.clip(made, self.low, self.high), made)

    @property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bounds (P,) of the coordinates."""
        return self.coordinates(self.low), self.coordinates(self.high)

    @property
    def log_density(self) -> float:
        """Log of the flat density of the coordinates inside the box."""
        low, high = self.box
        return float(-np.log(high - low).sum())

    def unit(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (..., P) in units of the box of coordinates: 0 at its lower bounds, 1 at its upper ones."""
        low, high = self.box
        return (self.coordinates(theta) - low) / (high - low)

    def from_unit(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (..., P) from units (..., P) of the box; the inverse of `unit`."""
        low, high = self.box
        return self.from_coordinates(low + (high - low) * u)

    # -- density -------------------------------------------------------------------------------

    def log_slope(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the volume of coordinates over that of theta, (...), at theta (..., P)."""
        log = self.logarithmic
        if not log.any():
            return np.zeros(theta.shape[:-1])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(-np.log(theta[..., log]).sum(-1))

    def log_factor(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the density of the coordinates over that of a flat prior, (n,), at theta (n, P) inside the prior."""
        factor = np.zeros(len(theta))
        for i, marginal in self._dense:
            log_flat = -np.log(np.subtract(*self.box[::-1])[i]) + (
                -np.log(theta[:, i]) if marginal.logarithmic else 0.0
            )
            factor += marginal.log_pdf(theta[:, i]) - log_flat
        if self.dependence is not None:
            factor += self.dependence.log_ratio(self._shares(theta)[:, list(self.dependence.columns)])
        return factor

    def log_relative(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density less `log_density`, (n,), at theta (n, P) inside the prior; zero for a flat one."""
        return np.zeros(len(theta)) if self.flat else self.log_factor(theta) + self.log_slope(theta)

    def log_prob(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density (n,) of theta (n, P); -inf outside."""
        log_p = np.full(len(theta), -np.inf)
        inside = self.contains(theta)
        log_p[inside] = self.log_density + self.log_relative(theta[inside])
        return log_p

    def times(self, log_l: LogLikelihood) -> LogLikelihood:
        """Log likelihood plus `log_relative`: what is integrated over theta with a constant as the prior."""
        if self.flat:
            return log_l
        return lambda theta: log_l(theta) + self.log_relative(theta)

    @property
    def entropy(self) -> float:
        """Entropy in nats, of theta; from draws where it is not flat."""
        if self.flat:
            return -self.log_density
        return -float(self.log_prob(self.sample(DRAWS, np.random.default_rng(0))).mean())

    # -- draws ---------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw theta (n, P); the first m of n draws are the m that `sample(m)` would give.

        Raises
        ------
        ValueError
            If hardly any draw of parameters that depend on each other is inside the ranges.
        """
        if self.dependence is None:
            return self._from_shares(rng.random((n, len(self.parameters))))
        kept: list[NDArray[np.float64]] = []
        accepted = tried = 0
        while accepted < n:
            theta = self._from_shares(rng.random((BLOCK, len(self.parameters))), rng)
            kept.append(theta[self.contains(theta)])
            accepted, tried = accepted + len(kept[-1]), tried + BLOCK
            if accepted < HARDLY * tried - 10:
                raise ValueError(f"{accepted} of {tried} draws of the joint prior are inside the ranges")
        return np.concatenate(kept)[:n]

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which of theta (n, P) are inside: (n,); NaN is not."""
        return np.asarray(((theta >= self.low) & (theta <= self.high)).all(axis=-1))

    def within(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> "Prior":
        """Cut the box to its part inside [low, high] (P,); the densities inside stay what they are."""
        low, high = np.maximum(low, self.low), np.minimum(high, self.high)
        ranges = {name: (float(a), float(b)) for name, a, b in zip(self.names, low, high, strict=True)}
        return replace(self, parameters=Prior.from_ranges(self.parameters, ranges).parameters)

    def share(self, part: "Prior") -> float:
        """Share of the mass that lies in a `part`, from `within`, of parameters that are independent."""
        if self.flat:
            return float(np.exp(self.log_density - part.log_density))
        share = (part.high - part.low) / (self.high - self.low)
        for i, marginal in self._dense:
            share[i] = np.subtract(*marginal.cdf(np.array([part.high[i], part.low[i]])))
        return float(share.prod())

    def only(self, columns: Sequence[int]) -> "Prior":
        """Prior of some of the parameters, in this order."""
        marginals = tuple(self.marginals[i] for i in columns) if self.marginals else ()
        return Prior(
            tuple(self.parameters[i] for i in columns),
            marginals if any(marginals) else (),
            self.dependence.only(columns) if self.dependence else None,
        )

    def flattened(self) -> "Prior":
        """Flat prior in the same ranges."""
        return Prior(self.parameters)

    def hash(self) -> str:
        """Hash of names and ranges, and of the densities where the prior is not flat."""
        ranges: dict[str, Any] = {p.name: [p.low, p.high] for p in self.parameters}
        if self.flat:
            return fingerprint_of(ranges)
        content = self.to_json()
        assert isinstance(content, dict)
        return fingerprint_of({"ranges": ranges, "marginals": content["marginals"]} | {"of": content["dependence"]})

    # -- inside --------------------------------------------------------------------------------

    @property
    def _dense(self) -> list[tuple[int, Marginal]]:
        """Numbers and densities of the parameters that are not flat."""
        return [(i, marginal) for i, marginal in enumerate(self.marginals) if marginal is not None]

    def _shares(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each marginal below theta, (n, P); before any cut, where it has a density."""
        shares = (theta - self.low) / (self.high - self.low)
        for i, marginal in self._dense:
            shares[:, i] = marginal.cdf(theta[:, i])
        return np.asarray(shares)

    def _from_shares(self, u: NDArray[np.float64], rng: np.random.Generator | None = None) -> NDArray[np.float64]:
        """Theta (n, P) from uniform numbers (n, P).

        Parameters that depend on each other are not cut here; `rng` gives the number that chooses their sample.
        """
        theta = self.low + (self.high - self.low) * u
        together: list[int] = []
        if self.dependence is not None:
            assert rng is not None
            together = list(self.dependence.columns)
            u[:, together] = self.dependence.from_uniform(np.column_stack([rng.random(len(u)), u[:, together]]))
        for i, marginal in self._dense:
            if i in together:
                theta[:, i] = marginal.ppf(u[:, i])
                continue
            below, above = marginal.cdf(np.array([self.low[i], self.high[i]]))
            theta[:, i] = np.clip(marginal.ppf(below + (above - below) * u[:, i]), self.low[i], self.high[i])
        return theta
