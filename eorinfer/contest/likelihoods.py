"""Methods that have a likelihood and sample it anew for each observation: of the power spectrum, or of the image."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.observation import Observation
from eorinfer.core.seeds import RunStream, item_seed, run_seed
from eorinfer.likelihood.answers import Answers
from eorinfer.likelihood.emulator import Emulator, observe_spectra
from eorinfer.likelihood.exact import ModePower, log_likelihood
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.importance import LogLikelihood
from eorinfer.likelihood.mcmc import START_DRAWS
from eorinfer.likelihood.neural import train_neural_likelihood
from eorinfer.likelihood.sampled import (
    GRID,
    PosteriorSample,
    from_prior,
    sample_by_importance,
    sample_by_mcmc,
    sample_on_grid,
)
from eorinfer.npe.posterior import Posterior
from eorinfer.run.image_flow import trained_image_flow
from eorinfer.settings.contest import PROPOSALS, MethodName, exact_noise
from eorinfer.summaries.power import CylindricalPowerSpectrum
from eorinfer.training.data import Cubes
from simulators import GaussianField, Observable

#: Points of a grid along each parameter.
POINTS = 100
#: Draws from the NPE that the field flow weighs; and of its chains, where too few of them count.
PROPOSALS_OF_FLOW, FIELD_START_DRAWS = 2000, 1000
#: Draws from the prior, and around them, that a likelihood of more parameters than a grid takes is weighed at.
DRAWS = 10000


def power_method(ground: ContestSetup, name: MethodName) -> Method:
    """The rungs of the power-spectrum ladder."""
    tables = ground.parts.config.tables
    if name == "ps-2d":
        likelihood = _cylindrical(ground)
        key = ground.key_of(name, bins=tables.contest.cylindrical_bins)
        return _method(ground, name, key, likelihood.seconds, _by_spectrum(likelihood, likelihood.given))
    likelihood = ground.power_spectrum()
    if name == "ps-neural":
        given, seconds = _neural(ground, likelihood)
    elif name == "ps-full":
        given, seconds = likelihood.given, likelihood.seconds
    else:
        given, seconds = (
            fixed_likelihood(ground, likelihood.emulator, diagonal=name == "ps-diagonal"),
            likelihood.seconds,
        )
    return _method(ground, name, ground.key_of(name), seconds, _by_spectrum(likelihood, given))


def image_flow_method(ground: ContestSetup) -> Method:
    """The flow on the images, from importance weights of an NPE's samples, or by emcee where those are uneven."""
    parts = ground.parts
    flow = trained_image_flow(parts, ground.rows)
    proposal = trained_posterior(ground, next(name for name in PROPOSALS if name in ground.settings.methods))

    def likelihood(observed: Tensor) -> LogLikelihood:
        return flow.likelihood(Observation.of(parts.config.observable, observed.numpy()))

    key = ground.key_of("field-flow", field=parts.config.tables.field.model_dump(mode="json"))
    return _method(ground, "field-flow", key, flow.facts["seconds"], likelihood, proposal)


def exact_method(ground: ContestSetup, name: MethodName) -> Method:
    """Of the modes of a Gaussian field in white noise, on a grid or by emcee."""
    config = ground.parts.config
    simulator, sigma = config.simulator, exact_noise(config.simulator, config.tables.survey) or 0.0
    assert isinstance(simulator, GaussianField)

    def likelihood(observed: Tensor) -> LogLikelihood:
        modes = ModePower.of(observed[0].double().numpy(), simulator.box_length)
        return lambda theta: log_likelihood(simulator, sigma, modes, theta)

    return _method(ground, name, ground.key_of(name), 0.0, likelihood)


