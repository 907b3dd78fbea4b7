"""One world left out of all trainings and asked about, for `benchmarks.worlds`: runs of a question, and its scores."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds_scores import LATER, once, question, scores
from benchmarks.worlds_seen import FirstElements, checks, of_checks, over_references, with_reference
from eorinfer import Run
from eorinfer.bank.rows import Plan, Rows
from eorinfer.contest.contest import build_method
from eorinfer.contest.method import ContestSetup
from eorinfer.contest.networks import amortised, trained_posterior
from eorinfer.core.progress import Lines
from eorinfer.core.toml import read_toml
from eorinfer.npe.check import ObservationCheck
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import check_config

CONFIG = Path(__file__).parents[1] / "examples" / "worlds.toml"
#: Steps of a training on summaries, and what networks of cubes have: one network, which sees new noise at each step.
STEPS, BINS = 400, 8
ON_CUBES = {"steps": 1500, "ensemble": 1, "batch_size": 32, "learning_rate": 4e-3}
#: Draws of noise of each row: those of the other worlds stand for as many as the first one has.
DRAWS = {"first": 1, "others": 3}
#: Truths of the known world that tell how false alarms depend on the realisations that are compared with.
MANY = 300
#: Factors on the errors of the error model, where they are compared; 1 elsewhere.
STRENGTHS = {"e-integral": [0.7, 1.0, 1.5]}
#: Nats of the alignment for each unit of discrepancy.
ALIGNMENT = 3.0
#: The likelihood of P(k), whose mean and scatter are learned of one world and of the worlds mixed.
LIKELIHOOD = "ps-full"
METHODS = {
    "npe-one-world": "one world",
    "npe-power": "mixed",
    "npe-aligned": "aligned",
    "npe-error-model": "error model",
    "npe-hedged": "hedged",
}


class Heard(Lines):
    """Progress that keeps what is said of strengths that are compared."""

    def __init__(self) -> None:
        self.strengths: list[str] = []

    def line(self, text: str) -> None:
        """Print the line."""
        self.strengths += [text] if ": strength " in text and text not in self.strengths else []
        super().line(text)


def opened_cubes(bank: Path, out: Path, held_out: str, view: str) -> Run:
    """Open the run of one question to one view, on the bank of cubes."""
    content = read_toml(CONFIG) | {
        "bank": {"path": str(bank.resolve())},
        "flow": {"kind": "zuko_nsf"},
        "power_spectrum": {"bins": BINS},
        "training": ON_CUBES,
        "contest": {"methods": [view], "reference": view, "baseline": view, "worlds_view": view}
        | {"held_out_world": held_out, "alignments": [ALIGNMENT]},
    }
    return Run(check_config(CONFIG, content), out / f"{held_out}-{view}", Heard())


def opened(
    rows: Rows,
    values: NDArray[np.float32],
    names: tuple[str, ...],
    out: Path,
    held_out: str,
    read: str = "moments",
) -> Run:
    """Open the run of one question, on a bank of summaries (n, S), which the folders are named after."""
    further = next(name for name in names[1:] if name != held_out)
    prior = {"F_ESC10": {"low": -2.0, "high": 0.0}, "ALPHA_ESC": {"low": -1.0, "high": 0.5}}
    content: dict[str, Any] = {
        "seed": 1,
        "simulator": {"kind": "imported", "ranges": prior, "shape": [1, values.shape[1]]}
        | {"worlds": [{"name": name} for name in names]},
        "observation": {"file": "none.h5"},
        "inference": {"rounds": [1]},
        "bank": {"path": str((out / f"bank-{read}").resolve())},
        "flow": {"kind": "zuko_nsf"},
        "training": {"steps": STEPS, "ensemble": 2, "batch_size": 64, "learning_rate": 4e-3, "emulate": "never"},
        "contest": {"methods": list(METHODS), "reference": "npe-power", "baseline": "npe-power"}
        | {
            "held_out_world": held_out,
            "further_world": further,
            "worlds_view": "npe-power",
            "alignments": [ALIGNMENT],
            "error_strengths": STRENGTHS.get(held_out, [1.0]),
        },
    }
    run = Run(check_config(out / "worlds.toml", content), out / f"{held_out}-{read}", Heard())
    for name, number, own in (("01-all", 1, rows.round != LATER), ("02-later", LATER, rows.round == LATER)):
        part, n = rows[own], int(own.sum())
        if not n:
            continue
        plan = run.bank.add(Plan(name, number, "worlds", n, part.theta, part.seed, part.world))
        if run.bank.missing(plan):
            run.bank.write_shard(
                plan,
                0,
                status=["ok"] * n,
                message=[""] * n,
                seconds=[0.0] * n,
                arrays={"image": values[own][:, None]},
            )
    return run


def ask(
    run: Run,
    held_out: str,
    methods: tuple[str, ...],
    keep: Callable[[dict[str, Any]], None],
    content: dict[str, Any],
    *,
    vectors: bool = True,
    alone: Run | None = None,
) -> dict[str, Any]:
    """Score each method on worlds of its training and on the one held out, and the warnings.

    Parameters
    ----------
    run
        Opened by `opened` or `opened_cubes`.
    held_out
        Name of the world left out.
    methods
        Labels of `METHODS`, in the order in which they are trained.
    keep, content
        Writes what there is after each method; what there is already is not made again.
    vectors
        Whether the bank has summaries, which are checked as such; cubes are, as images.
    alone
        Run that keeps the network of the first world alone, where several questions share it.
    """
    worlds, view = run.config.worlds, run.tables.contest.worlds_view
    assert worlds is not None
    number = worlds.number(held_out)
    rows, truths = rows_and_truths(run, number)
    # Cubes get their noise at each step; those of small worlds are given as often as their summaries are there.
    rows = rows[np.repeat(np.arange(len(rows)), 1 if vectors else np.where(rows.world == 0, 1, DRAWS["others"]))]
    if not vectors:
        truths["known"] = truths["known"][np.unique(truths["known"].seed, return_index=True)[1]]
    of_one = rows[rows.world == rows.world.min()]
    statistics = FirstElements() if vectors else None

    @cache
    def trained(label: str) -> Posterior:
        if label == "one world" and alone is not None and number > 0:
            return trained_posterior(setup(alone, of_one), view, rows=of_one, place="npe-one-world")
        if label == "one world":
            return trained_posterior(setup(run, rows), view, rows=of_one, place="npe-one-world")
        return trained_posterior(setup(run, rows), view)

    @cache
    def checked(label: str) -> dict[str, list[ObservationCheck]]:
        one = trained(label)
        if vectors:
            one = with_reference(run, one, of_one if label == "one world" else rows, FirstElements())
        found = {what: checks(run, one, of, statistics) for what, of in truths.items()}
        content["warned"][label] = {what: of_checks(each) for what, each in found.items()}
        if vectors and len(truths["known"]) > MANY:
            shares = over_references(run, one, truths["known"], FirstElements())
            content["warned"][label]["known, over references"] = shares
        return found

    content |= {"rows": worlds.counts(rows.world)} | {key: content.get(key, {}) for key in ("methods", "warned")}
    heard = run.context.progress
    assert isinstance(heard, Heard)
    for name, label in METHODS.items():
        if label not in methods or label in content["methods"]:
            continue
        start = time.monotonic()
        if label in ("one world", "mixed"):
            method = amortised(view, trained(label))
        else:
            method = build_method(setup(run, rows), name)
        by = checked("one world" if label == "one world" else "mixed")
        found = {what: scores(run, method, of, by[what], run.config.prior) for what, of in truths.items()}
        content["methods"][label] = found | {"seconds": round(time.monotonic() - start)}
        if label == "one world":
            content["rows_of_one_world"] = len(of_one)
        if heard.strengths:
            content["strengths"] = heard.strengths
        print(held_out, view, label, content["methods"][label], flush=True)
        keep(content)
    return content


def ask_likelihood(run: Run, held_out: str) -> dict[str, Any]:
    """Score the likelihood of P(k) as `ask` scores networks, on cubes; no warnings are made."""
    worlds = run.config.worlds
    assert worlds is not None
    rows, truths = rows_and_truths(run, worlds.number(held_out))
    truths = {what: of[np.unique(of.seed, return_index=True)[1]] for what, of in truths.items()}
    content: dict[str, Any] = {"rows": worlds.counts(rows.world), "methods": {}}
    for label, of in (("one world", rows[rows.world == rows.world.min()]), ("mixed", rows)):
        start, method = time.monotonic(), build_method(setup(run, of), LIKELIHOOD)
        found = {what: scores(run, method, asked, None, run.config.prior) for what, asked in truths.items()}
        content["methods"][label] = found | {"seconds": round(time.monotonic() - start)}
        print(held_out, LIKELIHOOD, label, content["methods"][label], flush=True)
    return content


def rows_and_truths(run: Run, number: int) -> tuple[Rows, dict[str, Rows]]:
    """Give rows to train on where a world is left out, and truths of it and of the first world that is trained on."""
    every = run.bank.rows().ok
    rows, asked = question(every, number)
    every = every[np.isin(every.seed, asked)]
    of = {"held out": number, "known": int(rows.world.min())}
    return rows, {what: once(every[every.world == world]) for what, world in of.items()}


def setup(run: Run, rows: Rows) -> ContestSetup:
    """What a method of the contest needs, of rows to train on."""
    return ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
