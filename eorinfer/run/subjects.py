"""Methods that ``validate`` puts to the test: a posterior by NPE, the image flow, and both combined."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.combined.posterior import FILE, CombinedPosterior
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.progress import duration
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow import check as image_flow_check
from eorinfer.imageflow.interpolated import VERSION
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.training import row_conditions
from eorinfer.likelihood.grid import REFINEMENTS
from eorinfer.likelihood.sampled import (
    MOST_STEPS,
    STEPS,
    PosteriorSample,
    sample_by_importance,
    sample_by_mcmc,
    sample_on_grid,
)
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.npe.batched import draw
from eorinfer.npe.check import check_images, check_observation
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.run.combined import CANDIDATES, sampled
from eorinfer.run.context import RunContext
from eorinfer.run.image_flow import refuse_slices
from eorinfer.run.truths import FEWEST, Truths, choose_truths, find_truths, observed_rows, simulates
from eorinfer.validation.check import Check
from simulators.base import fingerprint_of

#: Points along each condition of a grid, by number of conditions.
POINTS = {1: 200, 2: 50}
#: Draws from an NPE of the same run that are weighed; and from the prior, among which walkers start.
PROPOSALS, START_DRAWS = 2000, 1000
#: Truths that are evaluated and kept at a time; evaluations of ln p by which the cost of one is estimated.
BLOCK, TRIED = 10, 512
#: Samples of the observation's posterior whose mean it is checked at, where it has no chain.
OBSERVATION_SAMPLES = 1000


class Subject(Protocol):
    """A method that can be validated."""

    @property
    def method(self) -> str:
        """Name of its chain in ``chains/``, and in ``validation.json``."""

    @property
    def key(self) -> str | None:
        """Hash of the training: its data and settings."""

    @property
    def prior(self) -> Prior:
        """Prior of the inferred parameters."""

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether the posterior can reach theta (n, P): (n,)."""

    def evaluate(self, context: RunContext, rows: Rows) -> tuple[Truths, TruthPosteriors]:
        """Give posteriors of the truths that the config names; `rows` are those of the training."""

    def check(self, context: RunContext, observation: Observation) -> Check | None:
        """Tell whether an observation is unlike the simulations; None where nothing can say."""

    def observed(self, context: RunContext, observation: Observation, truths: Truths) -> NDArray[np.float64] | None:
        """Give posterior samples (n, P) of the run's observation; None where they are not there."""


