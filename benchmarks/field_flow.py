"""How good is the flow on the images where the answer is known, and how fast is it?

    python benchmarks/field_flow.py --out DIR                        everything: about two hours on one core
    python benchmarks/field_flow.py --out DIR --parts gaussian --seeds 1

gaussian   The field of known_answer.py: 32² unit cells in white noise 0.3, ln A in [-2, 3], slope in [-3, 0], 2,000
           simulations. "Excess" is the mean of ln p - ln q over 400 maps from the prior, in nats a map: what the flow
           loses of the exact density. "Ratios": q's error in ln p(x|a) - ln p(x|b), rms over pairs of parameters
           that are drawn from the exact posterior and lie in its 95% region, for each of 60 maps. C2ST and widths
           of the posterior on a grid as in known_answer.py, on its ten observations; and of emcee's chain, as a run
           makes it, on one of them.
lognormal  x = exp(g - s²/2) - 1 of such a field g with its noise: a flow of one spline and one convolution has the
           right form. Its ln |dz/dx| against that of the exact logarithm and whitening, and its excess.
speed      Training and sampling of maps of 64², against the same flow with zuko's MonotonicRQSTransform on every cell;
           memory is what a batch of 320 takes over one of 64. Seconds of the processor.
precision  Round trip x -> z -> x in float32, against the condition number of T: its largest value over its smallest.
21cm       Maps from 21cmFAST: see field_21cm.py. An hour and more.

Banks and flows stay in DIR, so that a rerun only measures again.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from field_21cm import maps_21cm
from known_answer import CASES, SAMPLES, SIGMA, compare, observe
from numpy.typing import NDArray
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from eorinfer import Observation, Run
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.isotropic import BOUND, IsotropicFlow, PixelSpline
from eorinfer.imageflow.isotropic_convolution import IsotropicConvolution
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood.exact import ModePower, grid_posterior, log_likelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.run.config import check_config
from eorinfer.run.image_flow import image_flow_posterior
from eorinfer.settings.inference import McmcSettings
from simulators import GaussianField
from simulators.gaussian import wavenumbers

PARTS = ("gaussian", "lognormal", "speed", "precision", "21cm")
MAPS, RATIO_MAPS, DRAWS = 400, 60, 400


class NoisyLognormal(GaussianField):
    """exp(g - s^2 / 2) - 1 of a Gaussian field g with white noise of 0.3, so that each mode has power."""

    kind: str = "field_flow:NoisyLognormal"

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """One map (1, *cells)."""
        noise = SIGMA * np.random.default_rng([seed, 1]).standard_normal((self.cells,) * self.dimension)
        g = self.gaussian(theta, seed) + noise
        return {"field": np.expm1(g - self.variance(theta) / 2).astype(np.float32)[None]}


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of banks and flows")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the Gaussian and lognormal parts")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(peak(arguments.memory[0], int(arguments.memory[1])))
        return
    for part in arguments.parts:
        run = {"gaussian": gaussian, "lognormal": lognormal, "speed": speed, "precision": precision, "21cm": maps_21cm}
        run[part](arguments)


# -- the known answer ------------------------------------------------------------------------------


def gaussian(arguments: argparse.Namespace) -> None:
    """Excess, ratios and posteriors."""
    print(
        "\ngaussian: excess nats a map; ratios, rms nats of a map: median, 90th percentile, all together; C2ST, widths"
    )
    for seed in arguments.seeds:
        content = CASES["2d-32-2000"].config("default", seed, arguments.out, "2d-32-2000")
        run, flow, seconds = trained(content, arguments.out / f"gaussian-{seed}")
        simulator, prior = run.config.simulator, run.config.prior
        assert isinstance(simulator, GaussianField)
        excess, ratios = [], []
        rng = np.random.default_rng([79, seed])
        for i in range(MAPS):
            theta = prior.sample(1, rng)[0]
            clean = simulator.simulate(theta, int(rng.integers(2**32)))["field"]
            field = clean[0] + SIGMA * rng.standard_normal(clean.shape[1:])
            observation = Observation.of(run.config.observable, field[None])
            exact = log_density(simulator, observation.values[0].astype(np.float64), theta)
            excess.append(exact - flow.log_prob(observation, theta[None])[0])
            if i < RATIO_MAPS:
                ratios.append(ratio_error(flow, simulator, prior, observation, i))
        scores = []
        for i in range(CASES["2d-32-2000"].observations):
            theta, field, one = observe(simulator, prior, i)
            observation = Observation.of(run.config.observable, field[None].astype(np.float32), theta)
            samples = grid_samples(flow.likelihood(observation), prior, 10 * SAMPLES, one, "field flow", 60)
            scores.append(compare(samples, grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one)))
            if i == 0:
                chain = image_flow_posterior(
                    flow,
                    observation,
                    McmcSettings(steps=1000),
                    SAMPLES,
                    arguments.out / f"gaussian-{seed}" / "chains",
                    one,
                    run.progress,
                )
                sample_by_mcmc = compare(chain, grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one))["c2st"]
        c2st = np.array([score["c2st"] for score in scores])
        width = np.median([score["width"] for score in scores], axis=0)
        std = np.median([score["std"] for score in scores], axis=0)
        print(
            f"seed {seed}: excess {np.mean(excess):.3f} +- {np.std(excess) / MAPS**0.5:.3f}; ratios "
            f"{np.median(ratios):.3f}, {np.quantile(ratios, 0.9):.3f}, {np.sqrt(np.mean(np.square(ratios))):.3f}; "
            f"C2ST {np.median(c2st):.3f} (worst {c2st.max():.3f}); width {width.round(2)}, std {std.round(2)}; "
            f"emcee C2ST {sample_by_mcmc:.3f}; training {seconds:.0f} s",
            flush=True,
        )


def ratio_error(flow: ImageFlow, simulator: GaussianField, prior: Any, observation: Observation, seed: int) -> float:
    """Rms error of ln p(x|a) - ln p(x|b) over pairs a, b of the exact 95% region."""
    field = observation.values[0].astype(np.float64)
    theta = grid_posterior(simulator, SIGMA, field, prior, DRAWS, seed, 100).values
    exact = log_likelihood(simulator, SIGMA, ModePower.of(field, simulator.box_length), theta)
    inside = exact > np.quantile(exact, 0.05)
    return float(np.sqrt(2) * (flow.log_prob(observation, theta[inside]) - exact[inside]).std())


def log_density(simulator: GaussianField, field: NDArray[np.float64], theta: NDArray[np.float64]) -> float:
    """Exact ln p of a field (*cells) with its noise, constants and the zero mode included."""
    variance, count = mode_variance(simulator, field.shape, theta)
    power = np.abs(np.fft.rfftn(field)) ** 2 / field.size
    return float(-0.5 * (count * (np.log(2 * np.pi * variance) + power / variance)).sum())


def mode_variance(
    simulator: GaussianField, shape: tuple[int, ...], theta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each mode of a real FFT: signal and noise in units in which white noise has its cells' variance, and count."""
    k = wavenumbers(shape, simulator.box_length)
    count = np.full(k.shape, 2.0)
    count[..., 0] = 1.0
    if shape[-1] % 2 == 0:
        count[..., -1] = 1.0
    share = math.prod(shape) / simulator.box_length**simulator.dimension
    return simulator.power(theta, k.ravel()).reshape(k.shape) * share + SIGMA**2, count


