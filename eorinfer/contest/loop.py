"""The simulator itself in emcee's loop, as in 21CMMC: the cost of a posterior without any learning."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Plan
from eorinfer.campaign.plans import Used, planned_rows
from eorinfer.contest.likelihoods import fixed_likelihood, fixed_precision
from eorinfer.contest.method import ContestSetup
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import Silent
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.convergence import LONG_ENOUGH
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.run.simulations import Simulations
from eorinfer.survey.base import Survey
from simulators.base import fingerprint_of

LABEL = "simulator in emcee's loop"
#: Draws of the survey whose mean is the expected spectrum of one simulation.
DRAWS = 16


def loop_posterior(setup: ContestSetup, observation: Observation, start: Samples) -> dict[str, Any]:
    """Run, or continue, a chain that simulates at every step; samples are in ``chains/loop``.

    As 21CMMC does (Greig & Mesinger 2015, arXiv 1501.06576): all simulations of one realisation, a Gaussian
    likelihood of P(k) with a fixed covariance, here the emulator's at the fiducial parameters. Every simulation is
    kept in the bank; a chain that was stopped is continued.

    Parameters
    ----------
    setup
        Setup of the contest.
    observation
        Observation of the run.
    start
        Posterior samples that the walkers start from, so this chain needs no burn-in of its own.

    Returns
    -------
    dict
        Cost of the chain, its length in autocorrelation times, and the cost of a chain of 50.
    """
    context, settings = setup.context, setup.settings
    config, folder = context.config, context.folder / "contest" / "loop"
    walkers, steps = settings.loop_walkers, settings.loop_steps
    simulations = Simulations(config, context.bank, Silent())
    log_likelihood = _SimulatedLikelihood(setup, simulations, observation)
    key = setup.key_of("ps-fixed", observation=observation.digest, loop=walkers)
    path = folder / "loop.json"
    before = read_json(path) if path.exists() else {}
    # Chains of older versions do not say what they cost.
    known = before["seconds"] if before.get("key") == key else 0.0
    context.progress.line(
        simulations.preflight(
            f"emcee's loop, {walkers} walkers, {steps} steps: about {walkers * (steps + 1)} simulations",
            walkers * (steps + 1),
            log_likelihood.simulated(),
            alone=walkers * (steps + 1) - log_likelihood.simulated(),
        )
    )
    with simulations.session():
        chain = run_mcmc(
            log_likelihood,
            config.prior,
            config.tables.mcmc.model_copy(update={"walkers": walkers, "steps": steps, "max_steps": steps}),
            file=folder / "mcmc.h5",
            key=key,
            seed=run_seed(config.tables.seed, RunStream.LOOP_CHAIN),
            label=LABEL,
            start=start.resample(walkers, run_seed(config.tables.seed, RunStream.LOOP_START)).values,
            progress=context.progress,
        )
    chain.samples.write(context.folder / "chains" / "loop")
    # A short chain cannot give its autocorrelation time; the same likelihood, emulated, gives it.
    emulator = setup.power_spectrum()
    emulated = run_mcmc(
        fixed_likelihood(setup, emulator.emulator)(emulator.observed(observation)),
        config.prior,
        config.tables.mcmc.model_copy(update={"walkers": walkers}),
        file=folder / "emulated.h5",
        key=key,
        seed=run_seed(config.tables.seed, RunStream.LOOP_EMULATED_CHAIN),
        progress=Silent(),
    )
    tau = max(chain.autocorrelation, emulated.autocorrelation)
    facts = {
        "key": key,
        "label": LABEL,
        "simulations": log_likelihood.simulated(),
        "seconds": max(known, chain.seconds),
        "walkers": walkers,
        "steps": chain.steps,
        "autocorrelation_time": tau,
        "autocorrelation_times": chain.steps / tau,
        "converged": chain.converged and chain.steps >= LONG_ENOUGH * tau,
        "simulations_for_a_chain_of_50": int(np.ceil(walkers * (LONG_ENOUGH * tau + 1))),
    }
    write_json(path, facts)
    return facts


class _SimulatedLikelihood:
    """Log likelihood of theta (n, P), by simulating at each."""

    def __init__(self, setup: ContestSetup, simulations: Simulations, observation: Observation) -> None:
        likelihood = setup.power_spectrum()
        self._simulations, self._bank = simulations, setup.context.bank
        self._survey: Survey = setup.context.survey
        self._spectrum, self._precision = likelihood.power_spectrum, fixed_precision(setup, likelihood.emulator)
        self._observed = likelihood.observed(observation)
        self._image = setup.context.config.observable.name
        seed = setup.context.config.tables.seed
        self._realisation, self._noise = (
            run_seed(seed, RunStream.LOOP_REALISATION),
            run_seed(seed, RunStream.LOOP_NOISE),
        )

    def __call__(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        plans = [self._plan(point) for point in theta]
        self._simulations.fill([Used(plan, 1) for plan in plans], "emcee's loop")
        out = np.full(len(theta), -np.inf)
        for i, plan in enumerate(plans):
            rows = planned_rows(self._bank, [Used(plan, 1)]).ok
            if len(rows):
                out[i] = self._log_l(torch.from_numpy(self._bank.read(self._image, rows)))
        return out

    def simulated(self) -> int:
        """Count the simulations that the bank has for this loop."""
        plans = [plan for plan in self._bank.plans() if plan.proposal == self._proposal]
        return len(plans) - self._simulations.lacking([Used(plan, 1) for plan in plans])

    @property
    def _proposal(self) -> str:
        return fingerprint_of({"loop": self._realisation})

    def _plan(self, theta: NDArray[np.float64]) -> Plan:
        """Plan one row: the same theta is simulated once, and several run at a time."""
        hash = fingerprint_of({"proposal": self._proposal, "theta": theta.tolist()})
        seed = np.array([self._realisation], np.uint64)
        return self._bank.add(Plan(f"00-{hash[:12]}", 0, self._proposal, 1, theta[None].copy(), seed))

    def _log_l(self, clean: torch.Tensor) -> float:
        generator = torch.Generator().manual_seed(self._noise)  # the same for all, so that ln L is a function of theta
        with torch.no_grad():
            several = self._survey(clean.expand(DRAWS, *clean.shape[1:]), generator)
            off = self._observed - self._spectrum(several).flatten(1).double().mean(0)
        return float(-0.5 * off @ self._precision @ off)
