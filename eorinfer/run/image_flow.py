"""Image flow of a run: its training, and the posterior that its likelihood gives for an observation."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import InputError, naming
from eorinfer.core.files import read_json, write_json
from eorinfer.core.own import own_key
from eorinfer.core.progress import Progress
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import ImageFlowStream, RunStream, run_seed, stream_seed
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.check import check_observation, held_out_images, known_images
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import ROUGHER, InterpolatedLikelihood
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.training import ImageFlowTrainer
from eorinfer.imageflow.weights import weights_of_images
from eorinfer.likelihood.grid import GRID_POINTS, REFINEMENTS, grid_samples
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.run.config import Config
from eorinfer.run.context import RunContext
from eorinfer.settings.imageflow import GONE
from eorinfer.settings.likelihood import McmcSettings
from eorinfer.training.kept import load_kept, train_and_keep
from simulators.base import fingerprint_of

#: Draws from the prior among which the walkers' starting points are chosen: each costs a pass of the flow.
START_DRAWS = 2000
LABEL = "image flow"
#: Weight of ln p below which it tells next to nothing.
LITTLE = 0.1
#: Beginning of the name of the folder of checkpoints.
CHECKPOINTS = "field-checkpoints"
#: File of what a weighing that was stopped knows already.
WEIGHING = "field-weighing.h5"
#: Keys of ``[image_flow]`` that an isotropic flow does not use.
NEWER = ("kind", "width", "depth", "components")


def trained_image_flow(context: RunContext, rows: Rows, *, weigh: bool = True) -> ImageFlow:
    """Train the flow of a run in ``field/``, or load it where it is kept with these valid rows and settings.

    A diffusion's terms are weighed for posteriors, unless `weigh` is false: combined with NPE both are weighed at once.
    """
    config, folder, progress = context.config, context.folder / "field", context.progress
    tables = config.content()
    settings = tables["image_flow"] | GONE
    if config.tables.image_flow.kind == "isotropic":
        for name in NEWER:  # these keys were added later: flows saved by older versions have the hash without them
            del settings[name]
    del settings["weighing"]  # it acts after training
    key = fingerprint_of(
        config.key_of("seed", "simulator", "prior", "survey")
        | {"field": settings}
        | {"validation_fraction": config.tables.training.validation_fraction}
        | {"simulator": context.simulator_table}
        | {"bank": context.bank.fingerprint, "theta": rows.theta.tolist(), "seeds": rows.seed.tolist()}
        | own_key(tables, config.modules, ("survey",))
    )
    trainer = ImageFlowTrainer(
        config.prior,
        config.observable,
        config.tables.survey,
        context.survey,
        config.tables.image_flow,
        config.tables.training.validation_fraction,
    )
    seed = run_seed(config.tables.seed, RunStream.IMAGE_FLOW)

    def train(checkpoints: Path) -> ImageFlow:
        with naming(f"{config.file}: ", InputError):
            flow = trainer.train(context.bank, rows, folder=checkpoints, seed=seed, progress=progress)
        flow.facts["simulations"] = len(rows)
        return flow

    flow = load_kept(ImageFlow, folder, key, CHECKPOINTS)
    if flow is None:
        flow = train_and_keep(folder, key, train, CHECKPOINTS)
        loss = flow.facts["fits"]["generative"]["validation_loss"]
        said = f"{loss / np.log(2):.4f} bits per cell in validation"
        if flow.settings.kind == "diffusion":
            # A few maps with far more power than their conditions tell can bring the mean above one.
            said = f"squared errors of {loss:.3f} times those expected of a Wiener filter, on average in validation"
        added = f"; noise of {flow.dequantisation:.3g} added to every image" if flow.dequantisation else ""
        progress.line(f"image flow: {said}, trained in {flow.facts['seconds']:.0f} s{added}")
    if flow.known is None:
        own = stream_seed(seed, ImageFlowStream.KNOWN_IMAGES)
        known = known_images(flow, trainer, context.bank, rows, own)
        flow = replace(flow, known=known)
        flow.save(folder)
        if isinstance(flow.network, DiffusionFlow):
            bits = -known.log_p.sum(1).mean() / np.log(2) / np.prod(flow.network.inner)
            progress.line(f"image flow: {bits:.4f} bits per cell of {len(known.y)} images that training held out")
    wanted = config.tables.image_flow.weighing
    if weigh and (flow.settings.weighing != wanted or (flow.weights is None) == bool(wanted)):
        flow = _weighed(flow, trainer, context, rows, stream_seed(seed, ImageFlowStream.WEIGHTS))
        flow.save(folder)
        (context.folder / WEIGHING).unlink(missing_ok=True)
    return flow


def _weighed(flow: ImageFlow, trainer: ImageFlowTrainer, context: RunContext, rows: Rows, seed: int) -> ImageFlow:
    """Give a diffusion weights of its terms, from as many held-out images as the config says; none take them away."""
    settings = trainer.settings
    facts = {name: value for name, value in flow.facts.items() if name != "weighed"}
    if not settings.weighing:
        return replace(flow, settings=settings, weights=None, facts=facts)
    assert isinstance(flow.network, DiffusionFlow)
    # The posterior's prior is flat in the condition: so are the images, where rows of a bank are not.
    evenly = settings.condition == "neutral-fraction"
    images, y, _ = held_out_images(flow, trainer, context.bank, rows, seed, settings.weighing, evenly)
    inside = np.flatnonzero(flow.conditions.contains(y))
    key = fingerprint_of({"key": facts["key"], "seed": seed, "images": settings.weighing})
    file = context.folder / WEIGHING
    weights = weights_of_images(flow.network, flow.conditions, images[inside], y[inside], file, key, context.progress)
    if len(set(weights)) == 1:
        said = f"ln p counts {weights[0]:.2f} of itself in posteriors"
    else:
        terms = zip(flow.network.terms, weights, strict=True)
        said = f"its terms count in posteriors: {', '.join(f'{name} {w:.2f}' for name, w in terms)}"
    context.progress.line(f"image flow: {said}, as {len(inside)} images that training held out show")
    facts["weighed"] = fingerprint_of({"key": facts["key"], "weights": weights.tolist()})
    return replace(flow, settings=settings, weights=tuple(weights.tolist()), facts=facts)


def image_flow_posterior(
    flow: ImageFlow,
    observation: Observation,
    mcmc: McmcSettings,
    samples: int,
    chains: Path,
    seed: int,
    progress: Progress,
) -> Samples:
    """Sample p(y | x) under a flat prior over the range of training, in ``field-flow.txt``; say what it cost.

    One condition is sampled on a grid, more by emcee. A line says whether the image is unlike those of training.

    Parameters
    ----------
    flow
        Image flow, whose ln p(x | y) is the likelihood.
    observation
        Image x.
    mcmc
        Table ``[mcmc]``: walkers and steps.
    samples
        Samples drawn from the grid.
    chains
        Folder of the chain, of emcee's own file and of ``field-flow.json``.
    seed
        Seed of starting points and proposals.
    progress
        Receives lines and bars.
    """
    chains.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    likelihood = flow.likelihood(observation)
    interpolating = time.monotonic() - start
    key, path = flow.key(observation), chains / "field-flow.json"
    before = read_json(path) if path.exists() else {}
    known: dict[str, Any] = before if before.get("likelihood") == key else {"seconds": 0.0, "evaluations": 0}
    seconds: float
    facts: dict[str, Any] = {"likelihood": key, "conditions": flow.conditions.names}
    if len(flow.conditions.parameters) == 1:
        drawn = grid_samples(likelihood, flow.conditions, samples, seed, LABEL)
        seconds, evaluations = time.monotonic() - start, REFINEMENTS * GRID_POINTS
        interpolating = 0.0
    else:
        if mcmc.walkers < 2 * len(flow.conditions.parameters):
            raise InputError(f"[mcmc] walkers = {mcmc.walkers}: emcee needs at least twice the number of conditions")
        chain = run_mcmc(
            likelihood,
            flow.conditions,
            mcmc,
            file=chains / "field-flow.h5",
            key=key,
            seed=seed,
            label=LABEL,
            start_draws=START_DRAWS,
            progress=progress,
        )
        drawn = chain.samples
        # Chains of older versions do not say what they cost.
        seconds = max(known["seconds"], chain.seconds)
        evaluations = max(known["evaluations"], chain.evaluations)
        facts |= chain.facts | {"walkers": mcmc.walkers}
        chain.say(progress)
    if isinstance(likelihood, InterpolatedLikelihood):
        seconds, evaluations = seconds + interpolating, likelihood.evaluations
        facts |= {"log_p_error": likelihood.error, "interpolation_error": likelihood.residual}
        progress.line(
            f"image flow: rms error of differences of ln p(x | y) at one sigma: {likelihood.error:.2f} nats by its "
            f"noise, {likelihood.residual:.2g} by interpolation between {evaluations} conditions"
        )
        facts["warnings"] = list(_doubts(flow, likelihood))
        for doubt in facts["warnings"]:
            progress.line(f"image flow: WARNING: {doubt}")
    drawn.write(chains / "field-flow")
    check = check_observation(flow, observation, drawn.mean)
    facts |= {"misspecification": check.content() if check else None}
    write_json(path, facts | {"seconds": seconds, "evaluations": evaluations})
    if check:
        progress.line(f"image flow: {check.line()}")
    progress.line(
        f"image flow: this observation cost {evaluations} evaluations of ln p(x | y), {seconds:.1f} s "
        f"({1e3 * seconds / max(evaluations, 1):.2g} ms each); another one costs as much"
    )
    return drawn


def _doubts(flow: ImageFlow, likelihood: InterpolatedLikelihood) -> Iterator[str]:
    """Say what makes the posterior of a diffusion worth little."""
    if flow.weights is not None and max(flow.weights) < LITTLE:
        yield (
            f"ln p counts at most {max(flow.weights):.2g} of itself: this posterior is hardly narrower than the prior. "
            'Raise [image_flow] steps, or take another kind or [inference] method = "npe"'
        )
    if likelihood.residual > ROUGHER:
        yield (
            "ln p(x | y) cannot be interpolated well enough: do not trust this posterior. Raise [image_flow] steps, "
            "narrow [prior], or take another kind, which needs no interpolation"
        )


def refuse_slices(config: Config) -> None:
    """Refuse a flow on slices: a run observes the whole image of its simulator.

    Raises
    ------
    InputError
        If ``[image_flow] image`` is ``"slices"``.
    """
    if config.tables.image_flow.image != "whole":
        raise InputError(
            f'{config.file}: [inference] method = "image-flow" with [image_flow] image = "slices": the run observes a '
            'whole cube; give image = "whole", or train with `eorinfer image-flow train` and observe maps'
        )


def infer_image_flow(context: RunContext, rows: Rows, observation: Observation) -> Samples:
    """Train or load the flow of a run, then sample the posterior of its observation."""
    config = context.config
    refuse_slices(config)
    flow = trained_image_flow(context, rows)
    return image_flow_posterior(
        flow,
        observation,
        config.tables.mcmc,
        config.tables.inference.samples,
        context.folder / "chains",
        run_seed(config.tables.seed, RunStream.IMAGE_FLOW_SAMPLES),
        context.progress,
    )
