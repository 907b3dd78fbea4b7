"""What are further light-cones of the same runs worth, against further runs?

One bank of light-cones with `views` of each run, in redshift space and seen by SKA-Low. Posteriors are trained on one
view of each of some runs, on all views of the same runs, and on one view of `views` times as many runs. They are
judged by the mean log density of the truth over mocks of other runs; differences are taken mock by mock.

    python -m benchmarks.views [--runs 200] [--views 3] [--mocks 200]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sharing import config_of, mocks
from eorinfer import Bank, build_survey, fill, local_executor
from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import plan_round
from eorinfer.npe.trainer import Trainer
from eorinfer.run.config import Config


def lightcone(views: int) -> dict[str, Any]:
    """Tables of a light-cone as deep as its box."""
    return {
        "simulator": {
            "kind": "21cmfast-lightcone",
            "redshift_range": [7.6, 8.0],
            "cells": 16,
            "box_length": 128.0,
            "node_step": 1.1,
            "parameters": ["F_ESC10", "ALPHA_ESC"],
            "observables": ["brightness_temp"],
            "views": views,
        },
        "prior": {"F_ESC10": [-2.0, 0.0]},
        "survey": {"kind": "ska-low", "sefd": "818", "integration": 60.0},
        "observation": {"theta": {"F_ESC10": -1.0, "ALPHA_ESC": -0.5}},
    }


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


def main() -> None:
    """Print one line for each set of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--mocks", type=int, default=200)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each set, with other seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where banks are kept, and found again; by default nowhere")
    arguments = parser.parse_args()
    runs, views = arguments.runs, arguments.views
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        config = config_of(lightcone(views), runs, arguments.steps, 1)
        start = time.perf_counter()
        rows = rows_of(config, folder / "bank", runs * views, views, arguments.workers)
        held_out = mocks(config, folder / "mocks", arguments.mocks, arguments.workers)
        bank = Bank.open(folder / "bank")
        print(f"simulating: {time.perf_counter() - start:.0f} s; {rows.seconds.sum():.0f} s in the runs", flush=True)
        number = np.arange(len(rows))
        sets = {
            f"{runs} x 1": rows[(number % views == 0) & (number < runs * views)],
            f"{runs} x {views}": rows[number < runs * views],
            f"{runs * views} x 1": rows[number % views == 0],
        }
        print("runs x views   mean log q(truth)   minus the first (standard error)   over repeats")
        trainer = Trainer(
            config.prior,
            config.observable,
            config.tables.survey,
            build_survey(config.tables.survey, config.observable),
            config.architecture,
            config.tables.training,
        )
        first = None
        for title, some in sets.items():
            each = []
            for repeat in range(arguments.repeats):
                checkpoints = Path(name) / title.replace(" ", "") / str(repeat)
                posterior = trainer.train(bank, some, folder=checkpoints, seed=repeat)
                each.append([posterior.log_density(t[None], o)[0] for t, o in held_out])
            scores = np.array(each)
            mean = scores.mean(axis=0)
            first = mean if first is None else first
            error = (mean - first).std() / np.sqrt(len(mean))
            spread = scores.mean(axis=1).std(ddof=1) if arguments.repeats > 1 else np.nan
            print(
                f"{title:12s} {mean.mean():19.3f} {(mean - first).mean():+17.3f} ({error:.3f}) {spread:25.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
