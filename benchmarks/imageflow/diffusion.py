"""How well does a diffusion do on 21cm maps that nothing was trained on?

    eorinfer image-flow train CONFIG --out RUN            a diffusion on slices, conditioned on their neutral fraction
    python -m benchmarks.imageflow.diffusion RUN --part generation|posterior

For generation the flow may be of another kind: bits a cell are of the same fresh maps and the same noise.

The bank has more boxes of the run's prior than the run trains on: the others are the fresh truth. Parts:

generation  in bins of the neutral fraction: P(k), cells, bispectra and mean free path of made maps over those of fresh
            ones, beside the floor, the maps of training at the same neutral fractions; errors from a bootstrap over
            boxes and made maps. Bits a cell of fresh maps.
posterior   of the neutral fraction of fresh maps: as the density is, with one weight for ln p or one for each term of
            it, by NPE that was trained on the same boxes, and by both: the weights of ln p and of NPE's ln q are
            learned on maps that training held out. With the run's own weight, if it has one (`weighing`). Errors over
            boxes. Kept map by map.
"""

import argparse
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks.imageflow.maps_21cm import EDGES, TRIANGLES, bispectrum, mean_free_path
from benchmarks.imageflow.neutral_fraction import OnGrid, regression
from benchmarks.imageflow.slices import Maps, observed_rows, unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import InterpolatedLikelihood
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.weights import learn_weights
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.run.config import load_config
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.power import build_power_spectrum
from eorinfer.training.data import validation_rows

Array = NDArray[np.float64]
#: Maps made in each bin, draws of a bootstrap, maps whose bits and mean free paths are computed.
MADE, DRAWS, BITS, PATHS = 160, 200, 200, 30
#: Points of a posterior's grid, and nats below the peak that it reaches.
POINTS, DEPTH = 512, 60.0


def main() -> None:
    """Measure one part, print it line by line, and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", choices=("generation", "posterior"), required=True)
    parser.add_argument("--maps", type=int, default=150, help="fresh maps of the posterior, and half as many held-out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, start = Run(load_config(options.run / "config.toml"), options.run), time.monotonic()
    flow = ImageFlow.load(options.run / "field")
    rows, fresh = unseen(run)
    print(f"{len(rows)} boxes of training, {len(fresh)} fresh ones", flush=True)
    if options.part == "generation":
        found = generation(run, flow, rows, fresh)
    else:
        found = posterior(run, flow, rows, fresh, options.maps, options.run)
    record(f"{flow.settings.kind}_{options.part}", found, seconds=time.monotonic() - start)


def generation(run: Run, flow: ImageFlow, rows: Rows, fresh: Rows) -> dict[str, Any]:
    """Compare made maps, and those of training, with fresh ones."""
    real, seen = observed_rows(run, fresh, axes=3), observed_rows(run, rows, axes=3)
    spectrum = build_power_spectrum(flow.observable, PowerSpectrumSettings(bins=8, k_min=0.1))
    order = np.argsort(seen.y[:, 0].numpy())
    table: list[dict[str, Any]] = []
    for low, high in pairwise(EDGES):
        rng = np.random.default_rng(11)
        y = real.y[:, 0].numpy()
        inside = np.flatnonzero((y >= low) & (y < high))
        inside = inside[np.argsort(y[inside], kind="stable")]
        chosen = inside[np.linspace(0, len(inside) - 1, MADE).round().astype(int)]
        began = time.process_time()
        made = flow.sample(np.clip(y[chosen], flow.conditions.low, flow.conditions.high)[:, None], seed=12)
        seconds = (time.process_time() - began) / MADE
        # Maps of training near the same neutral fractions: what a flow that knows them by heart would make.
        near = np.searchsorted(seen.y[order, 0].numpy(), y[inside]) + rng.integers(-30, 31, len(inside))
        floor = seen[order[np.clip(near, 0, len(order) - 1)]]
        maps = {
            flow.settings.kind: Maps(torch.from_numpy(made), real.y[chosen], np.arange(MADE)),
            "floor": floor,
        }
        truth = real[inside]
        row: dict[str, Any] = {"x_HI": [low, high], "real maps": len(inside), "boxes": len(np.unique(truth.box))}
        for name, these in maps.items():
            row[name] = compare(these, truth, spectrum, rng)
        row[flow.settings.kind]["seconds a map"] = seconds
        table.append(row)
        print(row, flush=True)
    some = real.evenly(BITS)
    few = real[some[flow.conditions.contains(real.y[some].numpy())]]
    began = time.process_time()
    with torch.no_grad():
        terms = torch.cat(
            [flow.network.log_prob_scales(x, y) for x, y in zip(few.x.split(64), few.y.split(64), strict=False)]
        )
    seconds = (time.process_time() - began) / len(few.x)
    cell = np.log(2) * few.x[0].numel()
    bits: dict[str, float] = {flow.settings.kind: float(-terms.sum(1).mean() / cell)}
    if isinstance(flow.network, DiffusionFlow):
        bits["Gaussian field"] = float(-terms[:, 0].mean() / cell)
    print(bits, seconds, flush=True)
    each = {"box": few.box.tolist(), "bits a cell": np.round(-terms.sum(1).numpy() / cell, 5).tolist()}
    fit = flow.facts["fits"]["generative"]
    training = {name: flow.facts[name] for name in ("training_rows", "validation_rows", "seconds")}
    training |= {name: fit[name] for name in ("epochs", "validation_loss")}
    return {"bins": table, "bits a cell": bits, "each map": each, "seconds a ln p": seconds, "training": training}


def compare(made: Maps, real: Maps, spectrum: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Ratios of what made and real maps are on average, less one, and their sampling errors."""
    found: dict[str, Any] = {}
    measures: dict[str, Callable[[torch.Tensor], Array]] = {
        "P(k)": lambda x: spectrum(x)[:, 0].numpy(),
        **{name: _bispectrum(name) for name in TRIANGLES},
    }
    for name, measure in measures.items():
        mine, theirs = measure(made.x), measure(real.x)
        off = mine.mean(0) / theirs.mean(0) - 1
        error = ratio_error(mine, made.box, theirs, real.box, rng)
        found[name] = {"off": off.tolist(), "error": error.tolist()}
    mine, theirs = np.log(measures["P(k)"](made.x)), np.log(measures["P(k)"](real.x))
    found["worst P(k)"] = float(np.abs(found["P(k)"]["off"]).max())
    found["scatter of P(k)"] = (mine.std(0) / theirs.std(0) - 1).tolist()
    found["cells"] = float(ks_2samp(made.x.numpy().ravel(), real.x.numpy().ravel()[::7]).statistic)
    paths = [
        np.array([mean_free_path(one[0], 400) for one in m.x[np.linspace(0, len(m.x) - 1, PATHS).astype(int)].numpy()])
        for m in (made, real)
    ]
    found["mean free path"] = {
        "off": float(np.nanmean(paths[0]) / np.nanmean(paths[1]) - 1),
        "error": float(np.hypot(*[np.nanstd(p) / np.nanmean(p) / np.sqrt(np.isfinite(p).sum()) for p in paths])),
    }
    return found


