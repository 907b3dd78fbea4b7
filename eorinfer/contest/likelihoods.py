"""Methods that sample a likelihood anew for each observation: of the power spectrum, or of the image."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.errors import WorkError
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.seeds import RunStream, item_seed, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.emulator import Emulator, observe_spectra
from eorinfer.likelihood.exact import ModePower, emulated_log_likelihood, least_noise, log_likelihood
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.mcmc import START_DRAWS
from eorinfer.likelihood.neural import NeuralLikelihood, train_neural_likelihood
from eorinfer.likelihood.sampled import (
    GRID,
    PosteriorSample,
    from_prior,
    sample_by_approximation,
    sample_by_mcmc,
    sample_on_grid,
)
from eorinfer.likelihood.spectrum_network import ROWS, SpectrumNetwork, train_spectrum_network
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.npe.posterior import Posterior
from eorinfer.run.image_flow import trained_image_flow
from eorinfer.run.subjects import weigh
from eorinfer.settings.contest import PROPOSALS, MethodName, exact_noise
from eorinfer.settings.imageflow import GONE
from eorinfer.summaries.power import CylindricalPowerSpectrum
from eorinfer.survey.base import Survey
from eorinfer.survey.gaussian import WhiteNoiseSurvey
from eorinfer.survey.ska import SkaLowSurvey
from eorinfer.training.data import Cubes
from eorinfer.training.kept import load_or_train
from simulators import GaussianField, Observable
from simulators.base import fingerprint_of
from simulators.emulated import EmulatedField, log_k_nodes, log_spectra, power_between
from simulators.fourier import half_plane

#: Points of a grid along each parameter.
POINTS = 100
#: Draws that chains of the image flow start from, where too few of an NPE's count.
FLOW_START_DRAWS = 1000
#: Draws from the prior at which a likelihood is weighed, where it has too many parameters for a grid.
DRAWS = 10000


def power_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build a likelihood of the power spectrum: fixed or full covariance, in two dimensions, or neural."""
    tables = setup.context.config.tables
    if name == "ps-2d":
        likelihood = _cylindrical(setup)
        key = setup.key_of(name, bins=tables.contest.cylindrical_bins)
        return _method(setup, name, key, likelihood.seconds, _by_spectrum(likelihood, likelihood.for_spectrum))
    likelihood = setup.power_spectrum()
    if name == "ps-neural":
        given, seconds = _neural(setup, likelihood)
    elif name == "ps-full":
        given, seconds = likelihood.for_spectrum, likelihood.seconds
    else:
        given, seconds = (
            fixed_likelihood(setup, likelihood.emulator, diagonal=name == "ps-diagonal"),
            likelihood.seconds,
        )
    return _method(setup, name, setup.key_of(name), seconds, _by_spectrum(likelihood, given))


def image_flow_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build the image flow: importance weights of an NPE's samples, or emcee where those are uneven."""
    context = setup.context
    flow = trained_image_flow(context, setup.rows)
    proposal = trained_posterior(setup, next(name for name in PROPOSALS if name in setup.settings.methods))

    def likelihood(observed: Tensor) -> LogLikelihood:
        return flow.likelihood(Observation.from_observable(context.config.observable, observed.numpy()))

    key = setup.key_of(name, field=context.config.tables.image_flow.model_dump(mode="json") | GONE)
    return _method(setup, name, key, flow.facts["seconds"], likelihood, proposal)