def lognormal(arguments: argparse.Namespace) -> None:
    """Log-determinants of single maps, and the excess."""
    print("\nlognormal: ln|dz/dx| against the exact one, 400 maps; excess nats a map")
    for seed in arguments.seeds:
        content: dict[str, Any] = {
            "seed": seed,
            "simulator": {"kind": NoisyLognormal.model_fields["kind"].default, "cells": 32, "box_length": 32.0},
            "prior": {"log_amplitude": [-3.0, -0.5], "slope": [-2.0, -1.0]},
            "observation": {"theta": {"log_amplitude": -1.0, "slope": -1.5}},
            "inference": {"rounds": [2000], "predictive": 0},
            "field": {"convolutions": 1, "knots": 16, "dequantisation": 0.0, "steps": 3000},
        }
        run, flow, seconds = trained(content, arguments.out / f"lognormal-{seed}")
        simulator = run.config.simulator
        assert isinstance(simulator, GaussianField)
        rng, rows = np.random.default_rng([80, seed]), []
        for _ in range(MAPS):
            theta = run.config.prior.sample(1, rng)[0]
            x = simulator.simulate(theta, int(rng.integers(2**32)))["field"]
            with torch.no_grad():
                z, log_det = flow.network(torch.from_numpy(x[None]), torch.tensor(theta[None]))
            log_q = float(log_det) - 0.5 * float(z.double().square().sum()) - 0.5 * x.size * math.log(2 * math.pi)
            log_x = np.log1p(x[0].astype(np.float64))
            exact = log_density(simulator, log_x + simulator.variance(theta) / 2, theta) - log_x.sum()
            variance, count = mode_variance(simulator, log_x.shape, theta)
            whitening = -log_x.sum() - 0.5 * (count * np.log(variance)).sum()
            rows.append((whitening, float(log_det), exact - log_q))
        expected, found, excess = np.array(rows).T
        print(
            f"seed {seed}: correlation {np.corrcoef(expected, found)[0, 1]:.6f}, scatter between maps "
            f"{expected.std():.0f}, rms error {np.sqrt(np.mean((found - expected) ** 2)):.2f} nats "
            f"({np.sqrt(np.mean((found - expected) ** 2)) / 1024:.5f} a cell); excess {excess.mean():.2f} +- "
            f"{excess.std() / MAPS**0.5:.2f}; training {seconds:.0f} s",
            flush=True,
        )


def trained(content: dict[str, Any], out: Path) -> tuple[Run, ImageFlow, float]:
    """A run with its flow, and the seconds that training took."""
    run = Run(check_config(Path(__file__), content), out, for_terminal())
    run.simulate()
    flow = run.field()
    return run, flow, flow.facts["seconds"]


