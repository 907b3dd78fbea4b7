"""Regions that hold the mass of a posterior, and the prior inside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation

if TYPE_CHECKING:
    from eorinfer.npe.posterior import Posterior

#: Draws at once in sampling by rejection, and draws that a region is made from.
BATCH = 10000


@dataclass(frozen=True)
class Region:
    """Region with the mass of one posterior for one observation: density above a threshold, inside a box.

    Attributes
    ----------
    posterior
        Posterior of the round that the region truncates after.
    observation
        Observation that it was made for.
    threshold
        Log density that all but a small share of the posterior's mass exceeds.
    box
        Part of the prior that spans this mass; draws start from it.
    """

    posterior: "Posterior"
    observation: Observation
    threshold: float
    box: Prior

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell for each theta (n, P) whether it is inside: (n,)."""
        inside = self.box.contains(theta)
        if inside.any():
            inside[inside] = self.posterior.log_density(theta[inside], self.observation) > self.threshold
        return inside


def draw_truncated(
    prior: Prior, regions: Sequence[Region], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """N draws (n, P) from the prior inside all regions, by rejection, and the share of the prior they leave.

    Truncated proposals: Deistler, Goncalves & Macke 2022 (arXiv 2210.04815).

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
        theta = box.sample(BATCH, rng)
        for region in regions:
            theta = theta[region.contains(theta)] if len(theta) else theta
        kept.append(theta)
        accepted, tried = accepted + len(theta), tried + BATCH
        if accepted < tried * 1e-6 - 10:
            raise WorkError("the truncated prior is less than a millionth of the box around it; use fewer rounds")
    return np.concatenate(kept)[:n], accepted / tried * share
