"""How good is the image flow where the answer is known?

    python -m benchmarks.imageflow.known_answer --out DIR                        about an hour on one core
    python -m benchmarks.imageflow.known_answer --out DIR --parts gaussian --seeds 1

gaussian   The field of benchmarks/known_answer.py: 32² unit cells in white noise 0.3, ln A in [-2, 3], slope in
           [-3, 0], 2,000 simulations. "Excess" is the mean of ln p - ln q over 400 maps from the prior, in nats a
           map: what the flow loses of the exact density. "Ratios": q's error in ln p(x|a) - ln p(x|b), rms over pairs
           of parameters that are drawn from the exact posterior and lie in its 95% region, for each of 60 maps. C2ST
           and widths of the posterior on a grid as there, on its ten observations; and of emcee's chain, as a run
           makes it, on one of them.
lognormal  x = exp(g - s²/2) - 1 of such a field g with its noise: a flow of one spline and one convolution has the
           right form. Its ln |dz/dx| against that of the exact logarithm and whitening, and its excess.

Banks and flows stay in DIR, so that a rerun only measures again.
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.known_answer import CASES, SAMPLES, SIGMA, compare, observe
from eorinfer import Observation, Run
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood.exact import ModePower, grid_posterior, log_likelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.run.config import check_config
from eorinfer.run.image_flow import image_flow_posterior
from eorinfer.settings.likelihood import McmcSettings
from simulators import GaussianField
from simulators.fourier import wavenumbers

PARTS = ("gaussian", "lognormal")
MAPS, RATIO_MAPS, DRAWS = 400, 60, 400


def main() -> None:
    """Print the parts that the command names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of banks and flows")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the Gaussian and lognormal parts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts:
        {"gaussian": gaussian, "lognormal": lognormal}[part](arguments)


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
            observation = Observation.from_observable(run.config.observable, field[None])
            exact = log_density(simulator, observation.values[0].astype(np.float64), theta)
            excess.append(exact - flow.log_prob(observation, theta[None])[0])
            if i < RATIO_MAPS:
                ratios.append(ratio_error(flow, simulator, prior, observation, i))
        scores = []
        for i in range(CASES["2d-32-2000"].observations):
            theta, field, one = observe(simulator, prior, i)
            observation = Observation.from_observable(run.config.observable, field[None].astype(np.float32), theta)
            samples = grid_samples(flow.likelihood(observation), prior, 10 * SAMPLES, one, "image flow", 60)
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
                emcee_c2st = compare(chain, grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one))["c2st"]
        c2st = np.array([score["c2st"] for score in scores])
        width = np.median([score["width"] for score in scores], axis=0)
        std = np.median([score["std"] for score in scores], axis=0)
        print(
            f"seed {seed}: excess {np.mean(excess):.3f} +- {np.std(excess) / MAPS**0.5:.3f}; ratios "
            f"{np.median(ratios):.3f}, {np.quantile(ratios, 0.9):.3f}, {np.sqrt(np.mean(np.square(ratios))):.3f}; "
            f"C2ST {np.median(c2st):.3f} (worst {c2st.max():.3f}); width {width.round(2)}, std {std.round(2)}; "
            f"emcee C2ST {emcee_c2st:.3f}; training {seconds:.0f} s",
            flush=True,
        )


def ratio_error(flow: ImageFlow, simulator: GaussianField, prior: Any, observation: Observation, seed: int) -> float:
    """Rms error of ln p(x|a) - ln p(x|b) over pairs a, b of the exact 95% region."""
    field = observation.values[0].astype(np.float64)
    theta = grid_posterior(simulator, SIGMA, field, prior, DRAWS, seed, 100).values
    exact = log_likelihood(simulator, SIGMA, ModePower.from_field(field, simulator.box_length), theta)
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
    """Variance of signal and noise in each mode of a real FFT (white noise: that of its cells), and count."""
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
            "simulator": {"kind": "noisy_lognormal:NoisyLognormal", "cells": 32, "box_length": 32.0, "noise": SIGMA},
            "prior": {"log_amplitude": [-3.0, -0.5], "slope": [-2.0, -1.0]},
            "observation": {"theta": {"log_amplitude": -1.0, "slope": -1.5}},
            "inference": {"rounds": [2000], "predictive": 0},
            "image_flow": {"convolutions": 1, "knots": 16, "dequantisation": 0.0, "steps": 3000},
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
    flow = run.image_flow()
    return run, flow, flow.facts["seconds"]


if __name__ == "__main__":
    main()
