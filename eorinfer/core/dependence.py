"""How parameters of a joint prior depend on each other: samples in normal scores, smoothed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import rankdata

#: Samples that are kept at most, and pairs of theta and a sample that are compared at a time.
MOST, AT_ONCE = 1000, 2_000_000
#: Squared distance below which two samples are one.
SAME = 1e-9
#: No score is further from zero than that of this share.
EDGE = 1e-12
#: Bandwidths that are tried, in units of Scott's rule; and the largest, in units of the scores' spread.
WIDTHS, WIDEST = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0), 0.9


@dataclass(frozen=True, eq=False)
class Dependence:
    """Density of normal scores z_i = Φ⁻¹(F_i(θ_i)), with F_i the marginal distributions.

    A mixture of normals of covariance h² C around samples that are drawn together by sqrt(1 - h²), C being the
    covariance of the scores: mean and covariance stay what they are (West 1993, J. R. Stat. Soc. B 55, 409).
    In scores there are no edges, so that no mass leaves the parameters' ranges.

    Attributes
    ----------
    columns
        Numbers of the Q parameters that depend on each other.
    points
        Scores (N, Q).
    """

    columns: tuple[int, ...]
    points: NDArray[np.float64]

    @classmethod
    def from_quantiles(
        cls, columns: Sequence[int], u: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> "Dependence":
        """Choose at most `MOST` of weighted samples, given as shares u (n, Q) of the marginals below them.

        Raises
        ------
        ValueError
            If there are too few samples for their covariance, or they lie in a plane.
        """
        rng = np.random.default_rng(0)
        # A sample beyond the ends of a marginal has no score.
        inside = ((u > 0) & (u < 1)).all(1)
        u, weights = u[inside], weights[inside]
        # Each at most once: copies would look like a narrow density.
        rows = np.flatnonzero(rng.random(len(u)) * weights.max(initial=0.0) < weights)
        n = min(MOST, len(rows))
        if n < 10 * u.shape[1]:
            raise ValueError(f"{n} samples count, {u.shape[1]} parameters need {10 * u.shape[1]} or more")
        rows = np.sort(rng.choice(rows, n, replace=False))
        # By ranks, so that the marginals stay what they are: the scores of 1,000 samples may be 4% too wide, and
        # parameters with long tails more.
        z = ndtri((rankdata(u[rows], axis=0) - 0.5) / n)
        # To a thousandth: a posterior that carries them stays small.
        made = cls(tuple(columns), np.round(z, 3))
        if np.linalg.cond(np.atleast_2d(np.cov(made.points, rowvar=False))) > 1e10:
            raise ValueError("one parameter is a linear function of others")
        return made

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Dependence)
            and self.columns == other.columns
            and np.array_equal(self.points, other.points)
        )

    def __hash__(self) -> int:
        return hash((self.columns, self.points.tobytes()))

    @cached_property
    def _kernel(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres (N, Q) and the Cholesky factor (Q, Q) of the covariance of the normals around them.

        Of `WIDTHS` times Scott's rule h is the one under which a sample is most likely, given the others.
        """
        n, q = self.points.shape
        mean = self.points.mean(0)
        factor = np.linalg.cholesky(np.atleast_2d(np.cov(self.points, rowvar=False)))
        white = (self.points - mean) @ np.linalg.inv(factor).T
        own = np.square(white).sum(1)
        # Each with itself, and with others that are the same: steps at which a walker stayed.
        same = own[:, None] + own - 2 * white @ white.T < SAME

        def score(h: float) -> float:
            squared = own[:, None] + (1 - h**2) * own - 2 * np.sqrt(1 - h**2) * white @ white.T
            squared[same] = np.inf
            return float(logsumexp(-0.5 * squared / h**2, axis=1).mean() - q * np.log(h))

        h = max((min(width * n ** (-1 / (q + 4)), WIDEST) for width in WIDTHS), key=score)
        return mean + np.sqrt(1 - h**2) * (self.points - mean), h * factor

    def log_ratio(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the density over that of independent parameters, (n,), at shares u (n, Q) of the marginals."""
        z = ndtri(np.clip(u, EDGE, 1 - EDGE))
        centres, factor = self._kernel
        inverse = np.linalg.inv(factor)
        white, around = z @ inverse.T, centres @ inverse.T
        own = np.square(around).sum(1)
        log_density = [
            logsumexp(part @ around.T - 0.5 * own, axis=1) - 0.5 * np.square(part).sum(1)
            for part in np.array_split(white, max(1, -(-len(white) * len(around) // AT_ONCE)))
        ]
        norm = np.log(len(around)) + np.log(np.diag(factor)).sum()
        return np.concatenate(log_density) - norm + 0.5 * np.square(z).sum(1)

    def from_uniform(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares (n, Q) of the marginals, from uniform numbers (n, Q + 1)."""
        centres, factor = self._kernel
        rows = np.minimum((u[:, 0] * len(centres)).astype(int), len(centres) - 1)
        z = centres[rows] + ndtri(np.clip(u[:, 1:], EDGE, 1 - EDGE)) @ factor.T
        return np.asarray(ndtr(z))

    def only(self, columns: Sequence[int]) -> "Dependence | None":
        """Dependence of some of all parameters, numbered anew in this order; None for fewer than two."""
        kept = [(new, self.columns.index(old)) for new, old in enumerate(columns) if old in self.columns]
        if len(kept) < 2:
            return None
        return Dependence(tuple(new for new, _ in kept), self.points[:, [old for _, old in kept]])

    def to_json(self) -> dict[str, Any]:
        """Columns and points, for JSON."""
        return {"columns": list(self.columns), "points": self.points.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Dependence":
        """Read what `to_json` gave."""
        return cls(tuple(content["columns"]), np.array(content["points"], np.float64))
