"""NPE on 21cm cubes that reads how ln p(x | y) of a diffusion changes about NPE's own posterior.

    python -m benchmarks.imageflow.cube_features CONFIG --out RUN --truths 250

The config is that of `benchmarks.imageflow.cubes`: a diffusion on whole cubes through SKA-Low, and fewer rows than its
bank has. For each cube the terms of ln p are evaluated at NPE's mean and on the ellipsoid of its covariance, always
with the same noise; a quadratic goes through each term. So nothing is interpolated across the prior. NPE's posterior is
multiplied by exp(a quadratic): as a run combines them, or the terms with a weight each, or what a small network makes
of them and of NPE's features. What NPE gains by a weight of its own, and by its own features, is beside them. Cubes
that the diffusion and NPE held out in training teach all of it, in folds of realisations; cubes of other realisations,
which nothing saw, score it. What was evaluated is kept cube by cube.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.imageflow.cubes import observed_cubes
from benchmarks.imageflow.diffusion import over_boxes
from benchmarks.imageflow.slices import unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.combined.expansion import Expansion, bounded
from eorinfer.combined.worth import exponents, learn_weights, log_ratio
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.diffusion import BANDS, DiffusionFlow
from eorinfer.imageflow.interpolated import less_noise
from eorinfer.imageflow.model import ImageFlow
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from eorinfer.training.data import validation_rows

Array = NDArray[np.float64]
#: Draws from NPE, folds, hidden units, and steps in all and between looks.
DRAWS, FOLDS, UNITS, STEPS, EVERY = 1000, 5, 32, 600, 10
#: Each term of ln p by itself.
ALONE = [[i] for i in range(1 + BANDS)]
#: What small networks read.
READ = {"NPE's features": ("of_npe",), "ln p": ("of_density",), "ln p and NPE's features": ("of_npe", "of_density")}


@dataclass(frozen=True)
class Cubes:
    """What is known of n cubes; theta is in standard deviations of NPE about its mean, called delta.

    Attributes
    ----------
    delta, drawn
        (n, P) true parameters, and (n, DRAWS, P) draws from NPE.
    log_q, log_q_drawn
        (n,) and (n, DRAWS) NPE's log density there, up to one constant of the cube.
    terms
        (n, T, 1 + P + P (P + 1) / 2) coefficients of the quadratics through the terms of ln p, without the first.
    of_npe
        (n, F) features, mean and covariance of NPE.
    box
        (n,) number of the realisation.
    """

    delta: Tensor
    drawn: Tensor
    log_q: Tensor
    log_q_drawn: Tensor
    terms: Tensor
    of_npe: Tensor
    box: NDArray[np.int64]

    @property
    def of_density(self) -> Tensor:
        """Return (n, F) what a network reads of the quadratics, their sum and NPE's place among it."""
        every = torch.cat([self.terms, self.terms.sum(1, keepdim=True)], 1)
        return torch.cat([torch.asinh(every).flatten(1), self.of_npe[:, -self.places :]], 1)

    @property
    def places(self) -> int:
        """Number of entries of NPE's mean and covariance."""
        p = self.delta.shape[1]
        return p + p * (p + 1) // 2

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Cubes":
        some = torch.from_numpy(chosen)
        names = ("delta", "drawn", "log_q", "log_q_drawn", "terms", "of_npe")
        return replace(self, box=self.box[chosen], **{name: getattr(self, name)[some] for name in names})


#: Exponents at the truths (n,) and at NPE's draws (n, DRAWS).
Exponents = tuple[Tensor, Tensor]


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
    found["NPE over the prior"] = over_boxes(test.log_q.numpy() + volume, test.box)
    found["NPE"] = scores(test, [lambda cubes: (0 * cubes.log_q, 0 * cubes.log_q_drawn)])
    as_a_run = Combination(learn)
    found["as a run"] = scores(test, [as_a_run]) | {"weights": [round(float(w), 3) for w in as_a_run.weights]}
    print("as a run", found["as a run"], flush=True)
    weights = {"NPE with a weight": [], "one weight": [list(range(1 + BANDS))], "a weight for each term": ALONE}
    for name, groups in weights.items():
        weighed = Weighed(groups)
        fitted(weighed, learn)
        found[name] = scores(test, [weighed]) | {"weights": [round(float(w), 3) for w in weighed.weights]}
        print(name, found[name], flush=True)
    for name, parts in READ.items():
        found[name] = scores(test, networks(learn, parts))
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
    parts = {name: torch.from_numpy(np.array([one[name] for one in found])).float() for name in found[0]}
    return Cubes(**parts, box=np.unique(rows.seed, return_inverse=True)[1])


