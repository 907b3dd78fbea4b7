"""A likelihood of few parameters on a grid: samples of its posterior under a flat prior, and the evidence."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples

#: Log likelihood below its maximum at which a point counts as having nothing.
NOTHING = 25.0
#: A grid over the prior, then two over the part of it that matters.
REFINEMENTS = 3
#: Points along each parameter of `grid_samples`.
GRID_POINTS = 400


@dataclass(frozen=True)
class Grid:
    """Log likelihood at the centres of the cells of a grid that spans all that matters.

    Attributes
    ----------
    theta
        (N, P) centres.
    values
        (N,) log likelihood, up to a constant.
    width
        (P,) of a cell.
    """

    theta: NDArray[np.float64]
    values: NDArray[np.float64]
    width: NDArray[np.float64]

    @property
    def log_integral(self) -> float:
        """Log of the likelihood's integral over theta."""
        return float(logsumexp(self.values) + np.log(self.width).sum())

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Samples (n, P), each uniform inside its cell, and the log posterior density (n,) of the cell."""
        rows = rng.choice(len(self.theta), n, p=np.exp(self.values - logsumexp(self.values)))
        theta = self.theta[rows] + self.width * (rng.random((n, len(self.width))) - 0.5)
        return theta, self.values[rows] - self.log_integral


def refined_grid(log_l: LogLikelihood, prior: Prior, points: int) -> Grid:
    """Evaluate a likelihood on a grid over the prior, then on finer ones around its mass.

    Parameters
    ----------
    log_l
        Log likelihood of theta (n, P), up to a constant: (n,).
    prior
        Box of one, two or three parameters; a grid of more is too large.
    points
        Along each parameter.
    """
    low, high = prior.low, prior.high
    axes = range(len(low))
    for _ in range(REFINEMENTS):
        edges = [np.linspace(a, b, points + 1) for a, b in zip(low, high, strict=True)]
        centres = [(e[1:] + e[:-1]) / 2 for e in edges]
        theta = np.array(list(itertools.product(*centres)))
        values = log_l(theta)
        inside = (values > values.max() - NOTHING).reshape((points,) * len(low))
        # Shrink to the bounding box of all that matters, one cell wider.
        for axis in axes:
            hit = np.flatnonzero(inside.any(axis=tuple(other for other in axes if other != axis)))
            low[axis] = edges[axis][max(hit[0] - 1, 0)]
            high[axis] = edges[axis][min(hit[-1] + 2, points)]
    return Grid(theta, values, np.array([e[1] - e[0] for e in edges]))


def grid_samples(
    log_l: LogLikelihood,
    prior: Prior,
    n: int,
    seed: int,
    label: str,
    points: int = GRID_POINTS,
) -> Samples:
    """Samples of a likelihood under a flat prior, from a grid refined around its mass.

    Parameters
    ----------
    log_l, prior, points
        See `refined_grid`.
    n
        Number of samples.
    seed
        Seed of the draw.
    label
        Name in legends.
    """
    theta, _ = refined_grid(log_l, prior, points).draw(n, np.random.default_rng(seed))
    return Samples.unweighted(theta, prior.parameters, label)