def _method(
    ground: ContestSetup,
    name: MethodName,
    key: str,
    training_seconds: float,
    likelihood: Callable[[Tensor], LogLikelihood],
    proposal: Posterior | None = None,
) -> Method:
    """From what makes a likelihood of one observed cube (C, *cells)."""
    observable = ground.parts.config.observable

    def ask(observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> Answers:
        found, seconds = [], []
        for i, (cube, truth) in enumerate(zip(observed, theta, strict=True)):
            start, own = time.monotonic(), item_seed(seed, i)
            log_l, one = likelihood(cube), None
            if proposal is not None:
                one = _weighed(log_l, proposal, Observation.of(observable, cube.numpy()), truth, n, own)
            found.append(one or _sampled(ground, name, log_l, truth, n, own))
            seconds.append(time.monotonic() - start)
        return Answers.of(found, seconds)

    return Method(name, key, training_seconds, ask)


def _sampled(
    ground: ContestSetup, name: MethodName, log_l: LogLikelihood, truth: NDArray[np.float64], n: int, seed: int
) -> PosteriorSample:
    """On a grid; where there are more parameters by importance weights, or by emcee where too few of them count."""
    prior = ground.parts.config.prior
    if name != "exact-emcee":  # which is there to be a chain
        if len(prior.parameters) <= GRID:
            return sample_on_grid(log_l, prior, truth, n, seed, POINTS)
        # So many draws of the field flow's likelihood cost more than its chain.
        if name != "field-flow" and (found := from_prior(log_l, prior, truth, n, seed, DRAWS)) is not None:
            return found
    mcmc, file = ground.parts.config.tables.mcmc, ground.folder(name) / "mcmc.h5"
    draws = FIELD_START_DRAWS if name == "field-flow" else START_DRAWS
    return sample_by_mcmc(log_l, prior, truth, n, seed, mcmc=mcmc, file=file, start_draws=draws)


def _weighed(
    log_l: LogLikelihood,
    proposal: Posterior,
    observation: Observation,
    truth: NDArray[np.float64],
    n: int,
    seed: int,
) -> PosteriorSample | None:
    """From importance weights, or None where too few samples count."""
    theta = proposal.sample(observation, PROPOSALS_OF_FLOW, seed).values
    log_q = proposal.log_density(theta, observation)
    return sample_by_importance(log_l, proposal.prior, theta, log_q, truth, n, seed)


# -- likelihoods -------------------------------------------------------------------------------------


def _by_spectrum(
    likelihood: PowerSpectrumLikelihood, given: Callable[[Tensor], LogLikelihood]
) -> Callable[[Tensor], LogLikelihood]:
    """Of an observed cube, by way of its spectrum."""

    def of(observed: Tensor) -> LogLikelihood:
        with torch.no_grad():
            return given(likelihood.power_spectrum(observed[None]).flatten().double())

    return of


def fixed_precision(ground: ContestSetup, emulator: Emulator, *, diagonal: bool = False) -> Tensor:
    """Inverse (D, D) of the covariance, or of its diagonal, that the emulator has at the fiducial parameters."""
    prior = ground.parts.config.prior
    fiducial = np.clip([p.fiducial for p in prior.parameters], prior.low, prior.high)
    with torch.no_grad():
        covariance = emulator.covariance(torch.from_numpy(fiducial[None]))[0]
        return torch.diag(1 / covariance.diagonal()) if diagonal else torch.linalg.inv(covariance)


def fixed_likelihood(
    ground: ContestSetup, emulator: Emulator, *, diagonal: bool = False
) -> Callable[[Tensor], LogLikelihood]:
    """The emulated mean, with that covariance, for a spectrum (D,)."""
    precision = fixed_precision(ground, emulator, diagonal=diagonal)

    def given(power: Tensor) -> LogLikelihood:
        def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.no_grad():
                off = power - emulator(torch.from_numpy(np.ascontiguousarray(theta)))[0]
                return (-0.5 * torch.einsum("ni,ij,nj->n", off, precision, off)).numpy()

        return log_l

    return given


def _cylindrical(ground: ContestSetup) -> PowerSpectrumLikelihood:
    """Gaussian in P(k_perp, k_par)."""
    parts, tables = ground.parts, ground.parts.config.tables
    return PowerSpectrumLikelihood.trained(
        parts.bank,
        ground.rows,
        parts.config.prior,
        parts.config.observable,
        parts.survey,
        build_cylindrical(parts.config.observable, *tables.contest.cylindrical_bins),
        draws=tables.mcmc.draws,
        folder=ground.folder("ps-2d") / "emulator",
        seed=run_seed(tables.seed, RunStream.EMULATOR),
        key=ground.key_of("ps-2d", bins=tables.contest.cylindrical_bins),
        progress=parts.progress,
    )


def build_cylindrical(observable: Observable, across: int, along: int) -> CylindricalPowerSpectrum:
    """Bins of P(k_perp, k_par), equally spaced in the logarithm from the first modes to Nyquist's."""
    box, cells = observable.box_length, observable.cells
    edges = []
    for axis, bins in ((0, across), (2, along)):
        first, last = 2 * np.pi / box[axis], np.pi * cells[axis] / box[axis]
        edges.append(np.geomspace(0.99 * first, 1.01 * last, bins + 1).tolist())
    # The modes along the line of sight alone, and across it alone, belong to the first bins.
    return CylindricalPowerSpectrum(cells, box, [0.0, *edges[0][1:]], [0.0, *edges[1][1:]])  # type: ignore[arg-type]


def _neural(
    ground: ContestSetup, likelihood: PowerSpectrumLikelihood
) -> tuple[Callable[[Tensor], LogLikelihood], float]:
    """Trained on the spectra of the same rows, through as many draws of the survey."""
    parts, tables, start = ground.parts, ground.parts.config.tables, time.monotonic()
    own = run_seed(tables.seed, RunStream.EMULATOR)  # that of the run's emulator
    spectra = observe_spectra(
        Cubes(parts.bank, parts.config.observable.name, ground.rows),
        ground.rows.seed,
        parts.survey,
        parts.config.observable.symmetry,
        likelihood.power_spectrum,
        tables.mcmc.draws,
        own,
    )
    found = train_neural_likelihood(
        likelihood.emulator,
        spectra,
        parts.config.prior,
        emulator_seed=own,
        folder=ground.folder("ps-neural") / f"checkpoints-{ground.key_of('ps-neural')}",
        seed=run_seed(tables.seed, RunStream.NEURAL_LIKELIHOOD),
        progress=parts.progress,
    )
    return found.of, likelihood.seconds + time.monotonic() - start
