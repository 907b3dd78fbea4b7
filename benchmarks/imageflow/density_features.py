"""NPE that reads how ln p(x | y) of a diffusion changes about NPE's own estimate, beside NPE's features.

    python -m benchmarks.imageflow.density_features RUN --held-out 900 --maps 150

The posterior stays calibrated by training, and knows what the density knows. RUN is that of
`benchmarks.imageflow.diffusion`. Maps that the diffusion and NPE held out in training teach a small network, in five
folds of boxes; maps of boxes that nothing saw score it. The terms of ln p are evaluated at NPE's mean and one of its
standard deviations to either side, with the same noise. Maps are kept one by one.
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
from scipy.special import logsumexp
from torch import Tensor, nn

from benchmarks.imageflow.diffusion import fresh_maps, over_boxes
from benchmarks.imageflow.neutral_fraction import regression
from benchmarks.imageflow.slices import Maps, unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.imageflow.diffusion import BANDS, DiffusionFlow
from eorinfer.imageflow.interpolated import less_noise
from eorinfer.imageflow.model import ImageFlow
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.run.config import load_config
from eorinfer.training.data import validation_rows

Array = NDArray[np.float64]
#: Points of NPE's grid, folds of boxes, hidden units, steps between two looks at the fold, and all steps.
POINTS, FOLDS, UNITS, EVERY, STEPS = 2001, 5, 32, 10, 1500
#: What small networks read, by attributes of `Features`.
READ = {"NPE": ("of_npe",), "ln p": ("of_density",), "both": ("of_npe", "of_density")}


@dataclass(frozen=True)
class Features:
    """What a small network reads of n maps.

    Attributes
    ----------
    of_npe, of_density
        (n, F) NPE's features, mean and log width; (n, D) slopes and curvatures of the terms of ln p.
    mean, std
        (n,) of NPE's posterior.
    log_q
        (n,) of NPE at the truth.
    maps
        The maps, with their truths and boxes.
    terms
        (n, 3, 2 + `BANDS`) terms of ln p at NPE's mean and a standard deviation to either side, their sum last.
    """

    of_npe: Array
    of_density: Array
    mean: Array
    std: Array
    log_q: Array
    maps: Maps
    terms: Array

    @property
    def off(self) -> Array:
        """Return (n,) true y less NPE's mean, in its standard deviations."""
        return np.asarray((self.maps.y[:, 0].numpy() - self.mean) / self.std)


