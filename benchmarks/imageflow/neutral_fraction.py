"""The neutral fraction of 21cm maps: posteriors of flows on images beside a CNN with Gaussian errors and NPE.

A part of maps_21cm.py.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.imageflow.other_sources import other_sources
from benchmarks.imageflow.slices import Maps, observed
from eorinfer import Run
from eorinfer.imageflow.conditions import image_flow_observable
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.task import Conditioned, ImageFlowTask
from eorinfer.imageflow.training import row_conditions
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.npe.regression import RegressionNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings, TrainingSettings
from eorinfer.training.data import Cubes, validation_rows
from eorinfer.training.fit import fit

#: Held-out maps, those with wrong noise and of each other source model, and that noise in mK.
MAPS, FEWER, NOISES = 200, 100, (0.5, 2.0)
#: Points of the first grid, of the one where the posterior is, and nats below its peak where that ends.
COARSE, FINE, DEPTH = 24, 33, 12.0
TRAINING = TrainingSettings(steps=800, epochs=3000, learning_rate=5e-3, validation_fraction=0.2)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class OnGrid:
    """Posteriors of n maps: points (n, G), and ln q of them (n, G), normalised."""

    points: Array
    log_q: Array

    @classmethod
    def of(cls, points: Array, log_q: Array) -> "OnGrid":
        """Normalise."""
        log_q = log_q - log_q.max(1, keepdims=True)
        return cls(points, log_q - np.log(np.trapezoid(np.exp(log_q), points, axis=1))[:, None])

    @property
    def mean(self) -> Array:
        """(n,)"""
        return np.asarray(np.trapezoid(np.exp(self.log_q) * self.points, self.points, axis=1))

    @property
    def std(self) -> Array:
        """(n,)"""
        squares = np.exp(self.log_q) * (self.points - self.mean[:, None]) ** 2
        return np.asarray(np.sqrt(np.trapezoid(squares, self.points, axis=1)))

    def rank(self, truth: Array) -> Array:
        """Share of each posterior below the truth, (n,)."""
        q = np.exp(self.log_q)
        steps = 0.5 * (q[:, 1:] + q[:, :-1]) * np.diff(self.points, axis=1)
        below = np.concatenate([np.zeros((len(q), 1)), steps.cumsum(1)], axis=1)
        return np.array([np.interp(t, *one) for t, *one in zip(truth, self.points, below, strict=True)])

    def at(self, truth: Array) -> Array:
        """Ln q at the truth, (n,); outside of the grid as at its end, where it is very low."""
        return np.array([np.interp(t, *one) for t, *one in zip(truth, self.points, self.log_q, strict=True)])

    def line(self, truth: Array) -> str:
        """Errors, widths, coverage, and information about the truths (n,)."""
        mean, std, at_truth = self.mean, self.std, self.at(truth)
        inside = [np.mean(np.abs(self.rank(truth) - 0.5) < level / 2) for level in (0.68, 0.95)]
        off = (mean - truth) / std
        return (
            f"rms error {np.sqrt(np.mean((mean - truth) ** 2)):.4f}, width {np.sqrt(np.mean(std**2)):.4f} (median "
            f"{np.median(std):.4f}), rms error over width {np.sqrt(np.mean(off**2)):.2f}; inside 68%: {inside[0]:.1%}, "
            f"95%: {inside[1]:.1%}; ln q at the truth {np.mean(at_truth):.2f} (median {np.median(at_truth):.2f})"
        )


class Task(nn.Module):
    """One of the two through the noise and the symmetries that the flows are trained with."""

    def __init__(self, network: Any, images: ImageFlowTask) -> None:
        super().__init__()
        self.network, self._observe = network, images.observe

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Loss of each map (B,)."""
        loss: Tensor = self.network.loss(*self._observe(batch, generator))
        return loss