@dataclass(frozen=True)
class NpeSubject:
    """A posterior by NPE, which is amortised.

    Attributes
    ----------
    posterior
        Posterior of the run's last round.
    method
        Name of its chain in ``chains/``.
    """

    posterior: Posterior
    method: str = "npe"

    @property
    def key(self) -> str | None:
        """Hash of its training."""
        return self.posterior.facts.get("key")

    @property
    def prior(self) -> Prior:
        """Prior before truncation."""
        return self.posterior.prior

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether theta (n, P) lies inside the regions of the truncation."""
        return self.posterior.contains(theta)

    def evaluate(self, context: RunContext, rows: Rows) -> tuple[Truths, TruthPosteriors]:
        """Give the posteriors of all truths in one pass of the networks."""
        settings, seed, posterior = context.config.tables.validation, context.config.tables.seed, self.posterior
        truths, features = find_truths(context, posterior, rows)
        context.progress.line(f"validation: {len(truths.theta)} {truths.source}; {settings.samples} samples of each")
        start = time.monotonic()
        theta, n = truths.theta, len(truths.theta)
        values = np.empty((n, settings.samples, theta.shape[1]))
        at_truth, at_samples = np.empty(n), np.empty(values.shape[:2])
        share, pooled = np.ones(n), np.zeros(n, bool)
        own = run_seed(seed, RunStream.VALIDATION_SAMPLES)
        for one, rows_of, read in _by_network(posterior, truths, features):
            draws = draw(one, read, settings.samples, own, truths.truncation)
            values[rows_of], share[rows_of], pooled[rows_of] = draws.values, draws.share, draws.pooled
            at_truth[rows_of] = log_density(one.networks, theta[rows_of, None], read)[:, 0]
            at_samples[rows_of] = log_density(one.networks, draws.values, read)
        seconds = np.full(n, (time.monotonic() - start) / n)
        good = np.ones(n, bool)
        return truths, TruthPosteriors(values, at_truth, at_samples, good, seconds, mass_inside=share, resampled=pooled)

    def check(self, context: RunContext, observation: Observation) -> Check | None:
        """Compare its statistics and its features with those of the simulations."""
        return check_observation(self.posterior, observation)

    def observed(self, context: RunContext, observation: Observation, truths: Truths) -> NDArray[np.float64] | None:
        """Draw from the posterior of the observation, as those of the truths are drawn."""
        read = self.posterior.read(torch.from_numpy(observation.values[None]))
        seed = run_seed(context.config.tables.seed, RunStream.LOCAL_SAMPLES)
        return draw(self.posterior, read, OBSERVATION_SAMPLES, seed, truths.truncation).values[0]


def _by_network(
    posterior: Posterior, truths: Truths, features: list[torch.Tensor]
) -> Iterator[tuple[Posterior, NDArray[np.bool_], list[torch.Tensor]]]:
    """Give posteriors, the truths (T,) that each may answer for, and what its networks read from these."""
    if truths.members is None or "folds" not in posterior.facts:
        yield posterior, np.ones(len(truths.theta), bool), features
        return
    for member in np.unique(truths.members):
        rows = truths.members == member
        one = replace(posterior, networks=(posterior.networks[member],))
        yield one, rows, [features[member][torch.from_numpy(rows)]]


def npe_subject(context: RunContext) -> NpeSubject:
    """Load the posterior of a run's last round.

    Raises
    ------
    InputError
        If there is none, or one for a single observation.
    """
    folder = context.folder / "posterior"
    if not (folder / "posterior.json").exists():
        raise InputError(f"{context.folder}: no posterior to validate; run `eorinfer infer` first")
    posterior = context.load_posterior(folder)
    if posterior.only_for is not None:
        raise InputError(
            f'{context.config.file}: [inference] proposal = "posterior" gives a posterior for one observation alone, '
            'which no other truth can test; validate a run with proposal = "truncated", or with one round'
        )
    return NpeSubject(posterior)


@dataclass(frozen=True)
class ImageFlowSubject:
    """An image flow: nothing is amortised, each truth's posterior is sampled anew.

    Attributes
    ----------
    flow
        Image flow, whose ln p(x | y) is the likelihood.
    proposal
        NPE with the same prior, whose samples are weighed where they are near enough; None for none.
    method
        Name of its chain in ``chains/``.
    """

    flow: ImageFlow
    proposal: Posterior | None = None
    method: str = "field-flow"

    @property
    def key(self) -> str | None:
        """Hash of its training, and of the weights of a diffusion's terms."""
        return self.flow.facts.get("weighed", self.flow.facts.get("key"))

    @property
    def prior(self) -> Prior:
        """Prior of its conditions."""
        return self.flow.conditions

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether theta (n, P) lies inside the range of training."""
        return self.prior.contains(theta)

    def observed(self, context: RunContext, observation: Observation, truths: Truths) -> NDArray[np.float64] | None:
        """Draw from the observation's chain, if it is of this flow."""
        chain = self._chain(context, observation)
        seed = run_seed(context.config.tables.seed, RunStream.LOCAL_SAMPLES)
        return None if chain is None else chain.resample(OBSERVATION_SAMPLES, seed).values

    def _chain(self, context: RunContext, observation: Observation) -> Samples | None:
        """Read the observation's chain, if it is of this flow."""
        chains = context.folder / "chains"
        facts = chains / "field-flow.json"
        if not facts.exists() or read_json(facts).get("likelihood") != self.flow.key(observation):
            return None
        return Samples.read(chains / "field-flow")

    def check(self, context: RunContext, observation: Observation) -> Check | None:
        """Compare ln p by scale, at the mean of the observation's posterior: of its chain where there is one."""
        if (chain := self._chain(context, observation)) is not None:
            mean = chain.mean
        else:
            seed = run_seed(context.config.tables.seed, RunStream.IMAGE_FLOW_CHECK)
            sample = self._sample(context, observation.values, self.prior.low, OBSERVATION_SAMPLES, seed)
            mean = sample.values.mean(0)
        return image_flow_check.check_observation(self.flow, observation, mean)

    def evaluate(self, context: RunContext, rows: Rows) -> tuple[Truths, TruthPosteriors]:
        """Sample one truth after the other, or read its posterior from ``validation/field``.

        Raises
        ------
        InputError
            If there are too few truths.
        WorkError
            If too few of their posteriors can be relied on.
        """
        settings = context.config.tables.validation
        chosen, source = choose_truths(context, rows, settings.image_flow_truths)
        y = row_conditions(context.bank, chosen, context.config.prior, self.flow.settings)[:, 0].numpy()
        # The neutral fraction of a truth may be one that training has not seen.
        inside = np.flatnonzero(self.prior.contains(y))
        if len(inside) < FEWEST:
            raise InputError(f"{context.config.file}: only {len(inside)} of {len(y)} truths are where training was")
        cubes = torch.cat(list(observed_rows(context, chosen)))[inside].numpy()
        theta = y[inside]
        context.progress.line(f"validation: {len(theta)} {source}; {settings.samples} samples of each")
        context.progress.line(self._cost(context, cubes))
        proposal = self.proposal.facts.get("key") if self.proposal else None
        key = {"flow": self.key, "proposal": proposal, "points": POINTS, "walkers": context.config.tables.mcmc.walkers}
        key |= {"interpolation": VERSION} if self.flow.settings.kind == "diffusion" else {}

        def one(number: int, cube: NDArray[np.float32], truth: NDArray[np.float64]) -> PosteriorSample:
            seed = run_seed(context.config.tables.seed, RunStream.IMAGE_FLOW_VALIDATION, number)
            return self._sample(context, cube, truth, settings.samples, seed)

        posteriors = sampled_by_block(context, "field", key, cubes, theta, one)
        good = posteriors.good
        if good.sum() < FEWEST:
            raise WorkError(
                f"only {good.sum()} of {len(good)} posteriors of the image flow can be relied on: chains of "
                f"{MOST_STEPS} steps are too short; raise [mcmc] walkers, or condition on fewer parameters"
            )
        if not good.all():
            context.progress.line(f"validation: {(~good).sum()} truths are left out, whose chains are too short")
        posteriors, cubes = posteriors[good], cubes[good]
        checks: list[Check] = []
        # Held-out rows are what the check compares with: it would judge itself.
        if self.flow.known is not None and simulates(context):
            checks = list(image_flow_check.check_images(self.flow, cubes, posteriors.values.mean(1)))
        left_out = int((~good).sum())
        return Truths(theta[good], cubes[: settings.references], checks, None, source, left_out), posteriors

    def _cost(self, context: RunContext, cubes: NDArray[np.float32]) -> str:
        """Say how long the validation will take, from a few evaluations on the first image."""
        rng = np.random.default_rng(0)
        start = time.monotonic()
        log_l = self._likelihood(cubes[0])
        interpolating = time.monotonic() - start
        log_l(self.prior.sample(2, rng))
        start = time.monotonic()
        log_l(self.prior.sample(TRIED, rng))
        each = (time.monotonic() - start) / TRIED
        dimension, walkers = len(self.prior.parameters), context.config.tables.mcmc.walkers
        if (points := POINTS.get(dimension)) is not None:
            low = high = REFINEMENTS * points**dimension
        else:
            low, high = (START_DRAWS + walkers * (steps + 1) for steps in (STEPS, MOST_STEPS))
        if self.proposal is not None:
            low, high = PROPOSALS, PROPOSALS + high
        span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        ahead = [duration((interpolating + each * n) * len(cubes)) for n in (low, high)]
        return (
            f"validation: nothing is amortised: a truth costs {span} evaluations of ln p(x | y), {1e3 * each:.2g} ms "
            f"each, all {len(cubes)} together about {ahead[0] if low == high else ' to '.join(ahead)}; those answered "
            "are kept; [validation] image_flow_truths says how many"
        )

    def _sample(
        self, context: RunContext, cube: NDArray[np.float32], truth: NDArray[np.float64], n: int, seed: int
    ) -> PosteriorSample:
        """Sample by importance weights of an NPE's samples, on a grid, or by emcee."""
        log_l = self._likelihood(cube)
        if self.proposal is not None:
            observation = Observation.from_observable(self.flow.observable, cube)
            if (weighed := weigh(log_l, self.proposal, observation, truth, n, seed)) is not None:
                return weighed
        if (points := POINTS.get(len(self.prior.parameters))) is not None:
            return sample_on_grid(log_l, self.prior, truth, n, seed, points)
        mcmc = context.config.tables.mcmc
        return sample_by_mcmc(log_l, self.prior, truth, n, seed, mcmc=mcmc, start_draws=START_DRAWS)

    def _likelihood(self, cube: NDArray[np.float32]) -> LogLikelihood:
        return self.flow.likelihood(Observation.from_observable(self.flow.observable, cube))


