"""Importance sampling: a posterior, and its evidence, from draws of something that is close to it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import multivariate_t

from eorinfer.core.likelihood import LogLikelihood, evaluated
from eorinfer.core.prior import Prior
from eorinfer.likelihood.pareto import largest_k, pareto_k

#: Effective samples below which weights are not to be relied on.
ENOUGH = 200
#: Times that a proposal is made anew from weighted draws of the last one.
ADAPTATIONS = 5
#: The proposal made from a chain: widths over the chain's, and degrees of freedom of its tails.
WIDER, FREEDOM = 1.3, 5
#: No sample is nearer to an edge of the prior than this share of its side, so that its probit is finite.
EDGE = 1e-9


@dataclass(frozen=True)
class Weighted:
    """Draws with importance weights.

    Attributes
    ----------
    theta
        (m, P).
    log_weight
        (m,) log of likelihood, times `Prior.log_relative`, over the proposal's density.
    log_target
        (m,) log of the same without the proposal's density.
    """

    theta: NDArray[np.float64]
    log_weight: NDArray[np.float64]
    log_target: NDArray[np.float64]

    @property
    def effective(self) -> float:
        """Kish's effective number of samples; 0 where none has a weight."""
        if not np.isfinite(self.log_weight).any():
            return 0.0
        return float(np.exp(2 * logsumexp(self.log_weight) - logsumexp(2 * self.log_weight)))

    @property
    def pareto_k(self) -> float:
        """Shape of the tail of the weights, see `eorinfer.likelihood.pareto`; infinite where none has a weight."""
        return pareto_k(self.log_weight)

    @property
    def reliable(self) -> bool:
        """Whether `ENOUGH` samples count, and the tail of the weights is light enough that their mean can be trusted.

        The effective number is of the weights that were drawn. Where the proposal misses a part of the posterior, the
        largest weights were not, and only the tail tells.
        """
        return self.effective >= ENOUGH and self.pareto_k <= largest_k(len(self.log_weight))

    @property
    def log_integral(self) -> float:
        """Log of the integral over theta of the likelihood times `Prior.log_relative`."""
        return float(logsumexp(self.log_weight) - np.log(len(self.log_weight)))

    def tempered(self) -> "Weighted":
        """Raise the weights to the highest power, at most one, at which `ENOUGH` of them count."""
        finite = np.isfinite(self.log_weight)

        def to(power: float) -> Weighted:
            log_weight = np.full(len(finite), -np.inf)
            log_weight[finite] = power * self.log_weight[finite]
            return replace(self, log_weight=log_weight)

        low, high = 0.0, 1.0
        for _ in range(30):
            power = (low + high) / 2
            low, high = (power, high) if to(power).effective >= ENOUGH else (low, power)
        return to(low)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Samples (n, P) by weight, with replacement, and the log posterior density (n,) of each."""
        rows = rng.choice(len(self.theta), n, p=np.exp(self.log_weight - logsumexp(self.log_weight)))
        return self.theta[rows], self.log_target[rows] - self.log_integral


def weighted(log_l: LogLikelihood, prior: Prior, theta: NDArray[np.float64], log_q: NDArray[np.float64]) -> Weighted:
    """Weigh draws theta (m, P) from a proposal of log density log_q (m,); those outside the prior count nothing."""
    values = np.full(len(theta), -np.inf)
    inside = prior.contains(theta)
    if inside.any():
        values[inside] = evaluated(prior.times(log_l), theta[inside])
    return Weighted(theta, values - log_q, values)


def adapted(
    log_l: LogLikelihood,
    prior: Prior,
    theta: NDArray[np.float64],
    log_q: NDArray[np.float64],
    seed: int,
    wanted: float = ENOUGH,
) -> Weighted:
    """Weigh draws, and, while fewer than wanted count or they are not reliable, as many new ones `around` them.

    Returned are the best found: reliable ones before others, then those of which more count.

    The weights that a new proposal is made of are tempered, so that `ENOUGH` of them count and a few high ones do not
    draw it together (adaptive importance sampling; Bugallo et al. 2017, doi:10.1109/MSP.2017.2699226). What the first
    proposal does not reach at all is not found.

    Parameters
    ----------
    log_l, prior, theta, log_q
        See `weighted`.
    seed
        Seed of the new draws.
    wanted
        Effective samples.
    """
    best = latest = weighted(log_l, prior, theta, log_q)
    for _ in range(ADAPTATIONS):
        if (best.effective >= wanted and best.reliable) or np.isfinite(latest.log_weight).sum() < ENOUGH:
            break
        chain, _ = latest.tempered().draw(len(theta), np.random.default_rng(seed))
        seed += 1
        latest = weighted(log_l, prior, *around(chain, prior, len(theta), seed))
        best = max(best, latest, key=lambda draws: (draws.reliable, draws.effective))
    return best


def around(chain: NDArray[np.float64], prior: Prior, n: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    """N draws (n, P), and their log density (n,), from Student's t in the probit of theta, fitted to a chain (m, P)."""
    z = ndtri(np.clip(prior.unit(chain), EDGE, 1 - EDGE))
    shape = np.atleast_2d(np.cov(z, rowvar=False)) * WIDER**2 * (FREEDOM - 2) / FREEDOM
    proposal = multivariate_t(z.mean(0), shape, df=FREEDOM, allow_singular=True, seed=seed)
    drawn = np.asarray(proposal.rvs(n)).reshape(n, len(prior.parameters))
    low, high = prior.box
    log_slope = -0.5 * (drawn**2 + np.log(2 * np.pi)) + np.log(high - low)
    theta = prior.from_unit(ndtr(drawn))
    return theta, proposal.logpdf(drawn) - log_slope.sum(-1) + prior.log_slope(theta)
