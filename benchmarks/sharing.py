"""What does it cost that successive simulations share initial conditions, and what does it save?

For each share a posterior is trained on the same number of simulations at the same theta, and judged by
the mean log density of the truth over fresh mocks that share nothing. Differences are taken mock by mock, with their
standard error; the standard deviation over repeats shows how much of a difference training itself makes.

    python -m benchmarks.sharing gaussian [--simulations 500] [--mocks 1000] [--repeats 3]
    python -m benchmarks.sharing 21cmfast [--simulations 240] [--mocks 100] [--repeats 2]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer import Bank, Observation, Posterior, Run, build_survey, fill, local_executor
from eorinfer.campaign.plans import plan_round
from eorinfer.run.config import Config, check_config
from simulators import GaussianField


class SharedField(GaussianField):
    """The Gaussian field, whose white noise stands for the initial conditions."""

    rows: int = 1

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows that share one seed."""
        return self.rows


def gaussian(share: int) -> dict[str, Any]:
    """Tables of a small Gaussian field in white noise."""
    return {
        "simulator": {"kind": "sharing:SharedField", "cells": 24, "box_length": 24.0, "rows": share},
        "prior": {"log_amplitude": [-2.0, 3.0], "slope": [-3.0, 0.0]},
        "survey": {"kind": "white-noise", "sigma": 0.3},
        "observation": {"theta": {"log_amplitude": 0.0, "slope": -1.5}},
    }


def reionization(share: int) -> dict[str, Any]:
    """Tables of one coeval cube of 21cmFAST as SKA-Low would see it."""
    return {
        "simulator": {
            "kind": "21cmfast-coeval",
            "redshifts": [8.0],
            "cells": 16,
            "box_length": 128.0,
            "parameters": ["F_ESC10", "ALPHA_ESC"],
            "observables": ["brightness_temp"],
            "rows_per_realisation": share,
        },
        "prior": {"F_ESC10": [-2.0, 0.0]},
        "survey": {"kind": "ska-low", "sefd": "818", "integration": 60.0},
        "observation": {"theta": {"F_ESC10": -1.0, "ALPHA_ESC": -0.5}},
    }


def config_of(tables: dict[str, Any], simulations: int, steps: int, seed: int) -> Config:
    """A config of one round with a small network."""
    content = tables | {
        "seed": seed,
        "inference": {"rounds": [simulations], "predictive": 0, "samples": 10},
        "embedding": {"width": 8},
        "training": {"steps": steps, "ensemble": 2, "batch_size": 32, "learning_rate": 4e-3},
    }
    return check_config(Path(__file__).with_name("sharing.toml"), content)


def mocks(config: Config, folder: Path, number: int, workers: int) -> list[tuple[NDArray[np.float64], Observation]]:
    """Fresh theta and observations, each of a realisation of its own."""
    theta = config.prior.sample(number, np.random.default_rng(99))
    bank = Bank.create(folder, config.simulator)
    plan = bank.add(plan_round(99, "mocks", theta, config.simulator, 99, share=1))
    with local_executor(workers) as executor:
        fill(bank, plan, config.simulator, executor, beside=config.folder)
    rows = bank.rows([plan]).ok
    survey = build_survey(config.tables.survey, config.observable)
    clean = torch.from_numpy(bank.read(config.observable.name, rows))
    observed = survey(clean, torch.Generator().manual_seed(99)).numpy()
    return [
        (t, Observation.from_observable(config.observable, cube)) for t, cube in zip(rows.theta, observed, strict=True)
    ]


def main() -> None:
    """Print one line for each share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("gaussian", "21cmfast"))
    parser.add_argument("--simulations", type=int, default=240)
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each share, with other seeds")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--shares", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    tables = gaussian if arguments.model == "gaussian" else reionization
    scores: dict[int, NDArray[np.float64]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = config_of(tables(1), arguments.simulations, arguments.steps, 1)
        held_out = mocks(first, folder / "mocks", arguments.mocks, arguments.workers)
        print(
            f"{arguments.model}: {arguments.simulations} simulations, {len(held_out)} mocks, "
            f"{arguments.repeats} repeats"
        )
        print("share   wall s/simulation   mean log q(truth)   minus share 1 (standard error)   over repeats")
        for share in arguments.shares:
            each, seconds = [], 0.0
            for repeat in range(arguments.repeats):
                config = config_of(tables(share), arguments.simulations, arguments.steps, 1 + repeat)
                # One bank serves the repeats of 21cmFAST, whose simulations are dear; the networks differ.
                bank = folder / f"bank-{share}" if arguments.model == "21cmfast" else None
                if bank is not None:
                    content = config.content() | {"bank": {"path": str(bank)}}
                    config = check_config(config.file, content)
                run = Run(config, folder / f"run-{share}-{repeat}")
                start = time.perf_counter()
                run.simulate()
                seconds = seconds or (time.perf_counter() - start) / arguments.simulations
                run.infer()
                posterior = Posterior.load(folder / f"run-{share}-{repeat}" / "posterior")
                each.append([posterior.log_density(t[None], o)[0] for t, o in held_out])
            scores[share] = np.array(each)
            mean = scores[share].mean(axis=0)
            difference = mean - scores[arguments.shares[0]].mean(axis=0)
            error = difference.std() / np.sqrt(len(difference))
            spread = scores[share].mean(axis=1).std(ddof=1) if arguments.repeats > 1 else np.nan
            print(
                f"{share:5d} {seconds:21.2f} {mean.mean():19.3f} {difference.mean():+17.3f} ({error:.3f})"
                f" {spread:21.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