def sampled_by_block(
    context: RunContext,
    name: str,
    key: dict[str, Any],
    cubes: NDArray[np.float32],
    theta: NDArray[np.float64],
    one: Callable[[int, NDArray[np.float32], NDArray[np.float64]], PosteriorSample],
) -> TruthPosteriors:
    """Sample the posteriors of truths one after the other, or read them from ``validation/NAME``, a file for each few.

    Parameters
    ----------
    key
        What they depend on beside the truths.
    cubes, theta
        (T, C, *cells) images, and (T, P) their parameters.
    one
        Samples one, of a number, a cube and its truth.
    """
    blocks, n = [], context.config.tables.validation.samples
    with context.progress.bar("posteriors of truths", len(theta)) as advance:
        for start in range(0, len(theta), BLOCK):
            some = slice(start, start + BLOCK)
            images = hashlib.sha256(cubes[some].tobytes()).hexdigest()
            of_block = fingerprint_of(key | {"theta": theta[some].tolist(), "samples": n, "images": images})
            path = context.folder / "validation" / name / f"{start:05d}.h5"
            posteriors = TruthPosteriors.read(path, of_block)
            if posteriors is None:
                samples, seconds = [], []
                for i, (cube, truth) in enumerate(zip(cubes[some], theta[some], strict=True)):
                    began = time.monotonic()
                    samples.append(one(start + i, cube, truth))
                    seconds.append(time.monotonic() - began)
                posteriors = TruthPosteriors.from_samples(samples, seconds)
                posteriors.write(path, of_block)
            blocks.append(posteriors)
            advance(len(posteriors), "")
    return TruthPosteriors.concatenate(blocks)


