"""A likelihood of few parameters on a grid: samples of its posterior, and the evidence."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from eorinfer.core.likelihood import LogLikelihood, evaluated, refuse_nothing
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
    """Log posterior at the centres of the cells of a grid that spans all that matters.

    Attributes
    ----------
    centres
        (N, P) coordinates of the prior.
    values
        (N,) log likelihood, up to a constant, plus `Prior.log_factor`.
    width
        (P,) of a cell.
    prior
        Its coordinates are those of the grid.
    """

    centres: NDArray[np.float64]
    values: NDArray[np.float64]
    width: NDArray[np.float64]
    prior: Prior

    @property
    def theta(self) -> NDArray[np.float64]:
        """Theta (N, P) at the centres."""
        return self.prior.from_coordinates(self.centres)

    @property
    def log_integral(self) -> float:
        """Log of the integral over theta of the likelihood times `Prior.log_relative`."""
        return float(logsumexp(self.values) + np.log(self.width).sum())

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Samples (n, P), each uniform inside its cell, and the log posterior density (n,) of the cell."""
        rows = rng.choice(len(self.theta), n, p=np.exp(self.values - logsumexp(self.values)))
        theta = self.prior.from_coordinates(self.centres[rows] + self.width * (rng.random((n, len(self.width))) - 0.5))
        return theta, self.values[rows] - self.log_integral + self.prior.log_slope(theta)


def refined_grid(log_l: LogLikelihood, prior: Prior, points: int) -> Grid:
    """Evaluate a likelihood on a grid over the prior, then on finer ones around its mass.

    Parameters
    ----------
    log_l
        Log likelihood of theta (n, P), up to a constant: (n,).
    prior
        Prior of one, two or three parameters; a grid of more is too large. The grid is one of its coordinates.
    points
        Along each parameter.
    """
    low, high = prior.box
    axes = range(len(low))
    for _ in range(REFINEMENTS):
        edges = [np.linspace(a, b, points + 1) for a, b in zip(low, high, strict=True)]
        centres = [(e[1:] + e[:-1]) / 2 for e in edges]
        points_of_grid = np.array(list(itertools.product(*centres)))
        theta = prior.from_coordinates(points_of_grid)
        values = evaluated(log_l, theta) + prior.log_factor(theta)
        refuse_nothing(values, "points of a grid over the prior")
        inside = (values > values.max() - NOTHING).reshape((points,) * len(low))
        # Shrink to the bounding box of all that matters, one cell wider.
        for axis in axes:
            hit = np.flatnonzero(inside.any(axis=tuple(other for other in axes if other != axis)))
            low[axis] = edges[axis][max(hit[0] - 1, 0)]
            high[axis] = edges[axis][min(hit[-1] + 2, points)]
    return Grid(points_of_grid, values, np.array([e[1] - e[0] for e in edges]), prior)


def grid_samples(
    log_l: LogLikelihood,
    prior: Prior,
    n: int,
    seed: int,
    label: str,
    points: int = GRID_POINTS,
) -> Samples:
    """Draw n samples of a likelihood times the prior from a `refined_grid`; `label` is their name in legends."""
    theta, _ = refined_grid(log_l, prior, points).draw(n, np.random.default_rng(seed))
    return Samples.unweighted(theta, prior.parameters, label)
