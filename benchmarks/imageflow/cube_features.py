"""What a diffusion adds to NPE on 21cm cubes: both combined as a run does it, and what single terms of ln p are worth.

    python -m benchmarks.imageflow.cube_features CONFIG --out RUN --truths 250

The config is that of `benchmarks.imageflow.cubes`: a diffusion on whole cubes through SKA-Low, and fewer rows than its
bank has. For each cube the terms of ln p are evaluated about NPE's own posterior, and a quadratic goes through each
(`eorinfer.combined`). Cubes that the diffusion and NPE held out in training teach the weights; cubes of other
realisations, which nothing saw, score them. What was evaluated is kept cube by cube.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.imageflow.cubes import observed_cubes
from benchmarks.imageflow.diffusion import over_boxes
from benchmarks.imageflow.slices import unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.combined.expansion import Expansion, bounded, monomials, points_about
from eorinfer.combined.worth import exponents, learn_weights, log_ratio
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.diffusion import BANDS, DiffusionFlow
from eorinfer.imageflow.interpolated import less_noise
from eorinfer.imageflow.model import ImageFlow
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from eorinfer.training.data import validation_rows

Array = NDArray[np.float64]
#: Draws from NPE for each cube.
DRAWS = 1000


@dataclass(frozen=True)
class Cubes:
    """What is known of n cubes; theta is in standard deviations of NPE about its mean, called delta.

    Attributes
    ----------
    theta
        (n, DRAWS + 1, P) draws from NPE, and the truth.
    log_q
        (n, DRAWS + 1) NPE's log density there.
    terms
        (n, T, P + P (P + 1) / 2) coefficients of the quadratics through the terms of ln p.
    box
        (n,) number of the realisation.
    """

    theta: Array
    log_q: Array
    terms: Array
    box: NDArray[np.int64]

    def log_p(self, which: list[int] | None = None, *, bound: bool = False) -> Array:
        """Sum some terms of ln p, or all, at draws and truth: (n, DRAWS + 1); bounded as in a run, or not."""
        chosen = self.terms if which is None else self.terms[:, which]
        p = self.theta.shape[2]
        whole = [Expansion(np.zeros(p), np.eye(p), one) for one in chosen.sum(1)]
        if bound:
            whole = [bounded(one, at[:-1]) for one, at in zip(whole, self.theta, strict=True)]
        return np.array([one(at) for one, at in zip(whole, self.theta, strict=True)])


def main() -> None:
    """Train or load the flow and NPE, evaluate, learn, score and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=400, help="fresh cubes that score, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run = Run(load_config(options.config), options.out, for_terminal())
    flow = run.image_flow()
    npe = run.rounds.train(1, run.simulate(), None, run.observe())
    rows, fresh = unseen(run)
    fresh = fresh[: options.truths]
    held = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    learn = evaluated(run, flow, npe, held, run.out / "features-held-out")
    test = evaluated(run, flow, npe, fresh, run.out / "features-fresh")
    volume = float(np.log(np.subtract(flow.conditions.high, flow.conditions.low)).sum())
    found: dict[str, Any] = {"rows of training": len(rows), "held-out cubes": len(held), "truths": len(fresh)}
    found |= {"realisations of truths": len(np.unique(fresh.seed)), "seconds of training": flow.facts["seconds"]}
    found |= {"of NPE": npe.facts.get("seconds")}
    found["NPE over the prior"] = over_boxes(test.log_q[:, -1] + volume, test.box)
    found["NPE"] = scores(test, np.zeros_like(test.log_q))
    for name, (ratio, weights) in ways(learn, test).items():
        found[name] = scores(test, ratio) | {"weights": np.round(weights, 3).tolist()}
        print(name, found[name], flush=True)
    record("diffusion_cube_features", found, seconds=time.monotonic() - start)


# -- what is evaluated ---------------------------------------------------------------------------


def evaluated(run: Run, flow: ImageFlow, npe: Posterior, rows: Rows, folder: Path) -> Cubes:
    """Evaluate NPE and the terms of ln p of rows, or read what a stopped call kept."""
    folder.mkdir(exist_ok=True)
    found: list[dict[str, Array]] = []
    for number, (x, theta) in enumerate(zip(observed_cubes(run, rows).split(1), rows.theta, strict=True)):
        file = folder / f"{number}.npz"
        if not file.exists():
            np.savez(file, **one_cube(flow, npe, x, theta, number))
            print(f"{folder.name}: {number + 1} of {len(rows)}", flush=True)
        found.append(dict(np.load(file)))
    theta = np.array([np.concatenate([one["drawn"], one["delta"][None]]) for one in found])
    log_q = np.array([np.append(one["log_q_drawn"], one["log_q"]) for one in found])
    return Cubes(theta, log_q, np.array([one["terms"] for one in found]), np.unique(rows.seed, return_inverse=True)[1])


