"""What training and chains of a run will take, said before they begin: from facts in its folder, or a short timing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json
from eorinfer.core.progress import duration
from eorinfer.report.run_folder import read_rounds
from eorinfer.run.config import Config
from eorinfer.run.context import RunContext
from eorinfer.settings.likelihood import LEAST_REALISATIONS

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from eorinfer.core.likelihood import LogLikelihood
    from eorinfer.npe.candidates import Stage
    from eorinfer.npe.task import PosteriorTask

#: Cubes of a timed step of training, and steps and evaluations that are timed after one that warms up.
CUBES, TIMED = 16, 2


def training_line(context: RunContext) -> str | None:
    """Say what the training of the rounds ahead takes; None where all are trained."""
    settings, wanted = context.config.tables.training, context.config.tables.inference.rounds
    there = read_rounds(context.folder)
    ahead = [round(sum(wanted[: i + 1]) * (1 - settings.validation_fraction)) for i in range(len(there), len(wanted))]
    if not ahead:
        return None
    steps, once = sum(_steps(context, rows) for rows in ahead), 0.0
    if there:
        seconds = there[-1]["seconds"] / _steps(context, there[-1]["training_rows"]) * steps
        source = f"as measured in round {there[-1]['round']}"
    else:
        each, once = _seconds_per_step(context)
        seconds = sum(_networks(context, rows) * np.dot(each, _steps_of_fits(context, rows)) for rows in ahead)
        source = f"by a timing of {TIMED} steps of each kind on the CPU"
    before = once * sum(_summaries(context, rows) for rows in ahead)
    after = f", after {duration(before)} for the summaries of all cubes" if before else ""
    return (
        f"preflight: about {duration(before + seconds)} of training, "
        f"{_networks(context, ahead[-1])} network(s) in {len(ahead)} round(s), "
        f"{steps} steps ({seconds / steps:.2g} s each, {source}){after}"
    )


def chain_line(context: RunContext) -> str:
    """Say what the chain of emcee takes once its emulator is trained."""
    settings = context.config.tables.mcmc
    each, source = _seconds_per_move(context)
    low, high = min(settings.steps, settings.max_steps), settings.max_steps
    trained = (context.folder / "emulator" / "emulator.json").exists()
    steps = f"{low} to {high} steps until it has converged" if low < high else f"{high} steps at most"
    return (
        f"preflight: {_span(each * low, each * high)} for a chain of {settings.walkers} walkers, {steps} "
        f"({each:.2g} s each, {source}){'' if trained else ', after its emulator'}"
    )


def refuse_few(config: Config) -> None:
    """Refuse a run with a chain of P(k) whose emulator could not be trained on the simulations of all rounds.

    Raises
    ------
    InputError
        If there are too few.
    """
    simulations, each = sum(config.tables.inference.rounds), config.simulator.rows_per_realisation
    least = (LEAST_REALISATIONS - 1) * each + 1
    if simulations < least and len(config.observable.cells) > 1 and not config.imported:
        shared = f", {each} to a realisation," if each > 1 else ""
        raise InputError(
            f"{config.file}: [inference] rounds: {simulations} simulations{shared} are too few for the "
            f"power-spectrum emulator; at least {least}, or `eorinfer infer` without a power-spectrum likelihood"
        )


def references_line(
    context: RunContext, log_likelihood: "LogLikelihood", label: str, grid: int | None, steps: Sequence[int]
) -> str:
    """Say what the reference posteriors of a validation take, from a few evaluations of one of them.

    `log_likelihood` is that of any cube. `grid` counts the evaluations of each on a grid; where it is None, emcee
    samples them in the fewest to the most `steps` of a chain.
    """
    n, walkers = context.config.tables.validation.references, context.config.tables.mcmc.walkers
    theta = context.config.prior.sample(max(walkers // 2, 2), np.random.default_rng(0))
    each = _timed(lambda: log_likelihood(theta))
    if grid is not None:
        total, how = duration(n * each * grid / len(theta)), f"{grid:,} evaluations on a grid each"
    else:
        total = _span(*(n * 2 * each * s for s in steps))
        how = f"chains of {walkers} walkers, {steps[0]} to {steps[1]} steps each, those that are there are kept"
    return (
        f"validation: {n} {label} posteriors as references, about {total} ({how}; by a timing of {TIMED} calls); "
        "[validation] references says how many"
    )


def _networks(context: RunContext, rows: int) -> int:
    """Count the networks of a round of which each trains on these rows."""
    from eorinfer.npe.candidates import network_count

    settings = context.config.tables.training
    return network_count(settings, round(rows / (1 - settings.validation_fraction)))


def _steps(context: RunContext, rows: int) -> int:
    """Count the optimiser steps of all networks in all stages, as `eorinfer.training.fit.fit` takes them."""
    return _networks(context, rows) * sum(_steps_of_fits(context, rows))


def _steps_of_fits(context: RunContext, rows: int) -> list[int]:
    """Count the steps of each fit of a network."""
    return [epochs * steps for _, epochs, steps in _fits(context, rows)]


def _summaries(context: RunContext, rows: int) -> int:
    """Count the observed cubes that are summarised before the fits of all networks, where they are; see `Trainer`."""
    from eorinfer.npe.summarised import draws_of

    # Fits on the same rows share them.
    each = {n: n * draws_of(n, epochs) for n, epochs, _ in _fits(context, rows)}
    return _networks(context, rows) * sum(each.values())


def _stages(context: RunContext) -> "tuple[Stage, ...]":
    """List the stages of the training of a network."""
    from eorinfer.npe.candidates import stages

    tables, prior = context.config.tables, context.config.prior
    batch = tables.training.emulated_batch(context.config.observable, tables.embedding)
    return stages(tables.flow, tables.training, batch, len(prior.parameters))


def _fits(context: RunContext, rows: int) -> list[tuple[int, int, int]]:
    """Rows, epochs, and steps of each epoch, of all fits of a network."""
    from eorinfer.npe.emulated import row_count
    from eorinfer.training.fit import planned

    tried = _stages(context)
    sizes = [row_count(one.training) if one.emulated else rows for one in tried]
    return [(n, *planned(one.training, n)) for one, n in zip(tried, sizes, strict=True)]


def _seconds_per_step(context: RunContext) -> tuple[list[float], float]:
    """Time steps of fresh networks on noise, one for each fit; those of a larger batch take longer in proportion.

    Returns seconds of a step of each fit, and of each cube that is summarised before; 0 where none is.
    """
    import torch

    from eorinfer.npe.summarised import SummarisedTask, reads_summaries
    from eorinfer.npe.task import PosteriorTask

    config = context.config
    observable, preprocessing, prior = config.observable, context.preprocessing, config.prior
    seen = preprocessing.observable(observable) if preprocessing else observable
    each, once = [], 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        n = min(CUBES, config.tables.training.batch_size)
        clean = torch.randn(n, *observable.shape, generator=generator)
        theta = torch.from_numpy(prior.sample(n, np.random.default_rng(0)))
        for stage in _stages(context):
            network = replace(config.architecture, flow=stage.flow).build(prior, seen)
            task = PosteriorTask(network, context.survey, observable.symmetry, None, preprocessing, prior)
            observed = task.observe(clean, generator)
            network.embedding.fit_scaling(observed)
            rows, batch, size = theta, clean, stage.training.batch_size
            if reads_summaries(task):
                if not once:
                    once = _timed(partial(_summarise, task, clean, generator)) / n
                # Summaries are small: the whole batch is timed.
                of_batch = torch.arange(size) % n
                rows, batch = theta[of_batch], network.embedding.summarise(observed)[of_batch, None]
                task = SummarisedTask(network, context.survey, observable.symmetry, None, preprocessing, prior)
            each.append(_timed(partial(_step, task, (rows, batch), generator)) * size / len(rows))
    return each, once


def _summarise(task: "PosteriorTask", clean: "Tensor", generator: "Generator") -> None:
    """Observe clean cubes (B, C, *cells) and summarise what is seen."""
    task.network.embedding.summarise(task.observe(clean, generator))


def _step(task: "PosteriorTask", batch: "tuple[Tensor, ...]", generator: "Generator") -> None:
    """Compute the loss of a batch, and its gradients."""
    task.losses(batch, generator).mean().backward()


def _seconds_per_move(context: RunContext) -> tuple[float, str]:
    """Seconds of a step of all walkers, and where they are from."""
    file, settings = context.folder / "chains" / "mcmc.json", context.config.tables.mcmc
    if file.exists():
        facts = read_json(file)
        if facts.get("steps") and facts.get("seconds", {}).get("chain"):
            source = "as measured in the chain that is here, which continues if it is of this likelihood"
            return facts["seconds"]["chain"] / facts["steps"], source
    import torch

    from eorinfer.likelihood.emulator import Emulator

    prior, observable = context.config.prior, context.config.observable
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        bins = context.power_spectrum()(torch.zeros(1, *observable.shape)).numel()
        emulator = Emulator(len(prior.parameters), bins).eval()
        theta = torch.from_numpy(prior.sample(max(settings.walkers // 2, 1), np.random.default_rng(0)))
        each = _timed(lambda: emulator.log_likelihood(torch.zeros(bins, dtype=torch.float64), theta))
    return 2 * each, f"by a timing of {TIMED} calls"


def _timed(call: Callable[[], object]) -> float:
    """Mean seconds of a call, after one that warms up."""
    call()
    start = time.monotonic()
    for _ in range(TIMED):
        call()
    return (time.monotonic() - start) / TIMED


def _span(low: float, high: float) -> str:
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} to {last}"
