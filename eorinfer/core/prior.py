"""The flat prior: a box in theta."""

from dataclasses import dataclass, replace

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
    def of(cls, parameters: tuple[Parameter, ...], ranges: dict[str, tuple[float, float]]) -> "Prior":
        """The default ranges of `parameters` with some replaced."""
        return cls(
            tuple(
                replace(p, low=ranges[p.name][0], high=ranges[p.name][1]) if p.name in ranges else p for p in parameters
            )
        )

    @property
    def names(self) -> list[str]:
        """Names in the order of theta."""
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
        """(n, P) draws; the first m of n are the m that `sample(m)` would give."""
        return self.low + (self.high - self.low) * rng.random((n, len(self.parameters)))

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For theta (n, P): whether each row is inside (n,); NaN is not."""
        return np.asarray(((theta >= self.low) & (theta <= self.high)).all(axis=-1))

    def within(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> "Prior":
        """The part of the box that is inside [low, high] (P,) too."""
        low, high = np.maximum(low, self.low), np.minimum(high, self.high)
        ranges = {name: (float(a), float(b)) for name, a, b in zip(self.names, low, high, strict=True)}
        return Prior.of(self.parameters, ranges)

    def hash(self) -> str:
        """Identifies the distribution."""
        return fingerprint_of({p.name: [p.low, p.high] for p in self.parameters})