def _bispectrum(name: str) -> Callable[[torch.Tensor], Array]:
    return lambda x: bispectrum(x[:, 0].numpy(), *TRIANGLES[name])[:, None]


def ratio_error(
    mine: Array, box: NDArray[np.int64], theirs: Array, other_box: NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """Standard deviation of the ratio of means under a bootstrap over the boxes of both."""
    sums = []
    for values, boxes in ((mine, box), (theirs, other_box)):
        _, index, count = np.unique(boxes, return_inverse=True, return_counts=True)
        total = np.zeros((len(count), values.shape[1]))
        np.add.at(total, index, values)
        sums.append((total, count))
    ratios = []
    for _ in range(DRAWS):
        means = []
        for total, count in sums:
            some = rng.integers(len(count), size=len(count))
            means.append(total[some].sum(0) / count[some].sum())
        ratios.append(means[0] / means[1])
    return np.array(ratios).std(0)


def posterior(run: Run, flow: ImageFlow, rows: Rows, fresh: Rows, n: int, out: Path) -> dict[str, Any]:
    """Posteriors of the neutral fraction of fresh maps."""
    held = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    network = regression(run, flow, "NPE", out)
    found: dict[str, Any] = {}
    sets = []
    for name, these, count in (("held-out", held, n // 2), ("fresh", fresh, n)):
        maps = fresh_maps(run, flow, these, count)
        kept = _terms(flow, maps, out / f"diffusion-{name}.npz")
        seconds, evaluations, errors, residuals = kept["costs"].T
        found[name] = {
            "maps": len(maps.x),
            "boxes": len(np.unique(maps.box)),
            "seconds a map": float(seconds.mean()),
            "evaluations a map": float(evaluations.mean()),
            "rms error of ln p differences": float(np.sqrt(np.mean(errors**2))),
            "rms interpolation error": float(np.sqrt(np.mean(residuals**2))),
        }
        print(name, found[name], flush=True)
        sets.append((maps, kept["points"], np.concatenate([kept["terms"], _log_q(network, maps, kept["points"])], 2)))
    (maps, grid, terms), (test, test_grid, test_terms) = sets
    truth = maps.y[:, 0].numpy()
    at_truth = np.array([[np.interp(t, p, c) for c in m.T] for t, p, m in zip(truth, grid, terms, strict=True)])
    cells = np.log((grid[:, -1] - grid[:, 0]) / (POINTS - 1))
    weights = weights_with_npe(terms, at_truth, cells)
    if flow.weights is not None:
        weights["as a run has it"] = np.append(flow.weights, 0.0)
    posteriors = {name: OnGrid.of(test_grid, test_terms @ w) for name, w in weights.items()}
    truth = test.y[:, 0].numpy()
    for name, q in posteriors.items():
        found[name] = scores(q, posteriors["NPE"], truth, test.box) | {"weights": np.round(weights[name], 3).tolist()}
        print(f"{name:32s} {found[name]}", flush=True)
    return found


def weights_with_npe(terms: Array, at_truth: Array, cells: Array) -> dict[str, Array]:
    """Give weights (T,) of the terms of ln p and, last of all, NPE's ln q; parameters as of `learn_weights`."""
    last = terms.shape[2] - 1
    number = np.arange(last + 1)
    weights = {"as it is": number < last, "Gaussian field alone": number == 0, "NPE": number == last}
    weights = {name: chosen.astype(float) for name, chosen in weights.items()}
    # Which terms share a weight.
    together = {
        "one weight": [number < last],
        "a weight for each term": [number == i for i in range(last)],
        "one weight, and one for NPE": [number < last, number == last],
        "a weight for each term and NPE": [number == i for i in range(last + 1)],
    }
    for name, groups in together.items():
        sums, sums_at_truth = (np.stack([some[..., g].sum(-1) for g in groups], -1) for some in (terms, at_truth))
        weights[name] = np.array(groups).T @ learn_weights(sums, sums_at_truth, cells)
    return weights


def _terms(flow: ImageFlow, maps: Maps, file: Path) -> dict[str, Array]:
    """Terms of ln p of maps on a grid about each one's posterior, and costs; kept in a file, map by map."""
    assert isinstance(flow.network, DiffusionFlow)
    kept: dict[str, list[Array]] = {"points": [], "terms": [], "costs": [], "y": []}
    if file.exists():
        before = dict(np.load(file))
        if kept.keys() <= before.keys() and np.array_equal(before["y"], maps.y[: len(before["y"]), 0].numpy()):
            kept = {name: list(before[name]) for name in kept}
    for number in range(len(kept["y"]), len(maps.x)):
        x, y = maps.x[number : number + 1], maps.y[number, 0].numpy()
        began = time.process_time()
        log_l = InterpolatedLikelihood(flow.network, x, flow.conditions, depth=DEPTH)
        points = np.sort(log_l.points(POINTS)[0][:, 0])
        terms, seconds = log_l.terms(points[:, None]), time.process_time() - began
        costs = np.array([seconds, log_l.evaluations, log_l.error, log_l.residual])
        for name, value in {"points": points, "terms": terms, "costs": costs, "y": y}.items():
            kept[name].append(value)
        if len(kept["y"]) % 10 == 0 or len(kept["y"]) == len(maps.x):
            np.savez(file, **{name: np.array(values) for name, values in kept.items()})  # type: ignore[arg-type]
            print(f"{file.stem}: {len(kept['y'])} of {len(maps.x)}", flush=True)
    return {name: np.array(values) for name, values in kept.items()}


def _log_q(network: PosteriorNetwork, maps: Maps, points: Array) -> Array:
    """Ln q of NPE for maps, each at its own points (n, G): (n, G, 1)."""
    with torch.no_grad():
        y = torch.from_numpy(points.T.copy())[..., None]
        return network.log_prob(y, network.embedding(maps.x)).double().numpy().T[..., None]


def scores(q: OnGrid, other: OnGrid, truth: Array, box: NDArray[np.int64]) -> dict[str, Any]:
    """Score posteriors, also against others of the same maps; errors are standard deviations over the boxes."""
    rank, off, gain = q.rank(truth), q.mean - truth, q.at(truth) - other.at(truth)
    squares = np.square(off / q.std)
    values = {"inside 68%": np.abs(rank - 0.5) < 0.34, "inside 95%": np.abs(rank - 0.5) < 0.475, "squares": squares}
    values |= {"ln q at the truth": q.at(truth), "more than NPE": gain}
    found: dict[str, Any] = {"rms error": float(np.sqrt(np.mean(off**2))), "width": float(np.sqrt(np.mean(q.std**2)))}
    found |= {name: over_boxes(value, box) for name, value in values.items()}
    mean, error = found.pop("squares")
    found["rms error over width"] = [round(mean**0.5, 3), round(error / (2 * mean**0.5), 3)]
    return found


def over_boxes(values: Array, box: NDArray[np.int64]) -> list[float]:
    """Give the mean of values (n,) and its standard error; maps of one box (n,) are not independent."""
    mean = float(values.mean())
    return [round(mean, 4), round(float(np.sqrt(np.square(np.bincount(box, values - mean)).sum()) / len(values)), 4)]


def fresh_maps(run: Run, flow: ImageFlow, rows: Rows, n: int) -> Maps:
    """Observed maps of rows, n at most, spread evenly over the neutral fractions that training saw."""
    maps = observed_rows(run, rows, axes=3)
    maps = maps[maps.evenly(n)]
    return maps[np.flatnonzero(flow.conditions.contains(maps.y.numpy()))]


if __name__ == "__main__":
    main()
