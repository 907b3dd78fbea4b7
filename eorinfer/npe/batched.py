"""Samples of one posterior for many observations at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.errors import WorkError
from eorinfer.npe import ensemble
from eorinfer.npe.density import Ensemble, ThetaDensity

#: Draws for each sample that is wanted, before a posterior counts as having hardly any mass inside its regions.
TRIES = 50


@dataclass(frozen=True)
class Draws:
    """Samples of B posteriors.

    Attributes
    ----------
    values
        (B, n, P).
    share
        (B,) share of the posterior's mass that is inside its regions; 1 when it has none.
    pooled
        (B,) whether it has so little mass there that its samples were chosen, by their density,
        among given draws from the truncated prior.
    """

    values: NDArray[np.float64]
    share: NDArray[np.float64]
    pooled: NDArray[np.bool_]


@dataclass(frozen=True)
class Truncation:
    """Draws from the prior inside the regions of a posterior.

    Attributes
    ----------
    theta
        (m, P)
    volume
        Share of the prior that is inside.
    """

    theta: NDArray[np.float64]
    volume: float


def draw_untruncated(
    networks: Sequence[ThetaDensity], read: Sequence[Tensor], n: int, seed: int
) -> NDArray[np.float64]:
    """Draw theta (B, n, P) from an ensemble, given features (B, F) of each network, whatever the regions are."""
    size = len(read[0])
    values = np.empty((size, n, len(networks[0].low)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for rows in ensemble.observation_slices(size, n):
            values[rows] = _numbers(ensemble.draw(networks, n, [f[rows] for f in read]))
    return values


def _numbers(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give draws (B, n, P) back.

    Raises
    ------
    WorkError
        If a network draws what is no number.
    """
    bad = ~np.isfinite(theta).all((1, 2))
    if bad.any():
        raise WorkError(
            f"the networks draw parameters that are not numbers for {int(bad.sum())} of {len(theta)} observations; "
            "they read nothing like these in training"
        )
    return theta


def draw(
    posterior: Ensemble,
    read: Sequence[Tensor],
    n: int,
    seed: int,
    truncation: Truncation | None = None,
) -> Draws:
    """Draw from the posteriors of B observations, each normalised inside the regions.

    A posterior's `draw` refuses an observation whose posterior has more than a little mass outside
    of the regions, since it cannot be answered for. Here the observations come from parameters
    inside them, and at the border it is right that some mass is outside: what the prior inside the
    regions makes of it is the part inside. It is found by rejection; where that would take more than
    `TRIES` draws a sample, by choosing among draws from the truncated prior p with weights q(theta | x) / p(theta)
    (sampling importance resampling), so that no truth has to be left out.

    Parameters
    ----------
    posterior
        Posterior, with or without regions.
    read
        Features (B, F) of each network, from `features`.
    n
        Samples of each.
    seed
        Seed of the draw.
    truncation
        Needed when there are regions.
    """
    size = len(read[0])
    share, pooled = np.ones(size), np.zeros(size, bool)
    if not posterior.regions:
        return Draws(draw_untruncated(posterior.networks, read, n, seed), share, pooled)
    values = np.empty((size, n, len(posterior.prior.parameters)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for rows in ensemble.observation_slices(size, n):
            values[rows], share[rows], pooled[rows] = _inside(posterior, [f[rows] for f in read], n)
    if pooled.any():
        assert truncation is not None, "the prior inside the regions is needed"
        pool, rng = truncation.theta, np.random.default_rng(seed)
        relative = posterior.prior.log_relative(pool)
        for i in np.flatnonzero(pooled):
            log_q = ensemble.log_density(posterior.networks, pool[None], [f[i : i + 1] for f in read])[0] - relative
            log_q = np.where(np.isnan(log_q), -np.inf, log_q)
            if not np.isfinite(log_q.max()):
                # It has nothing there at all: the prior is left, and the share of 0 says so.
                values[i], share[i] = pool[rng.choice(len(pool), n)], 0.0
                continue
            weights = np.exp(log_q - log_q.max())
            values[i] = pool[rng.choice(len(pool), n, p=weights / weights.sum())]
            # The integral of q over the regions: the mean there of q over the prior, times the prior's mass.
            log_volume = np.log(truncation.volume) - posterior.prior.log_density
            share[i] = np.exp(np.log(weights.mean()) + log_q.max() + log_volume)
    return Draws(values, share, pooled)


def _inside(
    posterior: Ensemble, read: Sequence[Tensor], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Draw (B, n, P) inside the regions by rejection; also the share accepted (B,), and which got fewer than n (B,)."""
    size = len(read[0])
    values = np.zeros((size, n, len(posterior.prior.parameters)))
    accepted, tried = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for _ in range(TRIES):
        left = np.flatnonzero(accepted < n)
        if not len(left):
            break
        drawn = _numbers(ensemble.draw(posterior.networks, n, [f[left] for f in read]))
        inside = posterior.contains(drawn.reshape(-1, drawn.shape[-1])).reshape(drawn.shape[:2])
        for i, theta, kept in zip(left, drawn, inside, strict=True):
            # Those that are too many count for the share all the same.
            start = min(accepted[i], n)
            new = theta[kept][: n - start]
            values[i, start : start + len(new)] = new
            accepted[i] += kept.sum()
            tried[i] += n
    return values, accepted / tried, accepted < n