def posteriors(run: Run, flows: dict[str, ImageFlow], maps: Maps, out: Path) -> None:
    """Print a line for each method, on maps as in training, with wrong noise, and of other source models."""
    conditions = flows["multiscale"].conditions
    networks = {name: regression(run, flows["multiscale"], name, out) for name in ("CNN, Gaussian", "NPE")}
    chosen = maps.evenly(MAPS)
    worlds = {"as in training": maps[chosen]}
    worlds |= {f"noise of {noise} mK": observed(run, only=True, noise=noise)[chosen[:FEWER]] for noise in NOISES}
    for name, there in other_sources(run, out).items():
        worlds[name] = there[there.evenly(FEWER)]
    for world, some in worlds.items():
        inside = conditions.contains(some.y.numpy())
        some = some[np.flatnonzero(inside)]
        truth = some.y[:, 0].numpy()
        print(f"\n21cm posterior of the neutral fraction, {len(truth)} maps, {world}")
        for name, flow in flows.items():
            start = time.process_time()
            found = flow_posteriors(flow, some.x)
            each = (time.process_time() - start) / len(truth)
            print(f"{name:14s} {found.line(truth)}; {each:.2f} s a map", flush=True)
        grid = np.linspace(conditions.low[0], conditions.high[0], 2001)
        for name, network in networks.items():
            with torch.no_grad():
                features = network.embedding(some.x)
                y = torch.from_numpy(grid)[:, None, None].expand(-1, len(truth), 1)
                log_q = network.log_prob(y, features).double().numpy().T
            print(f"{name:14s} {OnGrid.of(np.tile(grid, (len(truth), 1)), log_q).line(truth)}", flush=True)


@torch.no_grad()
def flow_posteriors(flow: ImageFlow, x: Tensor) -> OnGrid:
    """Posteriors of maps x (n, 1, *cells) under a flat prior, each on a grid about its peak."""
    low, high = float(flow.conditions.low[0]), float(flow.conditions.high[0])
    first = np.linspace(low, high, COARSE)
    points, logs = [], []
    for one in x.split(1):

        def log_p(y: Array, one: Tensor = one) -> Array:
            found = flow.network.log_prob(one.expand(len(y), *one.shape[1:]), torch.from_numpy(y)[:, None])
            return found.numpy()

        coarse = log_p(first)
        near = np.flatnonzero(coarse > coarse.max() - DEPTH)
        second = np.linspace(first[max(near[0] - 1, 0)], first[min(near[-1] + 1, COARSE - 1)], FINE)
        points.append(second)
        logs.append(log_p(second))
    return OnGrid.of(np.array(points), np.array(logs))


def regression(run: Run, flow: ImageFlow, name: str, out: Path) -> Any:
    """The CNN or NPE, trained on the maps that the flow was trained on, or from its file."""
    config, image = run.config, image_flow_observable(run.config.tables.image_flow, run.config.observable)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network: Any
        if name == "NPE":
            tables = EmbeddingSettings(), FlowSettings(), PowerSpectrumSettings()
            network = PosteriorNetwork(flow.conditions, image, *tables)
        else:
            cnn = EmbeddingSettings(power_spectrum=False)
            network = RegressionNetwork(flow.conditions, image, cnn, PowerSpectrumSettings())
    file = out / f"{name.split(',')[0]}.safetensors"
    if file.exists():
        network.load_state_dict(load_file(file))
        return network.eval()
    rows = run.training_rows(run.observe())
    held = validation_rows(rows.seed, config.tables.training.validation_fraction)
    training, validation = (
        Conditioned(
            Cubes(run.context.bank, config.observable.name, rows[chosen]),
            row_conditions(run.context.bank, rows[chosen], config.prior, config.tables.image_flow),
        )
        for chosen in (~held, held)
    )
    images = ImageFlowTask(flow.network, run.context.survey, image.symmetry, 0.0, slice_first=True)
    observed = images.observe(training.__getitems__(list(range(128))), torch.Generator().manual_seed(1))[1]
    network.embedding.fit_scaling(observed)
    start = time.process_time()
    task = Task(network, images)
    record = fit(task, training, validation, TRAINING, folder=out / f"{name}.fit", seed=1, title=name)
    seconds = time.process_time() - start
    print(f"{name}: {record.validation_loss:.3f} nats less the prior's in validation, {seconds:.0f} s of the processor")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
    return network.eval()
