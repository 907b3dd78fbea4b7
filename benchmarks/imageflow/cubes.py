"""Posteriors of a diffusion on 21cm cubes through SKA-Low, beside NPE on the same cubes, and of both together.

    python -m benchmarks.imageflow.cubes CONFIG --out RUN --truths 60

The config has ``[image_flow] kind = "diffusion"`` on whole cubes and trains on fewer rows than its bank has of the same
prior: the others, which nothing saw, are the truths, one of each realisation. For each of them ln q of the true
parameters less ln of the prior, the share inside central intervals, and the rms error over the width; by all terms of
ln p as they are, by the Gaussian field's alone, by NPE on image and P(k) from the same rows, and with weights of ln p
and of NPE's ln q that were learned on cubes that training held out. Cubes are kept one by one.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.imageflow.diffusion import weights_with_npe
from benchmarks.imageflow.slices import unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import InterpolatedLikelihood
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.weights import DEPTH, log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from eorinfer.training.data import validation_rows

Array = NDArray[np.float64]
#: Points of a posterior about the flow's, and draws of NPE, whose posterior may be wider.
POINTS, DRAWS = 4096, 4000


def main() -> None:
    """Train or load the flow and NPE, evaluate both, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=60)
    parser.add_argument("--held-out", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run = Run(load_config(options.config), options.out, for_terminal())
    flow = run.image_flow()
    npe = run.rounds.train(1, run.simulate(), None, run.observe())
    assert isinstance(flow.network, DiffusionFlow)
    rows, fresh = unseen(run)
    held = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    sets = {
        name: evaluated(run, flow, npe, these, run.out / name)
        for name, these in (
            ("held-out", one_of_each(held, options.held_out)),
            ("fresh", one_of_each(fresh, options.truths)),
        )
    }
    held_out, tested = sets["held-out"], sets["fresh"]
    weights = weights_with_npe(held_out["terms"], held_out["at_truth"], held_out["cell"])
    box = float(np.log(np.subtract(flow.conditions.high, flow.conditions.low)).sum())
    found: dict[str, Any] = {"kept cells": flow.network.inner[1:], "truths": len(tested["theta"])}
    found |= {"held-out cubes": len(held_out["theta"]), "seconds a truth": float(tested["seconds"].mean())}
    found |= {"evaluations a truth": float(tested["evaluations"].mean())}
    for name in ("error", "residual"):
        found[f"rms {name} of ln p"] = float(np.sqrt(np.mean(np.square(tested[name]))))
    found |= {"seconds of training": flow.facts["seconds"], "of NPE": npe.facts.get("seconds")}
    gains = {name: log_density(w, tested["terms"], tested["at_truth"], tested["cell"]) for name, w in weights.items()}
    gains["NPE"] = tested["at_truth"][:, -1]  # its density is normalised over the prior, not over the points
    for name, w in weights.items():
        points = tested["drawn"] if name == "NPE" else tested["points"]
        log_q = np.zeros(points.shape[:2]) if name == "NPE" else tested["terms"] @ w
        found[name] = scores(points, log_q, tested["theta"], gains[name] + box, gains["NPE"] + box)
        found[name]["weights"] = np.round(w, 3).tolist()
        print(name, found[name], flush=True)
    print({key: value for key, value in found.items() if key not in weights}, flush=True)
    record("diffusion_cubes", found, seconds=time.monotonic() - start)


def one_of_each(rows: Rows, n: int) -> Rows:
    """Take one row of each realisation, n at most."""
    return rows[np.sort(np.unique(rows.seed, return_index=True)[1])[:n]]


def observed_cubes(run: Run, rows: Rows) -> torch.Tensor:
    """Observe the cubes (n, C, *cells) of rows, with one draw of noise each."""
    clean = torch.from_numpy(run.context.bank.read(run.config.observable.name, rows))
    with torch.no_grad():
        observed: torch.Tensor = run.context.survey(clean, torch.Generator().manual_seed(7))
    return observed


def evaluated(run: Run, flow: ImageFlow, npe: Posterior, rows: Rows, folder: Path) -> dict[str, Array]:
    """Evaluate the terms of ln p, and NPE's ln q as the last one, about the posteriors of rows, and at the truths."""
    assert isinstance(flow.network, DiffusionFlow)
    folder.mkdir(exist_ok=True)
    found: list[dict[str, Array]] = []
    for number, (x, theta) in enumerate(zip(observed_cubes(run, rows).split(1), rows.theta, strict=True)):
        file = folder / f"{number}.npz"
        if not file.exists():
            began = time.process_time()
            log_l = InterpolatedLikelihood(flow.network, x, flow.conditions, depth=DEPTH)
            points, cell = log_l.points(POINTS)
            some = {"points": points, "terms": log_l.terms(points), "at_truth": log_l.terms(theta[None])[0]}
            costs = {"cell": cell, "error": log_l.error, "residual": log_l.residual}
            costs |= {"evaluations": log_l.evaluations, "seconds": time.process_time() - began}
            arrays = some | {"theta": theta} | {key: np.array(value) for key, value in costs.items()}
            np.savez(file, **arrays)
            print(f"{folder.name}: {number + 1} of {len(rows)}", flush=True)
        one = dict(np.load(file))
        (network,), (features,) = npe.networks, npe.read(x)
        with torch.no_grad():
            where = torch.from_numpy(np.concatenate([one["points"], theta[None]]))[:, None]
            log_q = network.log_prob(where, features).double().numpy()
        one["terms"] = np.concatenate([one["terms"], log_q[:-1]], axis=1)
        one["at_truth"] = np.append(one["at_truth"], log_q[-1])
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            one["drawn"] = network.sample(DRAWS, features)[:, 0].numpy()
        found.append(one)
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def scores(points: Array, log_q: Array, theta: Array, gain: Array, of_npe: Array) -> dict[str, Any]:
    """Score posteriors of n truths theta (n, P), each on points (n, G, P) with ln q (n, G), up to a constant.

    `gain` (n,) is ln q of the truth less the prior's; `of_npe` the same of NPE.
    """
    q = np.exp(log_q - log_q.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    mean = np.einsum("ng,ngp->np", q, points)
    std = np.sqrt(np.einsum("ng,ngp->np", q, (points - mean[:, None]) ** 2))
    rank = np.einsum("ng,ngp->np", q, points < theta[:, None])
    more = gain - of_npe
    return {
        "nats over the prior": float(gain.mean()),
        "its error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
        "median": float(np.median(gain)),
        "nats over NPE": float(more.mean()),
        "error of that": float(more.std(ddof=1) / np.sqrt(len(more))),
        "inside 68%": (np.abs(rank - 0.5) < 0.34).mean(0).round(3).tolist(),
        "inside 95%": (np.abs(rank - 0.5) < 0.475).mean(0).round(3).tolist(),
        "rms error over width": np.sqrt(np.mean(((mean - theta) / std) ** 2, axis=0)).round(2).tolist(),
        "width": std.mean(0).round(4).tolist(),
    }


if __name__ == "__main__":
    main()
