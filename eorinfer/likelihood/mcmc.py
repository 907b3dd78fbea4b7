"""emcee on a vectorised likelihood, until it has converged or says that it has not."""

import hashlib
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emcee
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import WorkError
from eorinfer.core.likelihood import LogLikelihood, evaluated, refuse_nothing
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.samples import Samples
from eorinfer.core.sole import sole_worker
from eorinfer.likelihood.chain_file import KeptBackend, open_chain
from eorinfer.likelihood.convergence import AGREE, LONG_ENOUGH, measures, split_r_hat
from eorinfer.settings.likelihood import McmcSettings

#: Autocorrelation times that are thrown away as burn-in.
BURN_IN = 5
#: Draws from the prior among which the walkers' starting points are chosen.
START_DRAWS = 20000


@dataclass(frozen=True)
class Chain:
    """A finished chain.

    Attributes
    ----------
    samples
        Samples without burn-in, thinned by half an autocorrelation time.
    converged
        Whether it is 50 autocorrelation times long and its parts agree.
    steps
        Number of steps of each walker.
    autocorrelation
        Longest autocorrelation time of a parameter, in steps.
    r_hat
        Largest `split_r_hat` of a parameter, over halves of the chain and groups of walkers.
    acceptance
        Mean share of accepted proposals.
    seconds, evaluations
        Seconds and evaluations of the likelihood that it took, in all calls.
    """

    samples: Samples
    converged: bool
    steps: int
    autocorrelation: float
    r_hat: float
    acceptance: float
    seconds: float
    evaluations: int

    @property
    def measures(self) -> str:
        """What convergence is judged by, in words."""
        return measures(self.steps / self.autocorrelation, self.r_hat)

    @property
    def facts(self) -> dict[str, Any]:
        """What the run folder keeps of its length, for JSON."""
        return {
            "converged": self.converged,
            "steps": self.steps,
            "autocorrelation_time": self.autocorrelation,
            "r_hat": self.r_hat if np.isfinite(self.r_hat) else None,
            "acceptance": self.acceptance,
        }

    def say(self, progress: Progress) -> None:
        """Say where it has not converged."""
        if not self.converged:
            progress.line(
                f"{self.samples.label}: NOT CONVERGED after {self.steps} steps, {self.measures}; raise [mcmc] max_steps"
            )


