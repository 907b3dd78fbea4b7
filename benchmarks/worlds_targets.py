"""What the sky shows in place of what a model calls it: the neutral fraction of a world left out, for `worlds`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds_ask import DRAWS
from benchmarks.worlds_scores import once, question, scores
from benchmarks.worlds_seen import FirstElements, checks, of_checks, with_reference
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.bank.targets import Target, target_prior
from eorinfer.contest.networks import VIEWS, amortised, rows_key
from eorinfer.contest.worlds import hedged
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.error_model import with_error_model
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.trainer import Trainer
from eorinfer.training.data import Cubes
from eorinfer.training.kept import load_or_train

#: The array whose mean over the box is inferred.
TARGET = "neutral_fraction"


def ask_target(run: Run, held_out: str, targets: tuple[Target, ...], values: NDArray[np.float64]) -> dict[str, Any]:
    """Score posteriors of a target as `worlds.ask` scores those of the parameters.

    Parameters
    ----------
    run
        Run of the question, on a bank of summaries or of cubes.
    held_out
        Name of the world left out.
    targets, values
        The target, and its values (n, 1) for the rows of the bank. Truths beyond what the worlds of the training reach
        are counted and left out.
    """
    worlds, every, vectors = run.config.worlds, run.bank.rows(), len(run.config.observable.cells) == 1
    assert worlds is not None
    number, parameters = worlds.number(held_out), every.theta.shape[1]
    # The target stands beside the parameters until rows are chosen, which are told apart by these.
    both = replace(every, theta=np.concatenate([every.theta, values], 1))
    rows, asked = question(both, number)
    first = int(rows.world.min())

    def target_alone(chosen: Rows) -> Rows:
        return replace(chosen, theta=chosen.theta[:, parameters:])

    rows, inside = target_alone(rows), np.isin(both.seed, asked)
    # Cubes are given as often as their summaries are there.
    rows = rows[np.repeat(np.arange(len(rows)), 1 if vectors else np.where(rows.world == 0, 1, DRAWS["others"]))]
    trained = posteriors_of_target(run, targets, rows)
    prior = trained["mixed"].prior
    content: dict[str, Any] = {"rows": worlds.counts(rows.world), "methods": {}, "left_out": {}}
    truths: dict[str, Rows] = {}
    for what, world in (("held out", number), ("known", first)):
        of = target_alone(once(both[inside & (both.world == world)]))
        truths[what] = of[prior.contains(of.theta)]
        content["left_out"][what] = len(of) - len(truths[what])
    statistics = FirstElements() if vectors else None
    checked = trained["mixed"] if statistics is None else with_reference(run, trained["mixed"], rows, statistics)
    found = {what: checks(run, checked, of, statistics) for what, of in truths.items()}
    content["warned"] = {what: of_checks(of) for what, of in found.items()}
    for label, posterior in trained.items():
        method = amortised(run.tables.contest.worlds_view, posterior)
        content["methods"][label] = {
            what: scores(run, method, of, found[what], posterior.prior) for what, of in truths.items()
        }
        print(held_out, "target", label, content["methods"][label], flush=True)
    return content


def posteriors_of_target(run: Run, targets: tuple[Target, ...], rows: Rows) -> dict[str, Posterior]:
    """Train on one world, on worlds mixed, and with an error model; rows have the target in the place of theta.

    All have the prior that the worlds of the training give the target together.
    """
    tables, context, folder = run.config.tables, run.context, run.out / "targets"
    prior = target_prior(rows, targets)
    view = {"summaries": None, **VIEWS[tables.contest.worlds_view], "bins": tables.power_spectrum.bins}
    networks = Architecture(
        tables.embedding.model_copy(update=view), tables.flow, tables.power_spectrum, run.config.modules
    )
    trainer = Trainer(prior, run.config.observable, tables.survey, context.survey, networks, tables.training)

    def plain(place: str, of: Rows) -> Posterior:
        def train(checkpoints: Path) -> Posterior:
            return trainer.train(run.bank, of, folder=checkpoints, seed=1, title=place, progress=context.progress)

        return load_or_train(Posterior, folder / place, rows_key(of), train)

    mixed = plain("mixed", rows)
    cubes = Cubes(run.bank, run.config.observable.name, rows)

    def errors(checkpoints: Path) -> Posterior:
        return with_error_model(mixed, cubes, rows, context.survey, tables.training, folder=checkpoints, seed=1)

    with_errors = load_or_train(Posterior, folder / "error-model", f"{rows_key(rows)}-errors", errors)
    one = plain("one-world", rows[rows.world == rows.world.min()])
    return {"one world": one, "mixed": mixed, "error model": with_errors, "hedged": hedged(mixed, with_errors)}
