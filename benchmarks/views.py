"""What are further light-cones of the same runs worth, against further runs?

One bank of light-cones with `views` of each run, seen by SKA-Low. Posteriors on P(k) are trained on one view of each of
some runs, on all views of the same runs, and on one view of `views` times as many runs. They are judged by the mean log
density of the truth over runs of other realisations; differences are taken truth by truth, their errors over
realisations. Rows are not emulated, so that each counts as what it is. Light-cones are small, 16 x 16 cells and 7
slices between two nodes, in real space, and 8 runs share initial conditions: 800 runs take about 12 CPU minutes. A
script that was stopped continues where `--folder` is given; with `--as-is` it takes the runs that are there.

    python -m benchmarks.views [--runs 800] [--truths 200] [--views 3] [--folder DIR]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import record
from eorinfer import Bank, Observation, build_survey, fill, local_executor
from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import plan_round
from eorinfer.npe.trainer import Trainer
from eorinfer.run.config import Config, check_config


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
        "training": {"steps": steps, "ensemble": 1, "batch_size": 32, "learning_rate": 4e-3, "emulate": "never"},
    }
    return check_config(Path(__file__).with_name("views.toml"), content)


def rows_of(config: Config, bank: Bank, rows: int, workers: int) -> Rows:
    """Simulate rows that are not there yet, by `workers` processes; with none the rows are those that are there."""
    theta = config.prior.sample(rows, np.random.default_rng(1))
    plan = bank.add(plan_round(1, "views", theta, config.simulator, 1))
    if workers:
        with local_executor(workers) as executor:
            fill(bank, plan, config.simulator, executor)
    made = bank.rows([plan])
    assert (made.status == "ok").all(), made.counts()
    return made


def observed(config: Config, bank: Bank, rows: Rows) -> list[Observation]:
    """Observe each row once."""
    clean = torch.from_numpy(bank.read(config.observable.name, rows))
    survey = build_survey(config.tables.survey, config.observable)
    cubes = survey(clean, torch.Generator().manual_seed(99)).numpy()
    return [Observation.from_observable(config.observable, cube) for cube in cubes]


def compare(config: Config, sets: dict[str, Rows], bank: Bank, held_out: Rows, repeats: int) -> dict[str, Any]:
    """Train on each set of rows and score the truths held out; each set's figures by its title, in nats.

    Returns
    -------
    dict
        For each set its rows, the mean log density of the truth, its difference from the first set with the standard
        error over realisations, and the standard deviation over repeats.
    """
    trainer = Trainer(
        config.prior,
        config.observable,
        config.tables.survey,
        build_survey(config.tables.survey, config.observable),
        config.architecture,
        config.tables.training,
    )
    observations, (_, realisation) = observed(config, bank, held_out), np.unique(held_out.seed, return_inverse=True)
    first, figures = None, {}
    for title, rows in sets.items():
        each = []
        for repeat in range(repeats):
            with tempfile.TemporaryDirectory() as checkpoints:
                posterior = trainer.train(bank, rows, folder=Path(checkpoints), seed=repeat)
            each.append(
                [posterior.log_density(t[None], o)[0] for t, o in zip(held_out.theta, observations, strict=True)]
            )
        scores = np.array(each)
        mean = scores.mean(axis=0)
        first = mean if first is None else first
        by_realisation = np.bincount(realisation, mean - first) / np.bincount(realisation)
        figures[title] = {
            "rows": len(rows),
            "mean_log_density": round(float(mean.mean()), 3),
            "minus_first": round(float((mean - first).mean()), 3),
            "standard_error": round(float(by_realisation.std() / np.sqrt(len(by_realisation))), 3),
            "spread_over_repeats": round(float(scores.mean(axis=1).std(ddof=1)), 3) if repeats > 1 else None,
        }
        print(title, figures[title], flush=True)
    return figures


def main() -> None:
    """Print and record one line for each set of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=800)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--truths", type=int, default=200, help="runs, the last ones, that are not trained on")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each set, with other seeds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--as-is", action="store_true", help="take the runs that the folder has, simulate nothing")
    parser.add_argument("--folder", type=Path, help="where the bank is kept, and found again; by default nowhere")
    arguments = parser.parse_args()
    views, start = arguments.views, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        config = config_of(views, arguments.runs, arguments.steps)
        bank = Bank.create((arguments.folder or Path(name)) / "bank", config.simulator)
        rows = rows_of(config, bank, arguments.runs * views, 0 if arguments.as_is else arguments.workers)
        run, view = np.divmod(np.arange(len(rows)), views)
        few = (len(rows) // views - arguments.truths) // views
        sets = {
            f"{few} x 1": rows[(run < few) & (view == 0)],
            f"{few} x {views}": rows[run < few],
            f"{few * views} x 1": rows[(run < few * views) & (view == 0)],
        }
        held_out = rows[(run >= len(rows) // views - arguments.truths) & (view == 0)]
        figures = compare(config, sets, bank, held_out, arguments.repeats)
        figures |= {"truths": len(held_out), "realisations_of_truths": len(np.unique(held_out.seed))}
        figures |= {"repeats": arguments.repeats, "seconds_in_runs": round(rows.seconds.sum())}
        record("views", figures, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
