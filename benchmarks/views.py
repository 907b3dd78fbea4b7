"""What are further light-cones of the same runs worth, against further runs?

One bank of light-cones with `views` of each run, seen by SKA-Low. Posteriors on P(k) are trained on one view of each of
some runs, on all views of the same runs, and on one view of `views` times as many runs. They are judged by the mean log
density of the truth over mocks of other runs; differences are taken mock by mock. Light-cones are small, 16 x 16 cells
and 7 slices between two nodes, in real space, and 8 runs share initial conditions: 700 runs take about 10 CPU minutes.
A script that was stopped continues where `--folder` is given.

    python -m benchmarks.views [--runs 200] [--views 3] [--mocks 100] [--folder DIR]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from benchmarks.sharing import mocks
from eorinfer import Bank, Observation, build_survey, fill, local_executor
from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import plan_round
from eorinfer.npe.trainer import Trainer
from eorinfer.run.config import Config, check_config

#: Theta and observation of each mock.
Mocks = list[tuple[NDArray[np.float64], Observation]]


def lightcone(views: int) -> dict[str, Any]:
    """Tables of a light-cone between two nodes, half as deep as its box, and of networks that see its P(k)."""
    return {
        "simulator": {
            "kind": "21cmfast-lightcone",
            "redshift_range": [7.8, 8.0],
            "cells": 16,
            "box_length": 128.0,
            "node_step": 1.2,
            "parameters": ["F_ESC10", "ALPHA_ESC"],
            "observables": ["brightness_temp"],
            "rsd": False,
            "rows_per_realisation": 8,
            "views": views,
        },
        "prior": {"F_ESC10": [-2.0, 0.0]},
        "survey": {"kind": "ska-low", "sefd": "818", "integration": 60.0},
        "observation": {"theta": {"F_ESC10": -1.0, "ALPHA_ESC": -0.5}},
    }


def config_of(views: int, runs: int, steps: int) -> Config:
    """A config of one round with a posterior on P(k)."""
    content = lightcone(views) | {
        "seed": 1,
        "inference": {"rounds": [runs * views], "predictive": 0, "samples": 10},
        "embedding": {"convolution": False, "bins": 8},
        "training": {"steps": steps, "ensemble": 2, "batch_size": 32, "learning_rate": 4e-3},
    }
    return check_config(Path(__file__).with_name("views.toml"), content)


def rows_of(config: Config, folder: Path, runs: int, views: int, workers: int) -> Rows:
    """Simulate `views` rows of each run, in the order of the plan."""
    theta = config.prior.sample(runs * views, np.random.default_rng(1))
    bank = Bank.create(folder, config.simulator)
    plan = bank.add(plan_round(1, "views", theta, config.simulator, 1))
    with local_executor(workers) as executor:
        fill(bank, plan, config.simulator, executor)
    rows = bank.rows([plan])
    assert (rows.status == "ok").all(), rows.counts()
    return rows


def compare(config: Config, sets: dict[str, Rows], bank: Bank, held_out: Mocks, repeats: int) -> dict[str, Any]:
    """Train on each set of rows and score the mocks; each set's figures by its title, in nats.

    Returns
    -------
    dict
        For each set its rows, the mean log density of the truth, its difference from the first set with the standard
        error over mocks, and the standard deviation over repeats.
    """
    trainer = Trainer(
        config.prior,
        config.observable,
        config.tables.survey,
        build_survey(config.tables.survey, config.observable),
        config.architecture,
        config.tables.training,
    )
    first, figures = None, {}
    for title, rows in sets.items():
        each = []
        for repeat in range(repeats):
            with tempfile.TemporaryDirectory() as checkpoints:
                posterior = trainer.train(bank, rows, folder=Path(checkpoints), seed=repeat)
            each.append([posterior.log_density(t[None], o)[0] for t, o in held_out])
        scores = np.array(each)
        mean = scores.mean(axis=0)
        first = mean if first is None else first
        figures[title] = {
            "rows": len(rows),
            "mean_log_density": round(float(mean.mean()), 3),
            "minus_first": round(float((mean - first).mean()), 3),
            "standard_error": round(float((mean - first).std() / np.sqrt(len(mean))), 3),
            "spread_over_repeats": round(float(scores.mean(axis=1).std(ddof=1)), 3) if repeats > 1 else None,
        }
        print(title, figures[title], flush=True)
    return figures


def main() -> None:
    """Print and record one line for each set of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each set, with other seeds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where banks are kept, and found again; by default nowhere")
    arguments = parser.parse_args()
    runs, views = arguments.runs, arguments.views
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        config = config_of(views, runs, arguments.steps)
        rows = rows_of(config, folder / "bank", runs * views, views, arguments.workers)
        held_out = mocks(config_of(1, runs, arguments.steps), folder / "mocks", arguments.mocks, arguments.workers)
        simulated = time.perf_counter() - start
        number = np.arange(len(rows))
        sets = {
            f"{runs} x 1": rows[(number % views == 0) & (number < runs * views)],
            f"{runs} x {views}": rows[number < runs * views],
            f"{runs * views} x 1": rows[number % views == 0],
        }
        figures = compare(config, sets, Bank.open(folder / "bank"), held_out, arguments.repeats)
        figures |= {"mocks": len(held_out), "repeats": arguments.repeats, "seconds_in_runs": round(rows.seconds.sum())}
        figures["seconds_of_simulating"] = round(simulated)  # little where the bank was there
        record("views", figures, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