@torch.no_grad()
def one_cube(flow: ImageFlow, npe: Posterior, x: Tensor, theta: Array, number: int) -> dict[str, Any]:
    """Evaluate one cube (1, C, *cells) of parameters theta (P,): the fields of `Cubes`, without the first axis."""
    density, p = flow.network, len(theta)
    assert isinstance(density, DiffusionFlow)
    (network,), (features,) = npe.networks, npe.read(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        drawn = network.sample(DRAWS, features)[:, 0].double().numpy()
    everywhere = torch.from_numpy(np.concatenate([drawn, theta[None]]))[:, None]
    log_q = network.log_prob(everywhere, features)[:, 0].double().numpy()
    mean, root = drawn.mean(0), np.linalg.cholesky(np.cov(drawn.T))
    diagonals = np.array([np.eye(p)[i] + np.eye(p)[j] for i in range(p) for j in range(i)]).reshape(-1, p) / np.sqrt(2)
    ways = np.concatenate([np.eye(p), diagonals])
    inside = np.clip(
        mean + np.concatenate([0 * ways[:1], ways, -ways]) @ root.T, flow.conditions.low, flow.conditions.high
    )
    delta = np.linalg.solve(root, (inside - mean).T).T
    terms = _terms(density, x.expand(len(inside), *x.shape[1:]), torch.from_numpy(inside))
    quadratics = np.linalg.pinv(monomials(torch.from_numpy(delta)).numpy()) @ (terms - terms[:1])
    place = np.concatenate([mean, root[np.tril_indices(p)]])
    return {
        "delta": np.linalg.solve(root, theta - mean),
        "drawn": np.linalg.solve(root, (drawn - mean).T).T,
        "log_q": log_q[-1],
        "log_q_drawn": log_q[:-1],
        "terms": quadratics.T,
        "of_npe": np.concatenate([features[0].double().numpy(), place]),
    }


def _terms(density: DiffusionFlow, x: Tensor, y: Tensor) -> Array:
    """Terms (n, 1 + `BANDS`) of ln p of one cube, given n times, of conditions y (n, P)."""
    gauss, added = (part.double().numpy() for part in density.log_prob_levels(x, y))
    known = density.excess_levels(y).numpy()
    added = less_noise(added, known - known[:1]).reshape(len(y), BANDS, -1).sum(2)
    return np.concatenate([gauss[:, None], added], axis=1)


def monomials(delta: Tensor) -> Tensor:
    """Linear and quadratic monomials (..., P + P (P + 1) / 2) of delta (..., P)."""
    p = delta.shape[-1]
    square = [delta[..., i] * delta[..., j] for i in range(p) for j in range(i + 1)]
    return torch.cat([delta, torch.stack(square, -1)], -1)


# -- what is learned -----------------------------------------------------------------------------


class Combination:
    """NPE and ln p combined as `eorinfer.combined` does, by what the cubes `learn` show."""

    def __init__(self, learn: Cubes) -> None:
        self.weights = learn_weights(*self._both(learn))

    @staticmethod
    def _both(cubes: Cubes) -> tuple[Array, Array]:
        """Give ln p and NPE's ln q (n, DRAWS + 1) at its draws and at the truth."""
        theta = torch.cat([cubes.drawn, cubes.delta[:, None]], 1).double().numpy()
        about = Expansion(np.zeros(theta.shape[2]), np.eye(theta.shape[2]), np.zeros(0))
        whole = [replace(about, coefficients=one) for one in cubes.terms.sum(1).double().numpy()]
        log_p = [bounded(one, at[:-1])(at) for one, at in zip(whole, theta, strict=True)]
        return np.array(log_p), torch.cat([cubes.log_q_drawn, cubes.log_q[:, None]], 1).double().numpy()

    def __call__(self, cubes: Cubes) -> Exponents:
        """Compute the exponents."""
        ratio = torch.from_numpy(log_ratio(exponents(self.weights, *self._both(cubes)), DRAWS)).float()
        return ratio[:, -1], ratio[:, :-1]


class Weighed(nn.Module):
    """The terms of ln p with a weight for each of several groups of them, and NPE's ln q with the last one."""

    def __init__(self, groups: list[list[int]]) -> None:
        super().__init__()
        self._groups = groups
        self.weights = nn.Parameter(torch.tensor([0.01] * len(groups) + [1.0]))

    def forward(self, cubes: Cubes) -> Exponents:
        """Compute the exponents."""
        parts = [w * cubes.terms[:, group].sum(1) for w, group in zip(self.weights, self._groups, strict=False)]
        rest = self.weights[-1] - 1
        at_truth, at_draws = quadratic(cubes, torch.stack([0 * cubes.terms[:, 0], *parts]).sum(0))
        return at_truth + rest * cubes.log_q, at_draws + rest * cubes.log_q_drawn


class Small(nn.Module):
    """Coefficients of a quadratic from features (n, F), by a linear map and a small network; zero to begin with."""

    def __init__(self, learn: Cubes, parts: tuple[str, ...]) -> None:
        super().__init__()
        self._parts = parts
        read = self._read(learn)
        self._mean, self._std = read.mean(0), read.std(0) + 1e-6
        inputs, outputs = read.shape[1], learn.terms.shape[2]
        self.linear, self.last = nn.Linear(inputs, outputs), nn.Linear(UNITS, outputs)
        self.hidden = nn.Sequential(nn.Linear(inputs, UNITS), nn.SiLU(), nn.Dropout(0.1))
        for layer in (self.linear, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _read(self, cubes: Cubes) -> Tensor:
        return torch.cat([getattr(cubes, part) for part in self._parts], 1)

    def forward(self, cubes: Cubes) -> Exponents:
        """Compute the exponents."""
        x = ((self._read(cubes) - self._mean) / self._std).clamp(-5, 5)
        return quadratic(cubes, self.linear(x) + self.last(self.hidden(x)))


def quadratic(cubes: Cubes, coefficients: Tensor) -> Exponents:
    """Evaluate quadratics (n, P + P (P + 1) / 2) at the truths and at NPE's draws."""
    at_truth, at_draws = monomials(cubes.delta.clamp(-5, 5)), monomials(cubes.drawn.clamp(-5, 5))
    return (at_truth * coefficients).sum(1), torch.einsum("ndm,nm->nd", at_draws, coefficients)


def more_than_npe(exponents: Exponents) -> Tensor:
    """Compute ln q of the truth, less NPE's: (n,)."""
    at_truth, at_draws = exponents
    return at_truth - torch.logsumexp(at_draws, 1) + np.log(at_draws.shape[1])


def fitted(model: nn.Module, learn: Cubes, held: Cubes | None = None) -> None:
    """Fit a model to cubes, and keep what was best on those held out, if there are any."""
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-2 if held is None else 2e-3, weight_decay=0.0 if held is None else 0.05
    )
    best, kept = np.inf, {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = -more_than_npe(model.train()(learn)).mean()
        loss.backward()
        optimizer.step()
        if step % EVERY == EVERY - 1:
            with torch.no_grad():
                now = float(loss) if held is None else -float(more_than_npe(model.eval()(held)).mean())
            if now < best:
                best, kept = now, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    model.eval()


def networks(learn: Cubes, parts: tuple[str, ...]) -> list[Small]:
    """Small networks, of which each has another fold of realisations held out."""
    boxes, made = np.random.default_rng(1).permutation(np.unique(learn.box)), []
    if len(boxes) < 2 * FOLDS:
        raise SystemExit(f"{len(boxes)} realisations were held out: {FOLDS} folds need {2 * FOLDS} or more")
    for fold in range(FOLDS):
        held = np.isin(learn.box, boxes[fold::FOLDS])
        torch.manual_seed(10 + fold)
        made.append(Small(learn[~held], parts))
        fitted(made[-1], learn[~held], learn[held])
    return made


# -- scores --------------------------------------------------------------------------------------


@torch.no_grad()
def scores(test: Cubes, models: Sequence[Callable[[Cubes], Exponents]]) -> dict[str, Any]:
    """Score the mean of the posteriors of some models; errors are over realisations."""
    each = [model(test) for model in models]
    gain = torch.logsumexp(torch.stack([more_than_npe(one) for one in each]), 0) - np.log(len(each))
    weight = torch.stack([torch.softmax(at_draws, 1) for _, at_draws in each]).mean(0)
    mean = torch.einsum("nd,ndp->np", weight, test.drawn)
    std = torch.einsum("nd,ndp->np", weight, (test.drawn - mean[:, None]).square()).sqrt()
    rank = torch.einsum("nd,ndp->np", weight, (test.drawn < test.delta[:, None]).float())
    found: dict[str, Any] = {"more than NPE": over_boxes(gain.double().numpy(), test.box)}
    found["fewest draws that count"] = float((1 / weight.square().sum(1)).min())
    square = (((mean - test.delta) / std) ** 2).double().numpy()
    pulls = [over_boxes(square[:, i], test.box) for i in range(square.shape[1])]
    found["rms error over width"] = [[round(m**0.5, 3), round(e / (2 * m**0.5), 3)] for m, e in pulls]
    for share in (68, 95):
        inside = ((rank - 0.5).abs() < share / 200).double().numpy()
        found[f"inside {share}%"] = [over_boxes(inside[:, i], test.box) for i in range(inside.shape[1])]
    found["width over NPE's"] = std.mean(0).tolist()
    return found


if __name__ == "__main__":
    main()
