"""Methods for an observation of a world that training did not have: one world, aligned features, an error model, both.

All worlds mixed is what every other method of the contest does with rows of several worlds.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eorinfer.bank.rows import Rows
from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import amortised, rows_key, trained_posterior
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, round_seed
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.error_model import with_error_model
from eorinfer.npe.posterior import Posterior
from eorinfer.run.truths import observed_rows
from eorinfer.settings.contest import MethodName
from eorinfer.training.data import Cubes
from eorinfer.training.kept import load_or_train
from eorinfer.validation.sharpness import NO_DENSITY


def worlds_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build one of the methods of `eorinfer.settings.contest.OF_WORLDS`."""
    view, settings = setup.settings.worlds_view, setup.settings
    if name == "npe-one-world":
        first = setup.rows[setup.rows.world == setup.rows.world.min()]
        return amortised(name, trained_posterior(setup, view, rows=first, place=name))
    if name == "npe-aligned":

        def aligned(strength: float, rows: Rows, suffix: str = "") -> Posterior:
            place = f"npe-aligned-{strength:g}{suffix}"
            return trained_posterior(setup, view, rows=rows, alignment=strength, place=place)

        return amortised(name, aligned(_best(setup, name, settings.alignments, aligned), setup.rows))

    def all_rows() -> Posterior:
        return trained_posterior(setup, view)

    def with_errors(strength: float, rows: Rows, suffix: str = "") -> Posterior:
        # On all rows it is the posterior of the view itself, which the contest may have trained already.
        mixed = trained_posterior(setup, view, rows=rows, place=f"npe-mixed{suffix}") if suffix else all_rows()
        return _error_model(setup, mixed, rows, strength, suffix)

    errors = with_errors(_best(setup, "npe-error-model", settings.error_strengths, with_errors), setup.rows)
    return amortised(name, hedged(all_rows(), errors) if name == "npe-hedged" else errors)


def hedged(mixed: Posterior, errors: Posterior) -> Posterior:
    """Mix the posteriors without and with an error model, half and half.

    Whichever is right, the mixture is at most ln 2 = 0.69 nats worse than it: the sky may be like the worlds of the
    training, or not.
    """
    facts = mixed.facts | {"seconds": mixed.facts["seconds"] + errors.facts["seconds"], "key": errors.facts["key"]}
    return replace(mixed, networks=mixed.networks + errors.networks, reference=None, facts=facts)


def _best(
    setup: ContestSetup, name: MethodName, strengths: Sequence[float], train: Callable[[float, Rows, str], Posterior]
) -> float:
    """Choose the strength with the most nats on a further world, which the trainings that are compared leave out."""
    settings, context = setup.settings, setup.context
    if len(strengths) == 1:
        return strengths[0]
    assert context.config.worlds is not None
    assert settings.further_world is not None
    further = setup.rows.world == context.config.worlds.number(settings.further_world)
    # Realisations that other worlds share with the further one would not be new.
    asked = setup.rows[further]
    rows = setup.rows[~further]
    rows = rows[~np.isin(rows.seed, held := np.unique(asked.seed)[::2])]
    asked = asked[np.isin(asked.seed, held)]
    gains = []
    for strength in strengths:
        posterior = train(strength, rows, f"-without-{settings.further_world}")
        blocks = [posterior.read(observed) for observed in observed_rows(context, asked)]
        features = [torch.cat(of_network) for of_network in zip(*blocks, strict=True)]
        at_truth = log_density(posterior.networks, asked.theta[:, None], features)
        gains.append(float(np.maximum(at_truth, NO_DENSITY).mean()))
        context.progress.line(f"{name}: strength {strength:g}: ln p {gains[-1]:.2f} on {settings.further_world}")
    return strengths[int(np.argmax(gains))]


def _error_model(setup: ContestSetup, mixed: Posterior, rows: Rows, strength: float, suffix: str) -> Posterior:
    """Train the flow of a mixed posterior once more, on features with errors."""
    context, tables = setup.context, setup.context.config.tables

    def train(checkpoints: Path) -> Posterior:
        seed = round_seed(tables.seed, PRIOR_ROUND, RoundStream.TRAINING)
        return with_error_model(
            mixed,
            Cubes(context.bank, context.config.observable.name, rows),
            rows,
            context.survey,
            tables.training,
            strength=strength,
            folder=checkpoints,
            seed=seed,
            progress=context.progress,
        )

    more = {} if strength == 1 else {"strength": strength}
    key = setup.key_of("npe-error-model", of=mixed.facts["key"], rows=rows_key(rows), **more)
    place = f"npe-error-model{suffix}" + (f"-{strength:g}" if more else "")
    return load_or_train(Posterior, setup.folder(place) / "posterior", key, train, load=context.load_posterior)