def weigh(
    log_l: LogLikelihood, proposal: Posterior, observation: Observation, truth: NDArray[np.float64], n: int, seed: int
) -> PosteriorSample | None:
    """Sample by importance weights of an NPE's samples; None where too few of them count."""
    theta = proposal.draw(observation, PROPOSALS, seed).values
    log_q = proposal.log_density(theta, observation)
    return sample_by_importance(log_l, proposal.prior, theta, log_q, truth, n, seed)


def image_flow_subject(context: RunContext) -> ImageFlowSubject:
    """Load the image flow of a run, with its NPE as a proposal where it has the same parameters.

    Raises
    ------
    InputError
        If there is no flow, or one on slices.
    """
    refuse_slices(context.config)
    folder = context.folder
    if not (folder / "field" / "field.json").exists():
        raise InputError(f"{folder}: no image flow to validate; run `eorinfer infer` first")
    flow = ImageFlow.load(folder / "field")
    if not (folder / "posterior" / "posterior.json").exists():
        return ImageFlowSubject(flow)
    posterior = context.load_posterior(folder / "posterior")
    same = posterior.prior.hash() == flow.conditions.hash() and posterior.prior.names == flow.conditions.names
    # A posterior that is truncated, or for one observation, says nothing of other truths.
    usable = same and not posterior.regions and posterior.only_for is None
    return ImageFlowSubject(flow, posterior if usable else None)