@torch.no_grad()
def one_cube(flow: ImageFlow, npe: Posterior, x: Tensor, theta: Array, number: int) -> dict[str, Any]:
    """Evaluate one cube (1, C, *cells) of parameters theta (P,)."""
    density = flow.network
    assert isinstance(density, DiffusionFlow)
    (network,), (features,) = npe.networks, npe.read(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        drawn = network.sample(DRAWS, features)[:, 0].double().numpy()
    everywhere = torch.from_numpy(np.concatenate([drawn, theta[None]]))[:, None]
    log_q = network.log_prob(everywhere, features)[:, 0].double().numpy()
    mean, root, points = points_about(drawn, flow.conditions)
    delta = np.asarray(np.linalg.solve(root, (points - mean).T).T, np.float64)
    terms = _terms(density, x.expand(len(points), *x.shape[1:]), torch.from_numpy(points))
    return {
        "delta": np.linalg.solve(root, theta - mean),
        "drawn": np.linalg.solve(root, (drawn - mean).T).T,
        "log_q": log_q[-1],
        "log_q_drawn": log_q[:-1],
        "terms": (np.linalg.pinv(monomials(delta)) @ (terms - terms[:1])).T,
    }


def _terms(density: DiffusionFlow, x: Tensor, y: Tensor) -> Array:
    """Terms (n, 1 + `BANDS`) of ln p of one cube, given n times, of conditions y (n, P)."""
    gauss, added = (part.double().numpy() for part in density.log_prob_levels(x, y))
    known = density.excess_levels(y).numpy()
    added = less_noise(added, known - known[:1]).reshape(len(y), BANDS, -1).sum(2)
    return np.concatenate([gauss[:, None], added], axis=1)


# -- what is learned -----------------------------------------------------------------------------


def ways(learn: Cubes, test: Cubes) -> dict[str, tuple[Array, Array]]:
    """Combine NPE and ln p in several ways: log of the ratio to NPE's density (n, DRAWS + 1), and the weights."""
    draws, found = test.theta.shape[1] - 1, {}
    weights = learn_weights(learn.log_p(bound=True), learn.log_q)
    ratio = log_ratio(exponents(weights, test.log_p(bound=True), test.log_q), draws)
    found["as a run"] = ratio, weights
    for name, groups in {
        "NPE with a weight": [],
        "one weight": [list(range(1 + BANDS))],
        "a weight for each term": [[i] for i in range(1 + BANDS)],
    }.items():
        taught, asked = ([*map(cubes.log_p, groups), cubes.log_q] for cubes in (learn, test))
        weights = best(np.stack(taught))
        nats = np.tensordot(weights, np.stack(asked), 1) - test.log_q
        found[name] = normed(nats), weights
    return found


def best(parts: Array) -> Array:
    """Find the weights (G + 1,) of G parts of ln p and of NPE's ln q (G + 1, n, DRAWS + 1), without any bound."""

    def loss(weights: Array) -> float:
        return -float(normed(np.tensordot(weights, parts, 1) - parts[-1])[:, -1].mean())

    start = np.append(np.zeros(len(parts) - 1), 1.0)
    return np.asarray(minimize(loss, start, method="L-BFGS-B", bounds=[(0.0, 2.0)] * len(start)).x)


def normed(nats: Array) -> Array:
    """Norm exponents (n, DRAWS + 1), of which the last is at the truth, to a mean ratio of one among the draws."""
    return np.asarray(nats - np.logaddexp.reduce(nats[:, :-1], axis=1, keepdims=True) + np.log(nats.shape[1] - 1))


# -- scores --------------------------------------------------------------------------------------


def scores(test: Cubes, ratio: Array) -> dict[str, Any]:
    """Score a posterior by its log ratio to NPE's (n, DRAWS + 1); errors are over realisations."""
    weight = np.exp(ratio[:, :-1])
    weight = weight / weight.sum(1, keepdims=True)
    drawn, truth = test.theta[:, :-1], test.theta[:, -1]
    mean = np.einsum("nd,ndp->np", weight, drawn)
    std = np.sqrt(np.einsum("nd,ndp->np", weight, np.square(drawn - mean[:, None])))
    rank = np.einsum("nd,ndp->np", weight, drawn < truth[:, None])
    found: dict[str, Any] = {"more than NPE": over_boxes(ratio[:, -1], test.box)}
    found["fewest draws that count"] = float((1 / np.square(weight).sum(1)).min())
    square = np.square((mean - truth) / std)
    pulls = [over_boxes(square[:, i], test.box) for i in range(square.shape[1])]
    found["rms error over width"] = [[round(m**0.5, 3), round(e / (2 * m**0.5), 3)] for m, e in pulls]
    for share in (68, 95):
        inside = (np.abs(rank - 0.5) < share / 200).astype(np.float64)
        found[f"inside {share}%"] = [over_boxes(inside[:, i], test.box) for i in range(inside.shape[1])]
    found["width over NPE's"] = std.mean(0).tolist()
    return found


if __name__ == "__main__":
    main()
