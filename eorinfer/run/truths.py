"""Truths to validate a posterior with: simulated for it, or rows that training held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.targets import target_rows
from eorinfer.campaign.plans import Used, plan_round, planned_rows
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.seeds import RunStream, run_rng, run_seed
from eorinfer.npe.batched import Truncation
from eorinfer.npe.check import check_images
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.region import draw_truncated
from eorinfer.run.context import RunContext
from eorinfer.training.data import validation_rows
from eorinfer.validation.check import Check
from simulators.base import fingerprint_of

#: Truths that are planned together: a later call with more truths keeps the simulated ones.
BLOCK = 100
#: Fewest truths of a validation.
FEWEST = 20
#: Cubes that are observed at once; draws from a truncated prior to choose among.
BATCH, POOL = 64, 10000


@dataclass(frozen=True)
class Truths:
    """Known parameters that a posterior is validated with.

    Attributes
    ----------
    theta
        True parameters, (T, P).
    cubes
        First observations, to compare widths with, (R, C, *cells).
    checks
        Comparisons of the observations with the simulations; empty without a reference, and for held-out rows.
    truncation
        Prior inside the posterior's regions; None without regions.
    source
        Origin of the truths, in words.
    left_out
        Number of further truths, whose posteriors cannot be relied on.
    members
        (T,) the network that held each truth out in training, among those of `Posterior.folds`; None where no network
        knows the truths.
    """

    theta: NDArray[np.float64]
    cubes: NDArray[np.float32]
    checks: Sequence[Check]
    truncation: Truncation | None
    source: str
    left_out: int = 0
    members: NDArray[np.int64] | None = None

    @property
    def volume(self) -> float:
        """Share of the prior that truths are drawn from."""
        return 1.0 if self.truncation is None else self.truncation.volume

    def std(self, prior: Prior) -> NDArray[np.float64]:
        """Standard deviations of the prior that truths are drawn from, (P,)."""
        return prior.std if self.truncation is None else self.truncation.theta.std(0)


def find_truths(context: RunContext, posterior: Posterior, rows: Rows) -> tuple[Truths, list[torch.Tensor]]:
    """Choose truths as the config says, observe them, and let the posterior's networks read them.

    Parameters
    ----------
    context
        Run whose posterior is validated.
    posterior
        Truths are drawn from its prior, inside its regions.
    rows
        Rows of its training, those held out included; no simulated truth shares a realisation with them.

    Returns
    -------
    Truths
        Parameters and first observations.
    list
        Features (T, F) of each network.

    Raises
    ------
    InputError
        If there are too few held-out rows.
    """
    settings, targets = context.config.tables.validation, context.config.targets
    # The prior of targets is known by simulations alone: their parameters are drawn.
    chosen, source = choose_truths(context, rows, settings.truths, None if targets else posterior)
    left_out = 0
    if targets:
        chosen = target_rows(context.bank, chosen, targets)
        seen = posterior.contains(chosen.theta)
        chosen, left_out = chosen[seen], int((~seen).sum())
    features: list[list[torch.Tensor]] = []
    cubes: list[NDArray[np.float32]] = []
    checks: list[Check] = []
    with context.progress.bar("observing truths", len(chosen)) as advance:
        for observed in observed_rows(context, chosen):
            features.append(posterior.read(observed))
            cubes += list(observed[: max(0, settings.references - len(cubes))].numpy())
            # Held-out rows are what the check compares with: it would judge itself.
            if posterior.reference is not None and simulates(context):
                checks += check_images(posterior, observed)
            advance(len(observed), "")
    truncation, members = _truncation(context, posterior), None
    if not simulates(context):
        folds = posterior.folds(rows.seed, context.config.tables.training.validation_fraction)
        members = np.argmax([np.isin(chosen.seed, rows.seed[held]) for _, held in folds], axis=0)
    truths = Truths(chosen.theta, np.array(cubes), checks, truncation, source, left_out, members)
    return truths, [torch.cat(blocks) for blocks in zip(*features, strict=True)]


def simulates(context: RunContext) -> bool:
    """Tell whether truths are simulated for the validation, rather than taken from held-out rows."""
    return context.config.tables.validation.simulate and not context.config.imported


def choose_truths(context: RunContext, rows: Rows, n: int, posterior: Posterior | None = None) -> tuple[Rows, str]:
    """Choose at most n truths as the config says; describe their origin in words.

    Parameters
    ----------
    context
        Run whose truths they are.
    rows
        Rows of the training, those held out included; no simulated truth shares a realisation with them.
    n
        Number of truths, at most.
    posterior
        Posterior whose truncated prior truths are drawn from; without one they come from the prior.

    Raises
    ------
    InputError
        If there are too few held-out rows.
    """
    where = "inside the truncated prior" if posterior and posterior.regions else "from the prior"
    if simulates(context):
        chosen = simulated_truths(context, rows, n, posterior)
        source = f"simulated truths {where}"
    else:
        chosen = _held_out(context, posterior, rows, n)
        source = f"truths {where} that training held out (some of them chose its weights)"
    if len(chosen) < FEWEST:
        more = ["more simulations", "a larger [training] validation_fraction", "[validation] simulate = true"]
        if context.config.imported:
            del more[-1]
        raise InputError(
            f"{context.config.file}: validation needs at least {FEWEST} truths, there are {len(chosen)} {source}; "
            f"give {' or '.join(more)}"
        )
    return chosen, source


def truth_plans(
    context: RunContext, n: int, posterior: Posterior | None = None, world: int | None = None
) -> list[Used]:
    """Plan n truths from the prior, or from a posterior's truncated prior: plans, and the rows used of each.

    Plans come in blocks, so that fewer truths are the first of many. Their number is 0: no round trains on them.
    With the number of a `world` that one makes them all, at the same theta and realisations as any other would.
    """
    seed, prior = context.config.tables.seed, context.config.prior
    regions = posterior.regions if posterior else ()
    key = posterior.facts.get("key") if posterior and regions else None
    of_world = {} if world is None else {"world": world}
    plans: list[Used] = []
    for block in range(-(-n // BLOCK)):
        rng = run_rng(seed, RunStream.TRUTHS, block)
        theta, _ = draw_truncated(prior, regions, BLOCK, rng)
        plan = plan_round(
            0,
            fingerprint_of({"validation": prior.hash(), "regions": key, "block": block} | of_world),
            theta,
            context.config.simulator,
            run_seed(seed, RunStream.TRUTHS),
            first_realisation=block * BLOCK,
            share=1,  # truths that share a realisation would err together
            world=world,
        )
        plans.append(Used(context.bank.add(plan), min(BLOCK, n - block * BLOCK)))
    return plans


def simulated_truths(
    context: RunContext, rows: Rows, n: int, posterior: Posterior | None = None, world: int | None = None
) -> Rows:
    """Simulate the truths of `truth_plans`; leave out any whose realisation is among `rows`."""
    plans = truth_plans(context, n, posterior, world)
    of_world = "" if world is None or context.config.worlds is None else f" of {context.config.worlds.names[world]}"
    context.simulations.fill(plans, f"truths{of_world}")
    simulated = planned_rows(context.bank, plans).ok
    return simulated[~np.isin(simulated.seed, rows.seed)]


def _held_out(context: RunContext, posterior: Posterior | None, rows: Rows, n: int) -> Rows:
    """Take rows that training held out, one of each realisation, inside the posterior's regions."""
    fraction = context.config.tables.training.validation_fraction
    if posterior is None:
        held = rows[validation_rows(rows.seed, fraction)]
    else:
        held = rows[np.any([by_one for _, by_one in posterior.folds(rows.seed, fraction)], axis=0)]
        held = held[posterior.contains(held.theta)]
    # Rows of one realisation err together: only the first of each counts as a draw.
    return held[np.sort(np.unique(held.seed, return_index=True)[1])][:n]


def _truncation(context: RunContext, posterior: Posterior) -> Truncation | None:
    if not posterior.regions:
        return None
    rng = run_rng(context.config.tables.seed, RunStream.TRUNCATION_POOL)
    return Truncation(*draw_truncated(posterior.prior, posterior.regions, POOL, rng))


def observed_rows(
    context: RunContext, rows: Rows, stream: RunStream = RunStream.TRUTHS_NOISE
) -> Iterator[torch.Tensor]:
    """Observe rows, with noise fixed by the seed and the stream; gives cubes (B, C, *cells)."""
    generator = torch.Generator().manual_seed(run_seed(context.config.tables.seed, stream))
    for start in range(0, len(rows), BATCH):
        clean = context.bank.read(context.config.observable.name, rows[start : start + BATCH])
        with torch.no_grad():
            yield context.survey(torch.from_numpy(clean), generator)