@dataclass(frozen=True)
class CombinedSubject:
    """NPE and image flow combined: each truth costs some evaluations of ln p.

    Attributes
    ----------
    combined
        Posterior by both.
    method
        Name of its chain in ``chains/``.
    """

    combined: CombinedPosterior
    method: str = "combined"

    @property
    def key(self) -> str | None:
        """Hash of both trainings, and of what they are worth."""
        return self.combined.key

    @property
    def prior(self) -> Prior:
        """Prior of NPE."""
        return self.combined.npe.prior

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether theta (n, P) lies inside the prior."""
        return self.prior.contains(theta)

    def evaluate(self, context: RunContext, rows: Rows) -> tuple[Truths, TruthPosteriors]:
        """Sample one truth after the other, or read its posterior from ``validation/combined``.

        Raises
        ------
        InputError
            If there are too few truths.
        """
        settings, seed, npe = context.config.tables.validation, context.config.tables.seed, self.combined.npe
        chosen, source = choose_truths(context, rows, settings.image_flow_truths)
        batches = list(observed_rows(context, chosen))
        cubes, combined, checks = torch.cat(batches).numpy(), self.combined, list[Check]()
        if not simulates(context):  # rows that the flow held out, and one network of NPE
            (one_network, _), *_ = npe.folds(rows.seed, context.config.tables.training.validation_fraction)
            combined = replace(combined, npe=one_network)
        elif npe.reference is not None:
            checks += [check for batch in batches for check in check_images(npe, batch)]
        context.progress.line(f"validation: {len(chosen)} {source}; {settings.samples} samples of each")

        def one(number: int, cube: NDArray[np.float32], truth: NDArray[np.float64]) -> PosteriorSample:
            own = run_seed(seed, RunStream.COMBINED_VALIDATION, number)
            return sampled(combined, Observation.from_observable(npe.observable, cube), truth, settings.samples, own)

        key = {"combined": self.key, "simulated": simulates(context)}
        posteriors = sampled_by_block(context, self.method, key, cubes, chosen.theta, one)
        return Truths(chosen.theta, cubes[: settings.references], checks, None, source), posteriors

    def check(self, context: RunContext, observation: Observation) -> Check | None:
        """Compare its statistics and NPE's features with those of the simulations."""
        return check_observation(self.combined.npe, observation)

    def observed(self, context: RunContext, observation: Observation, truths: Truths) -> NDArray[np.float64] | None:
        """Draw from the posterior of the observation."""
        seed = run_seed(context.config.tables.seed, RunStream.LOCAL_SAMPLES)
        samples = self.combined.samples(self.combined.weigh(observation, CANDIDATES, seed))
        return samples.resample(OBSERVATION_SAMPLES, seed).values


def combined_subject(context: RunContext) -> CombinedSubject:
    """Load what `infer` left.

    Raises
    ------
    InputError
        If it has not been run.
    """
    if not (context.folder / FILE).exists():
        raise InputError(f"{context.folder}: no combined posterior to validate; run `eorinfer infer` first")
    return CombinedSubject(context.load_combined())


def subject_of(context: RunContext) -> Subject:
    """Load what ``[inference] method`` names; see `npe_subject`, `image_flow_subject` and `combined_subject`."""
    subjects: dict[str, Callable[[RunContext], Subject]] = {
        "npe": npe_subject,
        "image-flow": image_flow_subject,
        "combined": combined_subject,
    }
    return subjects[context.config.tables.inference.method](context)
