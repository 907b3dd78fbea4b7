"""Which simulation to train on? Posteriors of observations that another model made, and whether a warning was given.

    python -m benchmarks.sensitivity examples/contest.toml runs/contest --out DIR

Takes what a contest has trained, and asks it about the same parameters and realisations as they look

as trained   with the simulator and the survey of the contest,
source       with 21cmFAST's Park19 template: spin temperature, recombinations, another filter of the sources,
box          in a corner of a box of 1.5 times the side: longer waves, and sides that do not meet,
noise        with noise 1.5 times as strong.

What is there already is not simulated again.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eorinfer import Run
from eorinfer.contest.contest import build_method
from eorinfer.contest.method import ContestSetup
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.progress import for_terminal
from eorinfer.core.seeds import item_seed
from eorinfer.npe.check import check_images
from eorinfer.run.config import check_config, load_config
from eorinfer.run.truths import simulated_truths
from eorinfer.survey import build_survey

METHODS = ("ps-full", "ps-neural", "npe-power", "npe-image", "npe-both", "regression")
SAMPLES, LARGER, LOUDER = 1000, 1.5, 1.5
#: Stream of the noise on the truths.
NOISE = 77


def main() -> None:
    """Simulate what lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--worlds", nargs="+", default=["as trained", "source", "box", "noise"])
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config), arguments.run, for_terminal())
    rows = run.first_rows(run.observe())
    setup = ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    methods = [build_method(setup, name) for name in arguments.methods]
    checker = trained_posterior(setup, "npe-both")
    for name in arguments.worlds:
        theta, observed = observations(run, arguments, name)
        checks = check_images(checker, observed)
        warned = np.mean([check.unlike for check in checks])
        print(f"\n{name}: {len(theta)} observations, {warned:.0%} warned of", flush=True)
        for method in methods:
            answers = method.evaluate(observed, theta, SAMPLES, 1)
            pull = (answers.values.mean(1) - theta) / answers.values.std(1)
            low, high = np.quantile(answers.values, [0.16, 0.84], axis=1)
            inside = ((theta >= low) & (theta <= high)).mean(0)
            gain = answers.at_truth - run.config.prior.log_density
            each = "; ".join(
                f"{parameter}: bias {pull[:, i].mean():+.2f} σ, rms {np.sqrt((pull[:, i] ** 2).mean()):.2f} σ, "
                f"{inside[i]:.0%} inside 68%"
                for i, parameter in enumerate(run.config.prior.names)
            )
            print(
                f"  {method.label:45s} gained {gain.mean():+.2f} ± {gain.std() / len(gain) ** 0.5:.2f} nats "
                f"(median {np.median(gain):+.2f}); {each}",
                flush=True,
            )


def observations(run: Run, arguments: argparse.Namespace, name: str) -> tuple[np.ndarray, Tensor]:
    """Parameters (T, P) and cubes (T, C, *cells) of one world."""
    content = tomllib.loads(arguments.config.read_text())
    simulator, survey = content["simulator"], dict(content["survey"])
    if name == "source":
        simulator |= {"spin_temperature": True, "nodes": "coarse", "independent_redshifts": True}
    elif name == "box":
        simulator |= {"cells": int(LARGER * simulator["cells"]), "box_length": LARGER * simulator["box_length"]}
    elif name == "noise":
        survey["hours"] = survey["hours"] / LOUDER**2
    folder = arguments.out / name.replace(" ", "-")
    world = Run(check_config(arguments.config, content | {"bank": {}}), folder, for_terminal())
    nothing = world.bank.rows()[:0]  # nothing was trained on in that world
    truths = simulated_truths(world.context, nothing, arguments.truths)
    clean = torch.from_numpy(world.bank.read(run.config.observable.name, truths))
    cells = run.config.observable.cells
    corner: tuple[Any, ...] = (..., *(slice(0, n) for n in cells))
    clean = clean[corner]
    tables = check_config(arguments.config, tomllib.loads(arguments.config.read_text()) | {"survey": survey}).tables
    observe = build_survey(tables.survey, run.config.observable)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(item_seed(run.tables.seed, NOISE))
        return truths.theta, observe(clean.contiguous(), generator)


if __name__ == "__main__":
    main()
