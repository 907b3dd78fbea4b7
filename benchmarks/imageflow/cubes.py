"""Posteriors of a diffusion on 21cm cubes through SKA-Low, as they are and with weights.

    python -m benchmarks.imageflow.cubes CONFIG --out RUN --truths 60

The config has ``[image_flow] kind = "diffusion"`` on whole cubes and trains on fewer rows than its bank has of the same
prior: the others, which nothing saw, are the truths. For each of them ln q of the true parameters less ln of the prior,
the share inside central intervals, and the rms error over the width; with all terms of ln p as they are, with the
Gaussian field's alone, and with weights that were learned on cubes that training held out.
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

from benchmarks.imageflow.slices import unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import InterpolatedLikelihood
from eorinfer.imageflow.weights import DEPTH, log_density
from eorinfer.run.config import load_config

Array = NDArray[np.float64]
#: Points of a posterior.
POINTS = 4096


def main() -> None:
    """Train or load the flow, ask it, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run = Run(load_config(options.config), options.out, for_terminal())
    flow = run.image_flow()
    assert isinstance(flow.network, DiffusionFlow)
    rows = unseen(run)[1][: options.truths]
    clean = torch.from_numpy(run.context.bank.read(run.config.observable.name, rows))
    with torch.no_grad():
        observed = run.context.survey(clean, torch.Generator().manual_seed(7))
    points, terms, at_truth, cells, errors, began = [], [], [], [], [], time.process_time()
    for x, theta in zip(observed.split(1), rows.theta, strict=True):
        log_l = InterpolatedLikelihood(flow.network, x, flow.conditions, depth=DEPTH)
        some, cell = log_l.points(POINTS)
        points.append(some)
        terms.append(log_l.terms(some))
        at_truth.append(log_l.terms(theta[None])[0])
        cells.append(cell)
        errors.append(log_l.error)
    seconds = (time.process_time() - began) / len(rows)
    ones = np.ones(terms[0].shape[1])
    weights = {"as it is": ones, "Gaussian field alone": np.eye(len(ones))[0]}
    if flow.weights is not None:
        weights["weights"] = np.array(flow.weights)
    box = float(np.log(np.subtract(flow.conditions.high, flow.conditions.low)).sum())
    found: dict[str, Any] = {"kept cells": flow.network.inner[1:], "truths": len(rows)}
    found |= {"seconds a truth": seconds, "rms error of ln p differences": float(np.sqrt(np.mean(np.square(errors))))}
    arrays = np.array(points), np.array(terms), np.array(at_truth), np.array(cells)
    for name, w in weights.items():
        found[name] = scores(*arrays, rows.theta, w, box) | {"weights": w.round(3).tolist()}
        print(name, found[name], flush=True)
    print({key: found[key] for key in ("kept cells", "seconds a truth", "rms error of ln p differences")}, flush=True)
    record("diffusion_cubes", found, seconds=time.monotonic() - start)


def scores(points: Array, terms: Array, at_truth: Array, cells: Array, theta: Array, w: Array, box: float) -> Any:
    """Score posteriors on points (n, G, P) of terms (n, G, T), with the terms at the truths (n, T)."""
    gain = log_density(w, terms, at_truth, cells) + box
    log_q = terms @ w
    q = np.exp(log_q - log_q.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    mean = np.einsum("ng,ngp->np", q, points)
    std = np.sqrt(np.einsum("ng,ngp->np", q, (points - mean[:, None]) ** 2))
    rank = np.einsum("ng,ngp->np", q, points < theta[:, None])
    return {
        "nats over the prior": float(gain.mean()),
        "its error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
        "median": float(np.median(gain)),
        "inside 68%": (np.abs(rank - 0.5) < 0.34).mean(0).round(3).tolist(),
        "inside 95%": (np.abs(rank - 0.5) < 0.475).mean(0).round(3).tolist(),
        "rms error over width": np.sqrt(np.mean(((mean - theta) / std) ** 2, axis=0)).round(2).tolist(),
        "width": std.mean(0).round(4).tolist(),
    }


if __name__ == "__main__":
    main()
