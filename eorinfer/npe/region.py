"""Regions of a truncated prior, and draws from the prior inside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.mcmc import states_from

#: Draws at once in sampling by rejection.
BATCH = 10000
#: Of MANY draws, where less than the share RARE is accepted, those beyond the first WALKERS come from chains that begin
#: at these, and keep one state in THIN. Fewer draws are worth a simulation each, and are all independent.
MANY, RARE, WALKERS, THIN = 10000, 0.05, 500, 4
#: A region's box is larger than the span of a posterior's samples by this share on each side.
MARGIN = 0.1


class Truncating(Protocol):
    """The members of an `eorinfer.Posterior` that a region uses."""

    def log_density(self, theta: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
        """Log density (n,) of theta (n, P)."""

    def save(self, folder: Path) -> None:
        """Write it to a folder."""


@dataclass(frozen=True)
class Region:
    """Region with the mass of one posterior for one observation: density above a threshold, inside a box.

    Attributes
    ----------
    posterior
        Posterior of the round after which the prior is truncated.
    observation
        Observation that it was made for.
    threshold
        Log density that all but a small share of the posterior's mass exceeds.
    box
        Part of the prior that spans this mass; draws start from it.
    """

    posterior: Truncating
    observation: Observation
    threshold: float
    box: Prior

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell for each theta (n, P) whether it is inside: (n,)."""
        inside = self.box.contains(theta)
        if inside.any():
            inside[inside] = self.posterior.log_density(theta[inside], self.observation) > self.threshold
        return inside


def inside_all(prior: Prior, regions: Sequence[Region], theta: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which theta (n, P) are inside the prior and every region: (n,)."""
    inside = prior.contains(theta)
    for region in reversed(regions):  # the last one is the smallest
        inside[inside] = region.contains(theta[inside])
    return inside


def high_density(
    theta: NDArray[np.float64], log_density: NDArray[np.float64], truncation: float, prior: Prior
) -> tuple[float, Prior]:
    """Find the threshold that all but a share of a posterior's draws exceed, and the part of the prior they span.

    Parameters
    ----------
    theta, log_density
        Draws (n, P), and their log densities (n,).
    truncation
        The share.
    prior
        What the box is a part of.
    """
    threshold = float(np.quantile(log_density, truncation))
    c = prior.coordinates(theta[log_density > threshold])
    margin = MARGIN * np.ptp(c, axis=0)
    return threshold, prior.within(*(prior.from_coordinates(end) for end in (c.min(0) - margin, c.max(0) + margin)))


def draw_truncated(
    prior: Prior, regions: Sequence[Region], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Draw n times (n, P) from the prior inside all regions, and tell the share of the prior that they leave.

    The draws are by rejection, and independent. Where many are wanted and few accepted, those beyond the first are
    states of chains. Each chain begins at one of the first draws, so that all its states are distributed as these.
    Truncated proposals: Deistler, Goncalves & Macke 2022 (arXiv 2210.04815). The chains are emcee's.

    Raises
    ------
    WorkError
        If the region is less than a millionth of its box.
    """
    # Parameters that depend on each other are drawn from all of the prior: its share in a box is not known.
    box = regions[-1].box if regions and prior.dependence is None else prior
    share = prior.share(box)
    kept: list[NDArray[np.float64]] = []
    accepted = tried = 0
    while accepted < n:
        if n >= MANY and WALKERS <= accepted < RARE * tried:
            break
        theta = box.sample(BATCH, rng)
        theta = theta[inside_all(prior, regions, theta)]
        kept.append(theta)
        accepted, tried = accepted + len(theta), tried + BATCH
        if accepted < tried * 1e-6 - 10:
            raise WorkError("the truncated prior is less than a millionth of the box around it; use fewer rounds")
    drawn = np.concatenate(kept)[:n]
    if len(drawn) < n:
        drawn = np.concatenate([drawn, _walked(prior, regions, drawn[:WALKERS], n - len(drawn), rng)])
    return drawn, accepted / tried * share


def _walked(
    prior: Prior, regions: Sequence[Region], start: NDArray[np.float64], n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """States (n, P) of chains from draws (WALKERS, P) that lie inside all regions."""

    def log_density(c: NDArray[np.float64]) -> NDArray[np.float64]:
        theta = prior.from_coordinates(c)
        inside = inside_all(prior, regions, theta)
        log_p = np.full(len(theta), -np.inf)
        log_p[inside] = prior.log_factor(theta[inside])
        return log_p

    states = states_from(log_density, prior.coordinates(start), n, THIN, int(rng.integers(2**32)))
    return prior.from_coordinates(states)
