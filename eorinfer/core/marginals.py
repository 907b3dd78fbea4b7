"""Densities of one parameter that are not flat: normal, log-uniform, and from a table."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

#: Standard deviations from its mean at which a normal prior ends, where the parameter's range does not end it before.
ENDS = 6.0
#: Cells in which a table's density is constant.
CELLS = 2000


@dataclass(frozen=True)
class Marginal(ABC):
    """A normalised density on [low, high]; a derived class gives scipy's `distribution`.

    Attributes
    ----------
    low, high
        Where it begins and ends.
    """

    low: float
    high: float

    #: Name in files.
    kind: ClassVar[str]
    #: Whether networks and grids see the parameter's logarithm.
    logarithmic: ClassVar[bool] = False

    @property
    @abstractmethod
    def distribution(self) -> Any:
        """Frozen distribution of scipy."""

    def cdf(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the mass below theta (n,)."""
        return np.asarray(self.distribution.cdf(theta), np.float64)

    def ppf(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta (n,) with the share u (n,) of the mass below it, never outside of the range."""
        return np.clip(np.asarray(self.distribution.ppf(u), np.float64), self.low, self.high)

    def log_pdf(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density (n,) of theta (n,)."""
        return np.asarray(self.distribution.logpdf(theta), np.float64)

    @property
    def std(self) -> float:
        """Standard deviation."""
        return float(self.distribution.std())

    def to_json(self) -> dict[str, Any]:
        """Kind and fields, for JSON."""
        return {"kind": self.kind, **asdict(self)}

    def words(self) -> str:
        """Say what it is, for tables."""
        return self.kind


@dataclass(frozen=True)
class Normal(Marginal):
    """Normal, cut at the ends."""

    mean: float
    sigma: float

    kind = "normal"

    @cached_property
    def distribution(self) -> Any:
        """Truncated normal of scipy."""
        from scipy.stats import truncnorm

        ends = ((end - self.mean) / self.sigma for end in (self.low, self.high))
        return truncnorm(*ends, loc=self.mean, scale=self.sigma)

    @cached_property
    def _log_norm(self) -> float:
        return (
            float(self.distribution.logpdf(np.clip(self.mean, self.low, self.high)))
            + 0.5 * ((np.clip(self.mean, self.low, self.high) - self.mean) / self.sigma) ** 2
        )

    def log_pdf(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density (n,) of theta (n,); scipy's takes most of the time of a chain."""
        log_p = self._log_norm - 0.5 * np.square((theta - self.mean) / self.sigma)
        return np.where((theta >= self.low) & (theta <= self.high), log_p, -np.inf)

    def words(self) -> str:
        """Say what it is, for tables."""
        return f"normal, {self.mean:g} ± {self.sigma:g}"


@dataclass(frozen=True)
class LogUniform(Marginal):
    """Flat in the logarithm."""

    kind = "log_uniform"
    logarithmic = True

    @cached_property
    def distribution(self) -> Any:
        """Log-uniform distribution of scipy."""
        from scipy.stats import loguniform

        return loguniform(self.low, self.high)

    def log_pdf(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density (n,) of theta (n,)."""
        inside = (theta >= self.low) & (theta <= self.high)
        return np.where(inside, -np.log(np.where(inside, theta, 1.0)) - np.log(np.log(self.high / self.low)), -np.inf)

    def words(self) -> str:
        """Say what it is, for tables."""
        return "flat in the logarithm"


@dataclass(frozen=True)
class Table(Marginal):
    """Density given on a grid, linear between its points.

    Attributes
    ----------
    grid, density
        Rising points, and the density there up to a factor.
    """

    grid: tuple[float, ...]
    density: tuple[float, ...]

    kind = "table"

    @classmethod
    def from_points(
        cls, grid: NDArray[np.float64], density: NDArray[np.float64], low: float = -np.inf, high: float = np.inf
    ) -> "Table":
        """Take a density (n,) on a grid (n,), cut at [low, high] and where it is zero to its ends.

        Raises
        ------
        ValueError
            If these are no density.
        """
        grid, density = np.asarray(grid, np.float64), np.asarray(density, np.float64)
        if grid.ndim != 1 or grid.shape != density.shape or len(grid) < 2:
            raise ValueError("needs two columns, a parameter and its density, of two rows or more")
        if not (np.isfinite(grid).all() and np.isfinite(density).all() and (np.diff(grid) > 0).all()):
            raise ValueError("must be finite numbers, the first column rising")
        if (density < 0).any():
            raise ValueError(f"a density cannot be negative, it is at {grid[np.argmax(density < 0)]:g}")
        positive = np.flatnonzero(density > 0)
        if not len(positive):
            raise ValueError("the density is zero everywhere")
        low = max(low, grid[max(positive[0] - 1, 0)])
        high = min(high, grid[min(positive[-1] + 1, len(grid) - 1)])
        if not low < high:
            raise ValueError("the density is zero in all of the parameter's range")
        return cls(float(low), float(high), tuple(grid.tolist()), tuple(density.tolist()))

    @cached_property
    def distribution(self) -> Any:
        """Histogram of scipy with cells so narrow that their steps do not matter."""
        from scipy.stats import rv_histogram

        edges = np.linspace(self.low, self.high, CELLS + 1)
        heights = np.interp((edges[1:] + edges[:-1]) / 2, self.grid, self.density)
        return rv_histogram((heights, edges), density=True)

    def words(self) -> str:
        """Say what it is, for tables."""
        return "from a table"


_KINDS: dict[str, type[Marginal]] = {cls.kind: cls for cls in (Normal, LogUniform, Table)}


def marginal_from_json(content: Mapping[str, Any]) -> Marginal:
    """Read what `Marginal.to_json` gave."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items() if k != "kind"}
    return _KINDS[content["kind"]](**fields)