def exact_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build the exact likelihood of a Gaussian field: on a grid, by weights, or by emcee."""
    config = setup.context.config
    simulator, sigma = config.simulator, exact_noise(config.simulator, config.tables.survey) or 0.0
    if isinstance(simulator, EmulatedField):
        return _exact_of_emulated(setup, name, simulator)
    assert isinstance(simulator, GaussianField)

    def likelihood(observed: Tensor) -> LogLikelihood:
        modes = ModePower.from_field(observed[0].double().numpy(), simulator.box_length)
        return lambda theta: log_likelihood(simulator, sigma, modes, theta)

    return _method(setup, name, setup.key_of(name), 0.0, likelihood)


def _exact_of_emulated(setup: ContestSetup, name: MethodName, simulator: EmulatedField) -> Method:
    """Weigh draws from the likelihood of approximate spectra, or run a chain where emcee is asked for."""
    noise, prior = noise_power(setup.context.survey, simulator.observables[0]), setup.context.config.prior
    if name == "exact-emcee":

        def likelihood(observed: Tensor) -> LogLikelihood:
            return emulated_log_likelihood(simulator.power, simulator.box_length, noise, observed.double().numpy())

        return _method(setup, name, setup.key_of(name), 0.0, likelihood)
    network, log_k = _spectrum_network(setup, name, simulator, noise), log_k_nodes()

    def sample(observed: Tensor, truth: NDArray[np.float64], n: int, seed: int) -> PosteriorSample:
        cube = observed.double().numpy()
        known: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

        def power(theta: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
            known.append((theta, log_spectra(theta, simulator.redshifts)[1]))
            return power_between(log_k, known[-1][1], k)

        def by(some: SpectrumNetwork) -> LogLikelihood:
            def near(theta: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
                return power_between(log_k, some.log_delta(theta), k)

            return emulated_log_likelihood(near, simulator.box_length, noise, cube, exact=False)

        latest = network

        def improve(seed: int) -> LogLikelihood:
            nonlocal latest
            theta, log_delta = (np.concatenate(parts) for parts in zip(*known, strict=True))
            latest = latest.taught(theta, log_delta, seed)
            return by(latest)

        exact = emulated_log_likelihood(power, simulator.box_length, noise, cube)
        return sample_by_approximation(exact, by(network), prior, truth, n, seed, improve)

    key = setup.key_of(name, spectra=network.facts["key"])
    return _one_by_one(name, key, network.facts["seconds"], sample)


def _spectrum_network(
    setup: ContestSetup, name: MethodName, simulator: EmulatedField, noise: NDArray[np.float64]
) -> SpectrumNetwork:
    """Train the network of the simulator's spectra, or load it where it is kept."""
    config = setup.context.config
    seed = run_seed(config.tables.seed, RunStream.SPECTRUM_NETWORK)
    floor = least_noise(noise, simulator.box_length, log_k_nodes())
    content = {"simulator": simulator.model_dump(mode="json"), "prior": config.prior.hash(), "seed": seed, "rows": ROWS}
    key = fingerprint_of(content | {"floor": hashlib.sha256(floor.tobytes()).hexdigest()})

    def train(checkpoints: Path) -> SpectrumNetwork:
        return train_spectrum_network(
            lambda theta: log_spectra(theta, simulator.redshifts)[1],
            config.prior,
            floor,
            folder=checkpoints,
            key=key,
            seed=seed,
            progress=setup.context.progress,
        )

    network: SpectrumNetwork = load_or_train(SpectrumNetwork, setup.folder(name) / "spectra", key, train)
    setup.context.progress.line(
        f"exact: approximate spectra are off by {network.facts['median_error']:.1%} (median), and by "
        f"{network.facts['error_99']:.0%} for one in a hundred; weights by the emulator itself make up for it"
    )
    return network


def noise_power(survey: Survey, observable: Observable) -> NDArray[np.float64]:
    """Power of a survey's thermal noise in each mode, (C, *half plane); inf where nothing is measured."""
    cell_volume = float(np.prod(observable.cell_size))
    shape = (observable.shape[0], *half_plane(observable.cells))
    if isinstance(survey, WhiteNoiseSurvey):
        return np.full(shape, survey.sigma**2 * cell_volume)
    if not isinstance(survey, SkaLowSurvey):
        return np.zeros(shape)
    half, measured = survey.noise[..., 0].double().numpy(), survey.mask[..., 0].numpy() > 0
    half = np.where(measured, half**2 * cell_volume, np.inf)
    # The survey keeps half of the modes along the second axis, a real FFT of the cube half along the third.
    n = observable.cells[0]
    rest = [half[:, (-np.arange(n)) % n, n - j] for j in range(half.shape[2], n)]
    transverse = np.concatenate([half, np.stack(rest, axis=2)], axis=2)
    return np.broadcast_to(transverse[..., None], shape)


def _method(
    setup: ContestSetup,
    name: MethodName,
    key: str,
    training_seconds: float,
    likelihood: Callable[[Tensor], LogLikelihood],
    proposal: Posterior | None = None,
) -> Method:
    """Build a method from a function that gives the likelihood of one observed cube (C, *cells)."""
    observable = setup.context.config.observable

    def sample(observed: Tensor, truth: NDArray[np.float64], n: int, seed: int) -> PosteriorSample:
        log_l, weighed = likelihood(observed), None
        if proposal is not None:
            observation = Observation.from_observable(observable, observed.numpy())
            weighed = weigh(log_l, proposal, observation, truth, n, seed)
        return weighed or _sample(setup, name, log_l, truth, n, seed)

    return _one_by_one(name, key, training_seconds, sample)


