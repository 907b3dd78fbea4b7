"""Posteriors on P(k) of 21cmFAST's boxes from few simulations: with rows of an emulator, and without.

Boxes of 32³ cells of 4 Mpc at z = 9 through SKA-Low (AA4, 1000 h), two parameters, every box of its own realisation.
The first boxes of the bank train. Truths are later ones, observed once; no choice is made on them.

    python -m benchmarks.few_boxes --out DIR                          850 boxes (20 CPU minutes), then an hour
    python -m benchmarks.few_boxes --out DIR --boxes 150 --seeds 1 --emulate never
    python -m benchmarks.few_boxes --out DIR --table                  what is there, kept in benchmarks/results

What is there already is not made again; several processes may share the work by naming other seeds.
"""

import argparse
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.record import record
from eorinfer import Bank, Run, Trainer, TrainingSettings, build_survey
from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import planned_rows
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.npe.batched import draw_untruncated
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import Config, check_config
from eorinfer.validation.calibration import calibrate

#: Boxes of the bank, and the first one that is a truth.
BOXES, FIRST_TRUTH = 850, 400
BATCH, DRAWS = 50, 1000


def config() -> Config:
    """Tables of the boxes, and of networks that read their P(k)."""
    content: dict[str, Any] = {
        "seed": 2,
        "simulator": {
            "kind": "21cmfast-coeval",
            "redshifts": [9.0],
            "cells": 32,
            "box_length": 128.0,
            "parameters": ["F_ESC10", "M_TURN"],
            "rows_per_realisation": 1,
        },
        "prior": {"F_ESC10": [-2.0, 0.0]},
        "survey": {"kind": "ska-low"},
        "observation": {"theta": {"F_ESC10": -1.0, "M_TURN": 8.7}},
        "inference": {"rounds": [BOXES]},
        "embedding": {"convolution": False},
    }
    return check_config(Path(__file__).with_name("few_boxes.toml"), content)


def main() -> None:
    """Simulate, train and judge what lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--boxes", type=int, nargs="+", default=[150], help=f"that train, at most {FIRST_TRUTH}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--emulate", nargs="+", choices=("never", "vectors"), default=["never", "vectors"])
    parser.add_argument("--table", action="store_true", help="record what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds if not arguments.table else ():
        for boxes in arguments.boxes:
            for emulate in arguments.emulate:
                path = arguments.out / f"{boxes}.{emulate}.{seed}.json"
                if not path.exists():
                    write_json(path, measure(arguments.out, boxes, emulate, seed))
                print(path.stem, read_json(path), flush=True)
    if arguments.table:
        found = {path.stem: read_json(path) for path in sorted(arguments.out.glob("*.*.*.json"))}
        record("few_boxes", found, seconds=sum(row["cpu_seconds"] for row in found.values()))


def measure(out: Path, boxes: int, emulate: Literal["never", "vectors"], seed: int) -> dict[str, Any]:
    """Train on the first boxes and judge by the truths."""
    run = Run(config(), out / "run", for_terminal())
    rows = planned_rows(run.bank, run.simulate()).ok
    survey = build_survey(run.config.tables.survey, run.config.observable)
    trainer = Trainer(
        run.config.prior,
        run.config.observable,
        run.config.tables.survey,
        survey,
        run.config.architecture,
        TrainingSettings(emulate=emulate),
    )
    start = time.process_time()
    folder = out / f"networks-{boxes}-{emulate}-{seed}"
    posterior = trainer.train(run.bank, rows[:boxes], folder=folder, seed=seed, progress=for_terminal())
    seconds = time.process_time() - start
    return {"cpu_seconds": round(seconds)} | judged(posterior, run.bank, rows[FIRST_TRUTH:], seed)


def judged(posterior: Posterior, bank: Bank, truths: Rows, seed: int) -> dict[str, Any]:
    """Nats over the prior with their error, coverage, and the smallest p-value of its tests after Holm's correction."""
    survey, generator = build_survey(posterior.survey, posterior.observable), torch.Generator().manual_seed(9)
    at, of_draws, draws = [], [], []
    for start in range(0, len(truths), BATCH):
        part = truths[start : start + BATCH]
        features = posterior.read(survey(torch.from_numpy(bank.read(posterior.observable.name, part)), generator))
        drawn = draw_untruncated(posterior.networks, features, DRAWS, seed)
        at.append(log_density(posterior.networks, part.theta[:, None], features)[:, 0])
        of_draws.append(log_density(posterior.networks, drawn, features))
        draws.append(drawn)
    own, theirs, unit = np.concatenate(at), np.concatenate(of_draws), posterior.prior.unit
    found = calibrate(posterior.prior.names, unit(truths.theta), unit(np.concatenate(draws)), own, theirs, seed)
    gain, inside = own - posterior.prior.log_prob(truths.theta), (theirs > own[:, None]).mean(1)
    return {
        "truths": len(truths),
        "nats_over_prior": round(float(gain.mean()), 4),
        "error": round(float(gain.std(ddof=1) / len(gain) ** 0.5), 4),
        "p": round(found.worst.p_holm, 4),
        "inside_50_68_95": [round(float((inside <= level).mean()), 3) for level in (0.5, 0.68, 0.95)],
        "emulated_rows_kept": posterior.facts["emulated"],
        "gains": posterior.facts["gains"],
    }


if __name__ == "__main__":
    main()