# -- speed, memory and precision -------------------------------------------------------------------


class ZukoSpline(PixelSpline):
    """The same layer by zuko: its knots are broadcast to every cell."""

    def __init__(self, channels: int, knots: int, condition: int, hidden: tuple[int, ...]) -> None:
        super().__init__(channels, knots, condition, hidden)
        self.knots = knots

    def _transform(self, x: Tensor, u: Tensor) -> MonotonicRQSTransform:
        k = self.knots - 1
        raw = self.conditioner(u)[:, : (3 * k - 1) * self.channels]
        shape = (len(x), self.channels, *(1,) * (x.ndim - 2), -1)
        return MonotonicRQSTransform(*(p.reshape(shape) for p in raw.split([k, k, k - 1], dim=1)), bound=BOUND)

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, 1, *cells) to maps, and the log-determinant (B,)."""
        z, log_slope = self._transform(x, u).call_and_ladj(x)
        return z, log_slope.flatten(1).sum(-1, dtype=torch.float64)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward`."""
        inverted: Tensor = self._transform(z, u).inv(z)
        return inverted


def flow_of(kind: str) -> IsotropicFlow:
    """Default settings on maps of 64²; with zuko's spline in place of ours."""
    torch.manual_seed(0)
    flow = IsotropicFlow((1, 64, 64), (1.0, 1.0), torch.zeros(2), torch.ones(2))
    if kind == "zuko":
        for i, layer in enumerate(flow.layers):
            if isinstance(layer, PixelSpline):
                flow.layers[i] = ZukoSpline(1, 8, 2, (64, 64))
    for p in flow.parameters():
        nn.init.normal_(p, std=0.05)
    return flow


def step(flow: IsotropicFlow, n: int) -> Callable[[], None]:
    """One training step on n maps."""
    x, y = torch.randn(n, 1, 64, 64), torch.rand(n, 2)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        (-flow.log_prob(x, y).mean() / 4096).backward()
        optimizer.step()

    return run


def speed(arguments: argparse.Namespace) -> None:
    """Maps a second, and memory a map."""
    print("\nspeed: maps of 64² a second of the processor, batches of 64; memory a map")
    rows = {}
    for kind in ("ours", "zuko"):
        flow = flow_of(kind)
        y, generator = torch.rand(64, 2), torch.Generator().manual_seed(1)
        with torch.no_grad():
            sampling = 64 / quickest(lambda: flow.sample(y, generator))  # noqa: B023
            density = 64 / quickest(lambda: flow.log_prob(torch.randn(64, 1, 64, 64), y))  # noqa: B023
        training = 64 / quickest(step(flow, 64))
        command = [sys.executable, __file__, "--out", str(arguments.out), "--memory", kind]
        one, many = (int(subprocess.check_output([*command, str(n)])) for n in (64, 320))
        rows[kind] = np.array([training, density, sampling, (many - one) / 256 / 1e3])
        print(
            f"{kind:5s} training {training:.0f}, ln p {density:.0f}, sampling {sampling:.0f} maps a second; "
            f"{rows[kind][3]:.2f} MB a map",
            flush=True,
        )
    training, density, sampling, memory = rows["ours"] / rows["zuko"]
    print(f"over zuko's: training {training:.1f}, ln p {density:.1f}, sampling {sampling:.1f}, memory {memory:.2f}")


def quickest(call: Callable[[], object], repeats: int = 12) -> float:
    """Fewest seconds of the processor: other work on the machine only adds."""
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def peak(kind: str, n: int) -> int:
    """Kilobytes that a process holds at most, above what it held before, in which batches of n are trained on."""
    step(flow_of(kind), 1)()
    run = step(flow_of(kind), n)
    Path("/proc/self/clear_refs").write_text("5")  # what it held before, when all was imported, does not count
    before = _held("VmRSS")
    run()
    return _held("VmHWM") - before


def _held(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@torch.no_grad()
def precision(arguments: argparse.Namespace) -> None:
    """Errors of the round trip."""
    print("\nprecision: condition number of T, rms and largest error of x -> z -> x over the rms of x")
    white = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.full((8, 2), 0.5)
    for decades in (0, 1, 2, 3, 4):
        flow = flow_of("ours")
        for layer in flow.layers:
            if isinstance(layer, IsotropicConvolution):
                # Straight in log k, half of the decades in each of the two.
                bias = layer.conditioner.linear.bias
                bias[1:] += torch.linspace(0, decades / 2 * math.log(10), len(bias) - 1)
        x = flow.double().inverse(white, y)
        exact = flow.log_prob(x, y)
        texts = []
        for dtype in (torch.float32, torch.float64):
            flow.to(dtype)
            error = (flow.inverse(flow(x.to(dtype), y)[0], y) - x).double() / x.std()
            texts.append(f"{error.square().mean().sqrt():.1e}, {error.abs().max():.1e}")
        off = (flow.float().log_prob(x.float(), y) - exact).abs().max()
        print(f"10^{decades}: float32 {texts[0]}; float64 {texts[1]}; ln p in float32 off by {off:.1e} nats at most")


if __name__ == "__main__":
    main()