def main() -> None:
    """Compute features, train on some of them, score, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--held-out", type=int, default=900)
    parser.add_argument("--maps", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, run = time.monotonic(), Run(load_config(options.run / "config.toml"), options.run)
    flow = ImageFlow.load(options.run / "field")
    rows, fresh = unseen(run)
    held = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    network = regression(run, flow, "NPE", options.run)
    learn = features(
        flow, network, fresh_maps(run, flow, held, options.held_out), options.run / "features-held-out.npz"
    )
    test = features(flow, network, fresh_maps(run, flow, fresh, options.maps), options.run / "features-fresh.npz")
    found: dict[str, Any] = {"held-out maps": len(learn.mean), "maps": len(test.mean)}
    found["boxes"] = len(np.unique(test.maps.box))
    for name, parts in READ.items():
        read = [np.concatenate([getattr(one, part) for part in parts], axis=1) for one in (learn, test)]
        found[name] = scores(test, predictions(learn, *read))
        print(name, found[name], flush=True)
    record("diffusion_features", found, seconds=time.monotonic() - start)


def features(flow: ImageFlow, network: PosteriorNetwork, maps: Maps, file: Path) -> Features:
    """Compute features of maps, or read those that a stopped call kept."""
    density, (low, high) = flow.network, (flow.conditions.low[0], flow.conditions.high[0])
    assert isinstance(density, DiffusionFlow)
    grid = np.linspace(low, high, POINTS)
    with torch.no_grad():
        read = network.embedding(maps.x)
        at_truth = network.log_prob(maps.y[None], read).double().numpy()[0]
        where = torch.from_numpy(grid)[:, None, None]
        log_q = np.concatenate(
            [network.log_prob(where.expand(-1, len(some), 1), some).double().numpy().T for some in read.split(200)]
        )
    q = np.exp(log_q - log_q.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    mean = q @ grid
    std = np.sqrt(np.maximum((q * (grid - mean[:, None]) ** 2).sum(1), 1e-8))
    kept, truth = [], maps.y[:, 0].numpy()
    if file.exists() and np.array_equal((before := np.load(file))["y"], truth[: len(before["y"])]):
        kept = list(before["terms"])
    for i in range(len(kept), len(maps.x)):
        y = torch.from_numpy(np.clip(mean[i] + std[i] * np.array([-1.0, 0.0, 1.0]), low, high))[:, None]
        kept.append(_terms(density, maps.x[i : i + 1].expand(3, *maps.x.shape[1:]), y))
        if (i + 1) % 50 == 0 or i + 1 == len(maps.x):
            np.savez(file, terms=np.array(kept), y=truth[: len(kept)])
            print(f"{file.stem}: {i + 1} of {len(maps.x)}", flush=True)
    terms = np.array(kept[: len(maps.x)])
    terms = np.concatenate([terms, terms.sum(2, keepdims=True)], axis=2)
    below, at, above = terms.swapaxes(0, 1)
    of_density = np.arcsinh(np.concatenate([(above - below) / 2, above - 2 * at + below], axis=1))
    place = np.stack([mean, np.log(std)], axis=1)
    of_npe = np.concatenate([read.numpy(), place], axis=1)
    return Features(of_npe, np.concatenate([of_density, place], axis=1), mean, std, at_truth, maps, terms)


@torch.no_grad()
def _terms(density: DiffusionFlow, x: Tensor, y: Tensor) -> Array:
    """Terms (n, 1 + `BANDS`) of ln p of one map, given n times, of conditions y (n, 1)."""
    gauss, added = (part.double().numpy() for part in density.log_prob_levels(x, y))
    known = density.excess_levels(y).numpy()
    added = less_noise(added, known - known[1:2]).reshape(len(y), BANDS, -1).sum(2)
    return np.concatenate([gauss[:, None], added], axis=1)


def predictions(learn: Features, read: Array, test: Array) -> Array:
    """Shift and log width (FOLDS, n, 2) of normal posteriors, in NPE's standard deviations about its mean.

    Each is linear in the features `test` (n, F) plus a small network, learned on `read` (m, F) by folds of boxes.
    """
    mean, std = read.mean(0), read.std(0)
    x, new = (torch.from_numpy((part - mean) / std).float().clamp(-5, 5) for part in (read, test))
    off, boxes = torch.from_numpy(learn.off).float(), np.random.default_rng(1).permutation(np.unique(learn.maps.box))
    made = []
    for fold in range(FOLDS):
        held = torch.from_numpy(np.isin(learn.maps.box, boxes[fold::FOLDS]))
        torch.manual_seed(10 + fold)
        model = Small(x.shape[1])
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
        best, weights = np.inf, model.state_dict()
        for step in range(STEPS):
            optimizer.zero_grad()
            model.train().loss(x[~held], off[~held]).backward()
            optimizer.step()
            if step % EVERY == EVERY - 1:
                with torch.no_grad():
                    loss = float(model.eval().loss(x[held], off[held]))
                if loss < best:
                    best, weights = loss, {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(weights)
        with torch.no_grad():
            made.append(model.eval()(new).numpy())
    return np.array(made)


class Small(nn.Module):
    """Shift and log width (n, 2) of a normal density from features (n, F); it begins as the standard normal one."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(inputs, 2), nn.Linear(UNITS, 2)
        self.hidden = nn.Sequential(nn.Linear(inputs, UNITS), nn.SiLU(), nn.Dropout(0.1))
        for layer in (self.linear, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute shift and log width."""
        out: Tensor = self.linear(x) + self.last(self.hidden(x))
        return out

    def loss(self, x: Tensor, off: Tensor) -> Tensor:
        """Mean of -ln q of `off` (n,), up to a constant."""
        shift, log_width = self(x).unbind(1)
        return (log_width + 0.5 * ((off - shift) * torch.exp(-log_width)).square()).mean()


def scores(test: Features, made: Array) -> dict[str, Any]:
    """Score the mean of normal posteriors (FOLDS, n, 2)."""
    shift, log_width = made[..., 0], made[..., 1]
    off, box = test.off, test.maps.box
    each = -log_width - 0.5 * ((off - shift) * np.exp(-log_width)) ** 2 - 0.5 * np.log(2 * np.pi)
    log_q = logsumexp(each, axis=0) - np.log(FOLDS) - np.log(test.std)
    mean = shift.mean(0)
    std = np.sqrt((np.exp(2 * log_width) + shift**2).mean(0) - mean**2)
    pull = np.abs((off - mean) / std)
    found: dict[str, Any] = {"rms error": float(np.sqrt(np.mean(((mean - off) * test.std) ** 2)))}
    values = {"inside 68%": pull < 0.9945, "inside 95%": pull < 1.96, "ln q at the truth": log_q}
    found |= {name: over_boxes(value, box) for name, value in values.items()}
    found["more than NPE"] = over_boxes(log_q - test.log_q, box)
    square, error = over_boxes(pull**2, box)
    found["rms error over width"] = [round(square**0.5, 3), round(error / (2 * square**0.5), 3)]
    return found


if __name__ == "__main__":
    main()
