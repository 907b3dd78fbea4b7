"""Flat prior: a box in theta."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators import Parameter
from simulators.base import fingerprint_of


@dataclass(frozen=True)
class Prior:
    """Flat inside [low, high] of each parameter, zero outside.

    Attributes
    ----------
    parameters
        The P parameters in the order of theta; their `low` and `high` are the box.
    """

    parameters: tuple[Parameter, ...]

    @classmethod
    def from_ranges(cls, parameters: tuple[Parameter, ...], ranges: Mapping[str, tuple[float, float]]) -> "Prior":
        """Take the default ranges of `parameters`, with those of the names in `ranges` replaced."""
        return cls(
            tuple(
                replace(p, low=ranges[p.name][0], high=ranges[p.name][1]) if p.name in ranges else p for p in parameters
            )
        )

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> "Prior":
        """Read what `to_json` gave."""
        return cls(tuple(Parameter(**parameter) for parameter in content))

    def to_json(self) -> list[dict[str, Any]]:
        """Parameters with their ranges, for JSON."""
        return [asdict(parameter) for parameter in self.parameters]

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
        return (self.high - self.low) / np.sqrt(12.0)

    @property
    def log_density(self) -> float:
        """Log of the density inside the box."""
        return float(-np.log(self.high - self.low).sum())

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw theta (n, P); the first m of n draws are the m that `sample(m)` would give."""
        return self.from_unit(rng.random((n, len(self.parameters))))

    def unit(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (..., P) in units of the box: 0 at its lower bounds, 1 at its upper ones."""
        return (theta - self.low) / (self.high - self.low)

    def from_unit(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (..., P) from units (..., P) of the box; the inverse of `unit`."""
        return self.low + (self.high - self.low) * u

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which of theta (n, P) are inside: (n,); NaN is not."""
        return np.asarray(((theta >= self.low) & (theta <= self.high)).all(axis=-1))

    def within(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> "Prior":
        """Cut the box to its part inside [low, high] (P,)."""
        low, high = np.maximum(low, self.low), np.minimum(high, self.high)
        ranges = {name: (float(a), float(b)) for name, a, b in zip(self.names, low, high, strict=True)}
        return Prior.from_ranges(self.parameters, ranges)

    def hash(self) -> str:
        """Hash of names and ranges."""
        return fingerprint_of({p.name: [p.low, p.high] for p in self.parameters})
