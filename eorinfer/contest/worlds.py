"""Methods for an observation of a world that training did not have: one world, aligned features, an error model.

All worlds mixed is what every other method of the contest does with rows of several worlds.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

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


def worlds_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build one of the methods of `eorinfer.settings.contest.OF_WORLDS`."""
    view = setup.settings.worlds_view
    if name == "npe-one-world":
        first = setup.rows[setup.rows.world == setup.rows.world.min()]
        return amortised(name, trained_posterior(setup, view, rows=first, place=name))
    if name == "npe-aligned":
        strength = best_alignment(setup)
        place = f"{name}-{strength:g}"
        return amortised(name, trained_posterior(setup, view, rows=setup.rows, alignment=strength, place=place))
    return amortised(name, _error_model(setup, name))


def best_alignment(setup: ContestSetup) -> float:
    """Choose the strength with the most nats on a further world, which the trainings that are compared leave out."""
    settings, context = setup.settings, setup.context
    if len(settings.alignments) == 1:
        return settings.alignments[0]
    assert context.config.worlds is not None
    assert settings.further_world is not None
    further = setup.rows.world == context.config.worlds.number(settings.further_world)
    # Realisations that other worlds share with the further one would not be new.
    asked = setup.rows[further]
    rows = setup.rows[~further]
    rows = rows[~np.isin(rows.seed, held := _half(asked))]
    asked = asked[np.isin(asked.seed, held)]
    gains = []
    for strength in settings.alignments:
        place = f"npe-aligned-{strength:g}-without-{settings.further_world}"
        posterior = trained_posterior(setup, settings.worlds_view, rows=rows, alignment=strength, place=place)
        blocks = [posterior.read(observed) for observed in observed_rows(context, asked)]
        features = [torch.cat(of_network) for of_network in zip(*blocks, strict=True)]
        gains.append(float(log_density(posterior.networks, asked.theta[:, None], features).mean()))
        context.progress.line(f"npe-aligned: strength {strength:g}: ln p {gains[-1]:.2f} on {settings.further_world}")
    return settings.alignments[int(np.argmax(gains))]


def _half(rows: Rows) -> NDArray[np.uint64]:
    """Seeds of every second realisation."""
    return np.unique(rows.seed)[::2]


def _error_model(setup: ContestSetup, name: MethodName) -> Posterior:
    """Train the flow of the mixed posterior once more, on features with errors."""
    context, tables = setup.context, setup.context.config.tables
    mixed = trained_posterior(setup, setup.settings.worlds_view)

    def train(checkpoints: Path) -> Posterior:
        cubes = Cubes(context.bank, context.config.observable.name, setup.rows)
        seed = round_seed(tables.seed, PRIOR_ROUND, RoundStream.TRAINING)
        return with_error_model(
            mixed,
            cubes,
            setup.rows,
            context.survey,
            tables.training,
            folder=checkpoints,
            seed=seed,
            progress=context.progress,
        )

    load = partial(Posterior.load, beside=context.config.modules, named=context.config.own_names)
    key = setup.key_of(name, of=mixed.facts["key"], rows=rows_key(setup.rows))
    return load_or_train(Posterior, setup.folder(name) / "posterior", key, train, load=load)
