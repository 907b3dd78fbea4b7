"""Samples of the posterior of one likelihood, with its normalised density: by grid, MCMC or importance weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.core.seeds import item_seed
from eorinfer.likelihood.annealed import anneal
from eorinfer.likelihood.grid import refined_grid
from eorinfer.likelihood.importance import ENOUGH, Weighted, adapted, around, weighted
from eorinfer.likelihood.mcmc import START_DRAWS, run_mcmc
from eorinfer.settings.likelihood import McmcSettings

#: Parameters up to which a posterior is taken from a grid.
GRID = 2
#: Steps of a chain, at first and at most; draws that its evidence is taken from.
STEPS, MOST_STEPS, EVIDENCE_DRAWS = 1000, 4000, 4000
#: Particles of an approximate likelihood to a power, of which every second is weighed, and times that they are drawn.
PARTICLES, POWER, TIMES = 4000, 0.8, 6


@dataclass(frozen=True)
class PosteriorSample:
    """Samples of a posterior, and how dense it is.

    Attributes
    ----------
    values
        (n, P).
    at_samples
        (n,) log posterior density there, normalised.
    at_truth
        The same at the parameters that the observation was made with.
    good
        Whether the chain was long enough, and the weights even enough, to be relied on.
    """

    values: NDArray[np.float64]
    at_samples: NDArray[np.float64]
    at_truth: float
    good: bool


def sample_on_grid(
    log_l: LogLikelihood, prior: Prior, truth: NDArray[np.float64], n: int, seed: int, points: int
) -> PosteriorSample:
    """Sample on a grid refined around the likelihood's mass, with `points` points along each of few parameters.

    Parameters
    ----------
    log_l
        Log likelihood of theta (n, P), up to a constant: (n,).
    prior
        Prior of few parameters.
    truth
        (P,) where the density is wanted.
    n
        Samples.
    seed
        Seed of the draw.
    """
    grid = refined_grid(log_l, prior, points)
    values, at_samples = grid.draw(n, np.random.default_rng(seed))
    return PosteriorSample(values, at_samples, float(prior.times(log_l)(truth[None])[0]) - grid.log_integral, True)


def sample_by_mcmc(
    log_l: LogLikelihood,
    prior: Prior,
    truth: NDArray[np.float64],
    n: int,
    seed: int,
    *,
    mcmc: McmcSettings,
    start_draws: int = START_DRAWS,
) -> PosteriorSample:
    """Sample by emcee; importance weights around the chain give the evidence.

    Parameters
    ----------
    log_l, prior, truth, n, seed
        See `sample_on_grid`.
    mcmc
        ``[mcmc]``: walkers; steps are `STEPS` to `MOST_STEPS`.
    start_draws
        Draws from the prior among which the walkers' starting points are chosen.
    """
    rng = np.random.default_rng(seed)
    limits = {"steps": STEPS, "max_steps": MOST_STEPS}
    chain = run_mcmc(
        log_l,
        prior,
        mcmc.model_copy(update=limits),
        file=None,
        key="afresh",
        seed=seed,
        start_draws=start_draws,
        progress=Silent(),
    )
    values = chain.samples.values[rng.choice(len(chain.samples), n)]
    evidence = weighted(log_l, prior, *around(chain.samples.values, prior, EVIDENCE_DRAWS, seed))
    at_samples, at_truth = (prior.times(log_l)(theta) - evidence.log_integral for theta in (values, truth[None]))
    return PosteriorSample(values, at_samples, float(at_truth[0]), chain.converged and evidence.reliable)


def sample_by_importance(
    log_l: LogLikelihood,
    prior: Prior,
    theta: NDArray[np.float64],
    log_q: NDArray[np.float64],
    truth: NDArray[np.float64],
    n: int,
    seed: int,
    wanted: float = ENOUGH,
) -> PosteriorSample | None:
    """Sample by `adapted` weights of draws theta (m, P) of log density log_q (m,); None if they are not reliable."""
    weighed = adapted(log_l, prior, theta, log_q, seed, wanted)
    if not weighed.reliable:
        return None
    values, at_samples = weighed.draw(n, np.random.default_rng(seed))
    return PosteriorSample(values, at_samples, float(prior.times(log_l)(truth[None])[0]) - weighed.log_integral, True)


def from_prior(
    log_l: LogLikelihood, prior: Prior, truth: NDArray[np.float64], n: int, seed: int, draws: int
) -> PosteriorSample | None:
    """Sample by weights of prior draws, `adapted` until a fifth of them counts; None if they are never reliable."""
    theta = prior.sample(draws, np.random.default_rng(seed))
    log_q = prior.log_density + prior.log_relative(theta)
    return sample_by_importance(log_l, prior, theta, log_q, truth, n, seed, wanted=draws / 5)


def sample_by_approximation(
    log_l: LogLikelihood,
    approximate: LogLikelihood,
    prior: Prior,
    truth: NDArray[np.float64],
    n: int,
    seed: int,
    improve: Callable[[int], LogLikelihood] | None = None,
) -> PosteriorSample:
    """Sample by weights of draws that are annealed by an approximate likelihood, which is fast.

    Parameters
    ----------
    log_l
        Exact log likelihood, of which half as many values are computed as there are `PARTICLES`, and more where too few
        of the draws count.
    approximate
        Log likelihood that is near it, see `anneal`.
    prior, truth, n, seed
        See `sample_on_grid`.
    improve
        Gives a better approximation, of what was computed so far, from a seed; without it new draws are from the same.
    """
    best: Weighted | None = None
    for number in range(TIMES):
        own = item_seed(seed, number)
        theta, log_q = anneal(approximate, prior, PARTICLES, own, POWER)
        latest = weighted(log_l, prior, theta[::2], log_q[::2])
        best = latest if best is None else max(best, latest, key=lambda draws: (draws.reliable, draws.effective))
        if best.reliable:
            break
        if improve is not None:
            approximate = improve(own)
    assert best is not None
    values, at_samples = best.draw(n, np.random.default_rng(seed))
    at_truth = float(prior.times(log_l)(truth[None])[0]) - best.log_integral
    return PosteriorSample(values, at_samples, at_truth, best.reliable)
