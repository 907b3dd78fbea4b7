"""Annealed sampling: particles that go from the prior to a posterior, with its evidence, by a cheap likelihood.

emcee's walkers stay where they start, where nine parameters make a posterior that is curved and ends at the prior's
edges. Particles that are spread over the prior, and that the likelihood is turned on for in steps, are not caught
(sequential Monte Carlo; Del Moral, Doucet & Jasra 2006, doi:10.1111/j.1467-9868.2006.00553.x). Their mean weights give
the evidence. It takes some hundred evaluations a particle, many at once.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri

from eorinfer.core.likelihood import LogLikelihood, evaluated, refuse_nothing
from eorinfer.core.prior import Prior
from eorinfer.likelihood.importance import EDGE

#: Share of the particles that count after each step of the annealing.
COUNTING = 0.5
#: Moves of each particle after a step, and after the last one.
MOVES, LAST_MOVES = 15, 45
#: Accepted share of the moves that their size is adapted to, and share of moves of a whole distance.
ACCEPTED, WHOLE = 0.2, 0.1
#: Parts of the parameters that moves change.
CHANGED = (0.3, 0.6, 1.0)
#: Scatter of each move beside the distance of two particles.
JITTER = 1e-4


def anneal(
    log_l: LogLikelihood, prior: Prior, n: int, seed: int, power: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw from the prior times a power of the likelihood.

    Particles move by differential evolution in the probit of the box, in two halves, each by the distances in the other
    one, so that no edge refuses a move.

    Parameters
    ----------
    log_l
        Log likelihood of theta (m, P), up to a constant: (m,).
    prior
        Prior, in which the particles start.
    n
        Number of particles, even.
    seed
        Seed of starting points and moves.
    power
        Power of the likelihood; below one the draws are wider than the posterior, and may be weighed.

    Returns
    -------
    theta, log_q
        Draws (n, P), and their log density (n,), normalised by the evidence that the particles give.

    Raises
    ------
    WorkError
        If the likelihood is zero at all starting points, or not a number at some point.
    """
    rng = np.random.default_rng(seed)

    def at(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log likelihood, and log density of the prior in z up to a constant."""
        theta = prior.from_unit(ndtr(z))
        return power * evaluated(log_l, theta), prior.log_factor(theta) - 0.5 * (z**2).sum(-1)

    z = ndtri(np.clip(prior.unit(prior.sample(n, rng)), EDGE, 1 - EDGE))
    value, density = at(z)
    refuse_nothing(value, "draws from the prior")
    share, size, log_evidence = 0.0, 1.0, 0.0
    while share < 1:
        step = _step(value, 1 - share)
        log_weight = step * value
        log_evidence += logsumexp(log_weight) - np.log(n)
        chosen = _resampled(np.exp(log_weight - logsumexp(log_weight)), rng)
        z, value, density = z[chosen], value[chosen], density[chosen]
        share += step
        for _ in range(MOVES if share < 1 else LAST_MOVES):
            accepted = 0
            order = rng.permutation(n)
            for movers, others in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
                proposed = z[movers] + _moves(z[others], len(movers), size, rng)
                new_value, new_density = at(proposed)
                log_ratio = share * (new_value - value[movers]) + new_density - density[movers]
                taken = np.log(rng.random(len(movers))) < log_ratio
                into = movers[taken]
                z[into], value[into], density[into] = proposed[taken], new_value[taken], new_density[taken]
                accepted += len(into)
            size *= np.exp(accepted / n - ACCEPTED)
    theta = prior.from_unit(ndtr(z))
    return theta, value + prior.log_relative(theta) + prior.log_density - log_evidence


def _step(value: NDArray[np.float64], rest: float) -> float:
    """Find the largest step, at most the rest, after which `COUNTING` of the particles count by their weights."""

    def counting(step: float) -> float:
        log_weight = step * value
        return float(np.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight))) / len(value)

    if counting(rest) >= COUNTING:
        return rest
    low, high = 0.0, rest
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if counting(middle) >= COUNTING else (low, middle)
    return low or high  # where less than half of the draws have any likelihood


def _resampled(share: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw as many particles as there are, each as often as its share says, to one up or down."""
    at = (rng.random() + np.arange(len(share))) / len(share)
    return np.minimum(np.searchsorted(np.cumsum(share), at), len(share) - 1)


def _moves(others: NDArray[np.float64], n: int, size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Give the distances (n, P) of pairs of other particles, in some of the parameters."""
    m, parameters = others.shape
    one = rng.integers(m, size=n)
    two = (one + 1 + rng.integers(m - 1, size=n)) % m
    factor = np.where(rng.random(n) < WHOLE, 1.0, size * 2.38 / np.sqrt(2 * parameters))
    changed = rng.random((n, parameters)) < rng.choice(CHANGED, n)[:, None]
    distance = factor[:, None] * (others[one] - others[two]) * changed
    return np.asarray(distance + JITTER * rng.standard_normal((n, parameters)))
