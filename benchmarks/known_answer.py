"""How far are the posteriors from the exact one, where that is known?

A Gaussian field (2D, unit cells, pivot 0.785) in white noise of sigma 0.3; ln A in
[-2, 3], slope in [-3, 0]; truths from the prior. For each observation three
posteriors are held against samples from the exact grid posterior: NPE on images, emcee on the
exact likelihood of the Fourier modes, and emcee on the Gaussian power-spectrum likelihood
emulated from the same simulations.

    python benchmarks/known_answer.py [--simulations 2000] [--observations 3] [--cells 32]

C2ST is sbi's (random forest; 0.5: not to be told apart; its own scatter is about 0.01). The width is that
of the central 68%, and std the standard deviation, each over the exact one.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.utils.metrics import c2st

from eorinfer import Config, Observation, Run, Samples
from eorinfer.config import check_config
from eorinfer.inference.baseline import PowerSpectrumLikelihood
from eorinfer.inference.emulator import Emulator
from eorinfer.inference.exact import ModePower, grid_posterior, log_likelihood
from eorinfer.inference.flow import build_power_spectrum
from eorinfer.inference.mcmc import run_mcmc
from eorinfer.inference.posterior import Posterior
from eorinfer.progress import for_terminal
from simulators import GaussianField

SIGMA = 0.3
SAMPLES = 2000


def config(simulations: int, cells: int, seed: int) -> Config:
    """The benchmark's config: default networks, one round."""
    content = {
        "seed": seed,
        "simulator": {"kind": "gaussian-field", "cells": cells, "box_length": float(cells), "pivot": 0.785},
        "prior": {"log_amplitude": [-2.0, 3.0], "slope": [-3.0, 0.0]},
        "survey": {"kind": "white-noise", "sigma": SIGMA},
        "observation": {"theta": {"log_amplitude": 0.0, "slope": -1.5}},
        "inference": {"rounds": [simulations], "predictive": 0},
    }
    return check_config(Path("known_answer.toml"), content)


def compare(samples: Samples, exact: Samples) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """C2ST, and for each parameter width and standard deviation over the exact ones."""
    # Without replacement: a classifier recognises doublets.
    rows = np.random.default_rng(1).permutation(len(samples))[:SAMPLES]
    a = torch.from_numpy(samples.values[rows]).float()
    b = torch.from_numpy(exact.values).float()
    low, high = samples.interval(0.68)
    exact_low, exact_high = exact.interval(0.68)
    return float(c2st(a, b)), (high - low) / (exact_high - exact_low), samples.std / exact.std


def main() -> None:
    """Print one line for each observation and method, and medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--observations", type=int, default=3)
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="run folder to keep; by default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, arguments.out or Path(temporary))


def measure(arguments: argparse.Namespace, out: Path) -> None:
    """Train once, then go through the observations."""
    checked = config(arguments.simulations, arguments.cells, arguments.seed)
    simulator, prior = checked.simulator, checked.prior
    assert isinstance(simulator, GaussianField)
    run = Run(checked, out, for_terminal())
    start = time.monotonic()
    run.infer()
    print(f"{arguments.simulations} simulations and training: {time.monotonic() - start:.0f} s")
    run.mcmc()
    posterior = Posterior.load(out / "posterior")
    baseline = PowerSpectrumLikelihood(
        Emulator.load(out / "emulator")[0], build_power_spectrum(checked.observable, checked.tables.power_spectrum)
    )
    mcmc = checked.tables.mcmc
    rows: dict[str, list[tuple[float, NDArray[np.float64], NDArray[np.float64]]]] = {}
    print("\nobservation  ln A   slope  method                    C2ST   width ln A, slope   std ln A, slope")
    for i in range(arguments.observations):
        rng = np.random.default_rng([arguments.seed, 77, i])
        theta = prior.sample(1, rng)[0]
        seed = int(rng.integers(2**32))
        field = simulator.gaussian(theta, seed) + SIGMA * rng.standard_normal((arguments.cells,) * 2)
        observation = Observation.of(checked.observable, field[None].astype(np.float32), theta)
        exact = grid_posterior(simulator, SIGMA, field, prior, SAMPLES, seed)
        modes = ModePower.of(field, simulator.box_length)
        posteriors = {
            "NPE on the image": posterior.sample(observation, 10 * SAMPLES, seed),
            "emcee, exact likelihood": run_mcmc(
                lambda t, modes=modes: log_likelihood(simulator, SIGMA, modes, t),
                prior,
                mcmc,
                file=out / f"exact-{i}.h5",
                key=f"exact {arguments.seed} {i}",
                seed=1,
            ).samples,
            "emcee, Gaussian P(k)": run_mcmc(
                baseline.of(observation),
                prior,
                mcmc,
                file=out / f"power-{i}.h5",
                key=baseline.key(observation),
                seed=1,
            ).samples,
        }
        for name, samples in posteriors.items():
            score = compare(samples, exact)
            rows.setdefault(name, []).append(score)
            print(f"{i:11d} {theta[0]:6.2f} {theta[1]:6.2f}  {name:24s} {_columns(score)}", flush=True)
    for name, scores in rows.items():
        score = tuple(np.median([s[j] for s in scores], axis=0) for j in range(3))
        print(f"     median                {name:24s} {_columns(score)}")


def _columns(score: tuple) -> str:
    c, width, std = score
    return f"{c:6.3f}   {width[0]:6.2f} {width[1]:6.2f}       {std[0]:6.2f} {std[1]:6.2f}"


if __name__ == "__main__":
    main()