def _one_by_one(
    name: MethodName,
    key: str,
    training_seconds: float,
    sample: Callable[[Tensor, NDArray[np.float64], int, int], PosteriorSample],
) -> Method:
    """Build a method from a function that samples the posterior of one cube: of cube, truth, number and seed."""

    def evaluate(observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> TruthPosteriors:
        samples, seconds = [], []
        for i, (cube, truth) in enumerate(zip(observed, theta, strict=True)):
            start = time.monotonic()
            samples.append(sample(cube, truth, n, item_seed(seed, i)))
            seconds.append(time.monotonic() - start)
        return TruthPosteriors.from_samples(samples, seconds)

    return Method(name, key, training_seconds, evaluate)


def _sample(
    setup: ContestSetup, name: MethodName, log_l: LogLikelihood, truth: NDArray[np.float64], n: int, seed: int
) -> PosteriorSample:
    """Sample on a grid; with more parameters by importance weights, or by emcee where too few of them count."""
    prior = setup.context.config.prior
    if name != "exact-emcee":  # which is there to be a chain
        if len(prior.parameters) <= GRID:
            return sample_on_grid(log_l, prior, truth, n, seed, POINTS)
        # `DRAWS` evaluations of the image flow cost more than its chain.
        if name != "image-flow" and (weighed := from_prior(log_l, prior, truth, n, seed, DRAWS)) is not None:
            return weighed
    mcmc = setup.context.config.tables.mcmc
    draws = FLOW_START_DRAWS if name == "image-flow" else START_DRAWS
    return sample_by_mcmc(log_l, prior, truth, n, seed, mcmc=mcmc, start_draws=draws)


# -- likelihoods -------------------------------------------------------------------------------------


def _by_spectrum(
    likelihood: PowerSpectrumLikelihood, given: Callable[[Tensor], LogLikelihood]
) -> Callable[[Tensor], LogLikelihood]:
    """Turn a likelihood of spectra into one of observed cubes."""

    def for_cube(observed: Tensor) -> LogLikelihood:
        with torch.no_grad():
            return given(likelihood.power_spectrum(observed[None]).flatten().double())

    return for_cube


def fixed_precision(setup: ContestSetup, emulator: Emulator, *, diagonal: bool = False) -> Tensor:
    """Invert the emulator's covariance (D, D) at the fiducial parameters, or its diagonal."""
    prior = setup.context.config.prior
    fiducial = np.clip([p.fiducial for p in prior.parameters], prior.low, prior.high)
    with torch.no_grad():
        covariance = emulator.covariance(torch.from_numpy(fiducial[None]))[0]
        if diagonal:
            return torch.diag(1 / covariance.diagonal())
        try:
            return torch.linalg.inv(covariance)
        except torch.linalg.LinAlgError as error:
            raise WorkError(
                "the covariance of P(k) at the fiducial parameters cannot be inverted: some bins hold no modes, or the "
                "same ones; give fewer [power_spectrum] bins, or more simulations"
            ) from error


def fixed_likelihood(
    setup: ContestSetup, emulator: Emulator, *, diagonal: bool = False
) -> Callable[[Tensor], LogLikelihood]:
    """Give the likelihood of a spectrum (D,): the emulated mean, with the covariance of the fiducial parameters."""
    precision = fixed_precision(setup, emulator, diagonal=diagonal)

    def given(power: Tensor) -> LogLikelihood:
        def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.no_grad():
                off = power - emulator(torch.from_numpy(np.ascontiguousarray(theta)))[0]
                return (-0.5 * torch.einsum("ni,ij,nj->n", off, precision, off)).numpy()

        return log_l

    return given


def _cylindrical(setup: ContestSetup) -> PowerSpectrumLikelihood:
    """Train the Gaussian likelihood of P(k_perp, k_par), or load it where it is kept."""
    bins = setup.settings.cylindrical_bins
    spectrum = build_cylindrical(setup.context.config.observable, *bins)
    key = setup.key_of("ps-2d", bins=bins)
    return setup.context.likelihood(setup.rows, spectrum, setup.folder("ps-2d") / "emulator", key)


def build_cylindrical(observable: Observable, across: int, along: int) -> CylindricalPowerSpectrum:
    """Build bins of P(k_perp, k_par), equally spaced in the logarithm from the first modes to Nyquist's."""
    box, cells = observable.box_length, observable.cells
    edges = []
    for axis, bins in ((0, across), (2, along)):
        first, last = 2 * np.pi / box[axis], np.pi * cells[axis] / box[axis]
        edges.append(np.geomspace(0.99 * first, 1.01 * last, bins + 1).tolist())
    # The modes along the line of sight alone, and across it alone, belong to the first bins.
    return CylindricalPowerSpectrum(cells, box, [0.0, *edges[0][1:]], [0.0, *edges[1][1:]])  # type: ignore[arg-type]


def _neural(
    setup: ContestSetup, likelihood: PowerSpectrumLikelihood
) -> tuple[Callable[[Tensor], LogLikelihood], float]:
    """Train the neural likelihood on spectra of the same rows and draws, or load it; also the seconds of training."""
    context, tables = setup.context, setup.context.config.tables
    own = run_seed(tables.seed, RunStream.EMULATOR)  # the seed of the run's emulator

    def train(checkpoints: Path) -> NeuralLikelihood:
        spectra = observe_spectra(
            Cubes(context.bank, context.config.observable.name, setup.rows),
            setup.rows.seed,
            context.survey,
            context.config.observable.symmetry,
            likelihood.power_spectrum,
            tables.mcmc.draws,
            own,
        )
        return train_neural_likelihood(
            likelihood.emulator,
            spectra,
            context.config.prior,
            emulator_seed=own,
            folder=checkpoints,
            seed=run_seed(tables.seed, RunStream.NEURAL_LIKELIHOOD),
            progress=context.progress,
        )

    neural: NeuralLikelihood = load_or_train(
        NeuralLikelihood,  # type: ignore[type-var]
        setup.folder("ps-neural") / "likelihood",
        setup.key_of("ps-neural"),
        train,
        load=lambda folder: NeuralLikelihood.load(folder, likelihood.emulator, context.config.prior),
    )
    return neural.for_spectrum, likelihood.seconds + neural.facts["seconds"]
