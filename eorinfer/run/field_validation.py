"""The field flow put to the test by ``validate``: nothing is amortised, each truth's posterior is sampled anew."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json
from eorinfer.core.observation import Observation
from eorinfer.core.prior import Prior
from eorinfer.core.progress import duration
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.imageflow.check import check_images, check_observation
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.training import row_conditions
from eorinfer.likelihood.answers import Answers
from eorinfer.likelihood.grid import REFINEMENTS
from eorinfer.likelihood.importance import LogLikelihood
from eorinfer.likelihood.sampled import (
    MOST_STEPS,
    STEPS,
    PosteriorSample,
    sample_by_importance,
    sample_by_mcmc,
    sample_on_grid,
)
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import Config
from eorinfer.run.image_flow import refuse_slices
from eorinfer.run.truths import FEWEST, Parts, choose_truths, observed_rows, simulates
from eorinfer.run.validated import Asked
from eorinfer.validation.check import Check
from simulators.base import fingerprint_of

#: Points along each condition of a grid, by how many conditions there are.
POINTS = {1: 200, 2: 50}
#: Draws from an NPE of the same run that are weighed; and from the prior, among which walkers start.
PROPOSALS, START_DRAWS = 2000, 1000
#: Truths that are answered and kept at a time, and evaluations of ln p that tell what one costs.
PART, TRIED = 10, 512
#: Samples of the observation's posterior whose mean it is checked at, where it has no chain.
OF_OBSERVATION = 1000


@dataclass(frozen=True)
class ImageFlowSubject:
    """A flow on the images.

    Attributes
    ----------
    flow
        Gives ln p(x | y).
    proposal
        NPE with the same prior, whose samples are weighed where they are near enough; None for none.
    """

    flow: ImageFlow
    proposal: Posterior | None = None
    method: str = "field-flow"

    @property
    def key(self) -> str | None:
        """Of its training."""
        return self.flow.facts.get("key")

    @property
    def prior(self) -> Prior:
        """Of its conditions."""
        return self.flow.conditions

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Inside the range that training saw."""
        return self.prior.contains(theta)

    def check(self, parts: Parts, observation: Observation) -> Check | None:
        """Its ln p by scale, at the mean of its posterior: of its chain where there is one."""
        chain = parts.out / "chains" / "field-flow.json"
        if chain.exists() and read_json(chain).get("likelihood") == self.flow.key(observation):
            mean = Samples.read(parts.out / "chains" / "field-flow").mean
        else:
            seed = run_seed(parts.config.tables.seed, RunStream.IMAGE_FLOW_CHECK)
            mean = self._sampled(parts, observation.values, self.prior.low, OF_OBSERVATION, seed).values.mean(0)
        return check_observation(self.flow, observation, mean)

    def ask(self, parts: Parts, rows: Rows) -> Asked:
        """One truth after the other, from ``validation/field`` where its answer is there.

        Raises
        ------
        InputError
            If there are too few truths.
        WorkError
            If too few of their posteriors can be relied on.
        """
        settings = parts.config.tables.validation
        chosen, source = choose_truths(parts, rows, settings.field_truths)
        y = row_conditions(parts.bank, chosen, parts.config.prior, self.flow.settings)[:, 0].numpy()
        # A neutral fraction may be none that training has seen.
        inside = np.flatnonzero(self.prior.contains(y))
        if len(inside) < FEWEST:
            raise InputError(f"{parts.config.file}: only {len(inside)} of {len(y)} truths are where training was")
        cubes = torch.cat(list(observed_rows(parts, chosen)))[inside].numpy()
        theta = y[inside]
        parts.progress.line(f"validation: {len(theta)} {source}; {settings.samples} samples of each")
        parts.progress.line(self._cost(parts, cubes))
        found = []
        with parts.progress.bar("posteriors of truths", len(theta)) as advance:
            for start in range(0, len(theta), PART):
                part = slice(start, start + PART)
                found.append(self._answers(parts, start, cubes[part], theta[part]))
                advance(len(found[-1]), "")
        answers = Answers.concatenate(found)
        good = answers.good
        if good.sum() < FEWEST:
            raise WorkError(
                f"only {good.sum()} of {len(good)} posteriors of the field flow can be relied on: chains of "
                f"{MOST_STEPS} steps are too short; raise [mcmc] walkers, or condition on fewer parameters"
            )
        if not good.all():
            parts.progress.line(f"validation: {(~good).sum()} truths are left out, whose chains are too short")
        kept = answers[good]
        return Asked(
            theta[good],
            kept.values,
            kept.at_truth,
            kept.at_samples,
            share=np.ones(len(kept)),
            pooled=np.zeros(len(kept), bool),
            volume=1.0,
            std=self.prior.std,
            cubes=cubes[good][: settings.references],
            checks=self._checks(parts, cubes[good], kept),
            source=source,
            left_out=int((~good).sum()),
        )

    def _checks(self, parts: Parts, cubes: NDArray[np.float32], answers: Answers) -> Sequence[Check]:
        """Of the truths, each at the mean of its posterior."""
        # Held-out rows are what the check compares with: it would judge itself.
        if self.flow.known is None or not simulates(parts):
            return []
        return check_images(self.flow, cubes, answers.values.mean(1))

    def _cost(self, parts: Parts, cubes: NDArray[np.float32]) -> str:
        """What is ahead, from a few evaluations on the first image."""
        rng = np.random.default_rng(0)
        log_l = self._likelihood(cubes[0])
        log_l(self.prior.sample(2, rng))
        start = time.monotonic()
        log_l(self.prior.sample(TRIED, rng))
        each = (time.monotonic() - start) / TRIED
        dimension, walkers = len(self.prior.parameters), parts.config.tables.mcmc.walkers
        if (points := POINTS.get(dimension)) is not None:
            low = high = REFINEMENTS * points**dimension
        else:
            low, high = (START_DRAWS + walkers * (steps + 1) for steps in (STEPS, MOST_STEPS))
        if self.proposal is not None:
            low, high = PROPOSALS, PROPOSALS + high
        span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        ahead = [duration(each * n * len(cubes)) for n in (low, high)]
        return (
            f"validation: nothing is amortised: a truth costs {span} evaluations of ln p(x | y), {1e3 * each:.2g} ms "
            f"each, all {len(cubes)} together about {ahead[0] if low == high else ' to '.join(ahead)}; those answered "
            "are kept; [validation] field_truths says how many"
        )

    def _answers(self, parts: Parts, start: int, cubes: NDArray[np.float32], theta: NDArray[np.float64]) -> Answers:
        """Of some truths; kept, so that a stop loses little."""
        n, seed = parts.config.tables.validation.samples, parts.config.tables.seed
        proposal = self.proposal.facts.get("key") if self.proposal else None
        key = fingerprint_of(
            {"flow": self.key, "proposal": proposal, "theta": theta.tolist(), "samples": n, "points": POINTS}
            | {"images": hashlib.sha256(cubes.tobytes()).hexdigest(), "walkers": parts.config.tables.mcmc.walkers}
        )
        path = parts.out / "validation" / "field" / f"{start:05d}.h5"
        if (known := Answers.read(path, key)) is not None:
            return known
        found, seconds = [], []
        for i, (cube, truth) in enumerate(zip(cubes, theta, strict=True)):
            began = time.monotonic()
            own = run_seed(seed, RunStream.IMAGE_FLOW_VALIDATION, start + i)
            found.append(self._sampled(parts, cube, truth, n, own))
            seconds.append(time.monotonic() - began)
        answers = Answers.of(found, seconds)
        answers.write(path, key)
        return answers

    def _sampled(
        self, parts: Parts, cube: NDArray[np.float32], truth: NDArray[np.float64], n: int, seed: int
    ) -> PosteriorSample:
        """By importance weights of an NPE's samples, on a grid, or by emcee."""
        log_l = self._likelihood(cube)
        if self.proposal is not None:
            observation = Observation.of(self.flow.observable, cube)
            theta = self.proposal.sample(observation, PROPOSALS, seed).values
            log_q = self.proposal.log_density(theta, observation)
            weighed = sample_by_importance(log_l, self.prior, theta, log_q, truth, n, seed)
            if weighed is not None:
                return weighed
        if (points := POINTS.get(len(self.prior.parameters))) is not None:
            return sample_on_grid(log_l, self.prior, truth, n, seed, points)
        file = parts.out / "validation" / "field-mcmc.h5"
        mcmc = parts.config.tables.mcmc
        return sample_by_mcmc(log_l, self.prior, truth, n, seed, mcmc=mcmc, file=file, start_draws=START_DRAWS)

    def _likelihood(self, cube: NDArray[np.float32]) -> LogLikelihood:
        return self.flow.likelihood(Observation.of(self.flow.observable, cube))


def image_flow_subject(config: Config, out: Path) -> ImageFlowSubject:
    """The flow of a run, with its NPE as a proposal where there is one of the same parameters.

    Raises
    ------
    InputError
        If there is no flow, or one on slices.
    """
    refuse_slices(config)
    if not (out / "field" / "field.json").exists():
        raise InputError(f"{out}: no field flow to validate; run `eorinfer infer` first")
    flow = ImageFlow.load(out / "field")
    if not (out / "posterior" / "posterior.json").exists():
        return ImageFlowSubject(flow)
    posterior = Posterior.load(out / "posterior")
    same = posterior.prior.hash() == flow.conditions.hash() and posterior.prior.names == flow.conditions.names
    # One that is truncated, or for one observation, says nothing of other truths.
    usable = same and not posterior.regions and posterior.only_for is None
    return ImageFlowSubject(flow, posterior if usable else None)
