"""Truths to validate a posterior with: simulated for it, or rows that training held out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import plan_round, planned_rows
from eorinfer.core.errors import InputError
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import RunStream, run_rng, run_seed
from eorinfer.npe.batched import Truncation
from eorinfer.npe.check import ObservationCheck, check_images
from eorinfer.npe.posterior import Posterior, draw_truncated
from eorinfer.run.config import Config
from eorinfer.run.simulations import Simulations
from eorinfer.survey.base import Survey
from eorinfer.training.data import validation_rows
from simulators.base import fingerprint_of

#: Truths that are planned together: asking for more later keeps those that were simulated.
BLOCK = 100
#: Truths below which nothing is said.
FEWEST = 20
#: Cubes at once, and draws from a truncated prior to choose among.
BATCH, POOL = 64, 10000


@dataclass(frozen=True)
class Truths:
    """Known parameters and what the networks read from their observations.

    Attributes
    ----------
    theta
        (B, P)
    read
        Features (B, F) of each network.
    cubes
        (T, C, *cells): the first observations, to compare widths with.
    checks
        Whether the observations are unlike the simulations; empty without a reference, and for held-out rows.
    truncation
        The prior inside the posterior's regions; None when it has none.
    source
        In words.
    """

    theta: NDArray[np.float64]
    read: list[torch.Tensor]
    cubes: NDArray[np.float32]
    checks: list[ObservationCheck]
    truncation: Truncation | None
    source: str


@dataclass(frozen=True)
class Parts:
    """What the validation needs of its run."""

    config: Config
    out: Path
    bank: Bank
    simulations: Simulations
    survey: Survey
    progress: Progress


def find_truths(parts: Parts, posterior: Posterior, rows: Rows) -> Truths:
    """Truths as the config asks for them, observed and read.

    Parameters
    ----------
    parts
        Of the run.
    posterior
        Truths are drawn from its prior, inside its regions.
    rows
        That it was trained on, those held out included; no simulated truth shares a realisation with them.

    Raises
    ------
    InputError
        If there are too few held-out rows.
    """
    settings = parts.config.tables.validation
    chosen, source = choose_truths(parts, rows, settings.truths, posterior)
    read: list[list[torch.Tensor]] = []
    cubes: list[NDArray[np.float32]] = []
    checks: list[ObservationCheck] = []
    with parts.progress.bar("observing truths", len(chosen)) as advance:
        for observed in observed_rows(parts, chosen):
            read.append(posterior.read(observed))
            cubes += list(observed[: max(0, settings.references - len(cubes))].numpy())
            # Held-out rows are what the check compares with: it would judge itself.
            if posterior.reference is not None and simulates(parts):
                checks += check_images(posterior, observed)
            advance(len(observed), "")
    together = [torch.cat(column) for column in zip(*read, strict=True)]
    return Truths(chosen.theta, together, np.array(cubes), checks, _truncation(parts, posterior), source)


def simulates(parts: Parts) -> bool:
    """Whether truths are simulated for the validation, and not rows that training held out."""
    return parts.config.tables.validation.simulate and parts.config.simulator.kind != "imported"


def choose_truths(parts: Parts, rows: Rows, n: int, posterior: Posterior | None = None) -> tuple[Rows, str]:
    """At most n truths as the config asks for them, and what they are in words.

    Parameters
    ----------
    parts
        Of the run.
    rows
        That were trained on, those held out included; no simulated truth shares a realisation with them.
    n
        How many.
    posterior
        Whose truncated prior truths are drawn from; without one it is the prior.

    Raises
    ------
    InputError
        If there are too few held-out rows.
    """
    where = "inside the truncated prior" if posterior and posterior.regions else "from the prior"
    if simulates(parts):
        chosen = simulated_truths(parts, rows, n, posterior)
        source = f"simulated truths {where}"
    else:
        chosen = _held_out(parts, posterior, rows, n)
        source = f"truths {where} that training held out, except for choosing the best weights"
    if len(chosen) < FEWEST:
        raise InputError(
            f"{parts.config.file}: validation needs at least {FEWEST} truths, there are {len(chosen)} {source}; "
            "give more simulations, a larger [training] validation_fraction, or [validation] simulate = true"
        )
    return chosen, source


def truth_plans(parts: Parts, n: int, posterior: Posterior | None = None) -> list[tuple[Plan, int]]:
    """Plans of n truths from the prior, or where a posterior is truncated to, and how many rows of each are used.

    In blocks, so that fewer truths are the first of many; of number 0, so that no round trains on them.
    """
    seed, prior = parts.config.tables.seed, parts.config.prior
    regions = posterior.regions if posterior else ()
    key = posterior.facts.get("key") if posterior and regions else None
    plans: list[tuple[Plan, int]] = []
    for block in range(-(-n // BLOCK)):
        rng = run_rng(seed, RunStream.TRUTHS, block)
        theta, _ = draw_truncated(prior, regions, BLOCK, rng)
        plan = plan_round(
            0,
            fingerprint_of({"validation": prior.hash(), "regions": key, "block": block}),
            theta,
            parts.config.simulator,
            run_seed(seed, RunStream.TRUTHS),
            first_realisation=block * BLOCK,
            share=1,  # truths that share a realisation would err together
        )
        plans.append((parts.bank.add(plan), min(BLOCK, n - block * BLOCK)))
    return plans


def simulated_truths(parts: Parts, rows: Rows, n: int, posterior: Posterior | None = None) -> Rows:
    """The rows of `truth_plans`, simulated where they lack, without any whose realisation is among `rows`."""
    plans = truth_plans(parts, n, posterior)
    parts.simulations.fill(plans, "truths")
    simulated = planned_rows(parts.bank, plans).ok
    return simulated[~np.isin(simulated.seed, rows.seed)]


def _held_out(parts: Parts, posterior: Posterior | None, rows: Rows, n: int) -> Rows:
    """Rows that training held out, one of each realisation, inside the posterior's regions."""
    held = rows[validation_rows(rows.seed, parts.config.tables.training.validation_fraction)]
    if posterior is not None:
        held = held[posterior.contains(held.theta)]
    # Rows of one realisation err together: only the first of each counts as a draw.
    return held[np.sort(np.unique(held.seed, return_index=True)[1])][:n]


def _truncation(parts: Parts, posterior: Posterior) -> Truncation | None:
    if not posterior.regions:
        return None
    rng = run_rng(parts.config.tables.seed, RunStream.TRUNCATION_POOL)
    return Truncation(*draw_truncated(posterior.prior, posterior.regions, POOL, rng))


def observed_rows(parts: Parts, rows: Rows) -> Iterator[torch.Tensor]:
    """Rows through the survey, with noise fixed by the seed, (B, C, *cells) at a time."""
    generator = torch.Generator().manual_seed(run_seed(parts.config.tables.seed, RunStream.TRUTHS_NOISE))
    for start in range(0, len(rows), BATCH):
        clean = parts.bank.read(parts.config.observable.name, rows[start : start + BATCH])
        with torch.no_grad():
            yield parts.survey(torch.from_numpy(clean), generator)