def run_mcmc(
    log_likelihood: LogLikelihood,
    prior: Prior,
    settings: McmcSettings,
    *,
    file: Path | None,
    key: str,
    seed: int,
    label: str = "power-spectrum MCMC",
    start_draws: int = START_DRAWS,
    start: NDArray[np.float64] | None = None,
    progress: Progress | None = None,
) -> Chain:
    """Sample likelihood times prior, on from what `file` has.

    Parameters
    ----------
    log_likelihood
        theta (n, P) to (n,); called with half of the walkers at a time.
    prior
        The walkers start at draws from it that are chosen by their posterior.
    settings
        ``[mcmc]``.
    file
        HDF5 file in the layout of emcee's own backend, see `eorinfer.likelihood.chain_file`; None keeps the chain in
        memory alone and starts afresh.
    key
        Hash of the likelihood: a chain of another likelihood is never continued.
    seed
        Seed of starting points and proposals.
    label
        Name in legends and in lines of progress.
    start_draws
        Draws from the prior among which the starting points are chosen.
    start
        (walkers, P) starting points that are known already, instead.
    progress
        Receives a line after each block.
    """
    target = prior.times(log_likelihood)

    def log_probability(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.full(len(theta), -np.inf)
        inside = prior.contains(theta)
        if inside.any():
            out[inside] = evaluated(target, theta[inside])
            backend.evaluations += int(inside.sum())
        return out

    progress = progress or Silent()
    # The name includes the moves: a chain begun with the old snooker move must not be continued.
    density = "" if prior.flat else f" {prior.hash()}"
    name = hashlib.sha256(f"{key} {settings.walkers} {start_draws} {seed} de{density}".encode()).hexdigest()[:16]
    with nullcontext() if file is None else sole_worker(file):
        backend = KeptBackend(None, name) if file is None else open_chain(file, name, progress)
        dimension = len(prior.parameters)
        options = {"backend": backend, "vectorize": True, "moves": moves()}
        sampler = emcee.EnsembleSampler(settings.walkers, dimension, log_probability, **options)
        sampler.log_prob_fn = log_probability  # emcee's wrapper prints a traceback at Ctrl-C, and at errors told later
        fresh = not backend.initialized or backend.iteration == 0
        if fresh:
            if start is None:
                rng = np.random.default_rng(seed)
                start = _starting_points(log_probability, prior, settings.walkers, start_draws, rng)
            state = emcee.State(start)
            state.random_state = np.random.RandomState(seed % 2**32).get_state()
        else:
            state = sampler.get_last_sample()
            # The stored state of the generator goes on where it was.
            state.random_state = backend.random_state
        while True:
            done = backend.iteration if backend.initialized else 0
            # Only at the ends of blocks, so that a chain that was stopped ends where it would have ended.
            into_block = done % settings.steps
            if done >= settings.max_steps or (done and not into_block):
                tau = _autocorrelation(sampler)
                kept = _without_burn_in(sampler, tau)
                r_hat = split_r_hat(kept)
                progress.line(
                    f"{label}: {done} steps, R-hat {r_hat:.3f} ({AGREE} at most), {done / tau:.0f} "
                    f"autocorrelation times of {tau:.0f} steps, of {LONG_ENOUGH} needed"
                )
                converged = bool(done >= LONG_ENOUGH * tau and r_hat <= AGREE)
                if converged or done >= settings.max_steps:
                    break
            steps = min(settings.steps - into_block, settings.max_steps - done)
            state = _advanced(sampler, state, steps, skip_initial_state_check=not fresh)
            fresh = False
        with suppress(WorkError):  # a chain without its second name is whole
            backend.be_present()
        values = kept.reshape(-1, dimension)
        samples = Samples.unweighted(values, prior.parameters, label, correlated=True)
        acceptance = float(np.mean(sampler.acceptance_fraction))
        return Chain(samples, converged, done, tau, r_hat, acceptance, backend.seconds, backend.evaluations)


def _advanced(sampler: emcee.EnsembleSampler, state: emcee.State, steps: int, **options: bool) -> emcee.State:
    """Go some steps on; what was done is written, of an interrupted block too."""
    try:
        state = sampler.run_mcmc(state, steps, **options)
    except BaseException:
        with suppress(WorkError):
            sampler.backend.write()
        raise
    sampler.backend.write()
    return state


def states_from(
    log_density: LogLikelihood, start: NDArray[np.float64], n: int, thin: int, seed: int
) -> NDArray[np.float64]:
    """Give states (n, P) of walkers that begin at draws (W, P) of a density, so that nothing has to be burnt in.

    Parameters
    ----------
    log_density
        Log density (n,) of points (n, P), up to a constant.
    start
        Independent draws (W, P), a walker each.
    n
        Number of states.
    thin
        One state in so many is kept.
    seed
        Seed of the moves.
    """
    sampler = emcee.EnsembleSampler(*start.shape, log_density, moves=moves(), vectorize=True)
    state = emcee.State(start, random_state=np.random.RandomState(seed).get_state())
    sampler.run_mcmc(state, -(-n // len(start)), thin_by=thin)
    return np.asarray(sampler.get_chain(flat=True)[:n])


def moves() -> list[tuple[emcee.moves.Move, float]]:
    """How walkers move, with the share of each.

    Differential evolution crosses from one mode to another, which stretch moves hardly do; most of all with the whole
    distance between two walkers. The snooker move of emcee 3.1.6 makes posteriors too narrow, by 5% in two dimensions
    and 16% in five (its acceptance; emcee's pull request 531).
    """
    return [
        (emcee.moves.StretchMove(), 0.5),
        (emcee.moves.DEMove(), 0.4),
        (emcee.moves.DEMove(gamma0=1.0), 0.1),
    ]


def _starting_points(
    log_probability: LogLikelihood,
    prior: Prior,
    walkers: int,
    draws: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Distinct draws (walkers, P) from the prior, weighted by the posterior.

    A walker that starts where the posterior has nothing can stay in a negligible mode for the
    whole chain, which the autocorrelation time does not show.
    """
    theta = prior.sample(max(draws, 10 * walkers), rng)
    log_p = log_probability(theta) - prior.log_relative(theta)
    refuse_nothing(log_p, "draws from the prior")
    # Largest of log weight plus Gumbel noise: weighted sampling without replacement.
    return theta[np.argsort(-(log_p + rng.gumbel(size=len(theta))))[:walkers]]


def _autocorrelation(sampler: emcee.EnsembleSampler) -> float:
    """Longest integrated autocorrelation time; the chain's length when it cannot be estimated."""
    with np.errstate(invalid="ignore", divide="ignore"):  # of one step, or of walkers that never moved
        tau = sampler.get_autocorr_time(tol=0)
    return float(np.max(tau)) if np.isfinite(tau).all() else float(sampler.backend.iteration)


def _without_burn_in(sampler: emcee.EnsembleSampler, tau: float) -> NDArray[np.float64]:
    """Chain (steps, walkers, P) without burn-in, thinned by half an autocorrelation time; or its second half."""
    done = sampler.backend.iteration
    burn_in, thin = int(BURN_IN * tau), max(1, int(tau / 2))
    if burn_in > done // 2:
        burn_in, thin = done // 2, 1
    return np.asarray(sampler.get_chain(discard=burn_in, thin=thin))
