"""How far are the posteriors from the exact one, where that is known?

Periodic fields of unit cells (pivot 0.785) in white noise of sigma 0.3. Gaussian fields: ln A in [-2, 3], slope
in [-3, 0], truths from the prior, which is flat, or normal or log-uniform in the cases of these names; posteriors are
held against samples of the exact one. Lognormal fields: ln A in
[-4, 1], truths with a variance of the log-density between 0.3 and 1; there is no exact answer, and the image
posterior is held against NPE on the power spectrum.

    python -m benchmarks.known_answer --out DIR                      everything: hours
    python -m benchmarks.known_answer --out DIR 2d-32-1000 --branches default --seeds 1
    python -m benchmarks.known_answer --out DIR --table              only the tables, of what is there
    python -m benchmarks.known_answer --out DIR --table --record     the same, kept in benchmarks/results

Each network ensemble that is done is kept in DIR, so that a rerun continues, and several
processes may share the work by naming different cases, branches or seeds.

C2ST is sbi's (random forest, 2,000 samples each side; 0.5: not to be told apart; its own scatter is about
0.01). The width is that of the central 68%, and std the standard deviation, each over the exact one.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.utils.metrics import c2st

from benchmarks.record import record
from eorinfer import Observation, Prior, Run, Samples
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.likelihood.emulator import Emulator
from eorinfer.likelihood.exact import ModePower, grid_posterior, log_likelihood
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import check_config
from eorinfer.summaries.power import build_power_spectrum
from eorinfer.validation.calibration import calibrate
from simulators import GaussianField

SIGMA = 0.3
SAMPLES = 2000
#: Truths of a lognormal field's calibration, from the prior.
TRUTHS = 300


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    dimension: int
    cells: int
    simulations: int
    kind: str = "gaussian-field"
    prior: dict[str, Any] | None = None

    @property
    def observations(self) -> int:
        """Number of posteriors to compare."""
        return 10 if self.kind == "gaussian-field" else 50

    def config(self, branch: str, seed: int, out: Path, name: str) -> dict[str, Any]:
        """Content of a config: default networks, one round."""
        low = -2.0 if self.kind == "gaussian-field" else -4.0
        return {
            "seed": seed,
            "simulator": {"kind": self.kind, "dimension": self.dimension, "cells": self.cells, "pivot": 0.785}
            | {"box_length": float(self.cells)},
            "prior": self.prior or {"log_amplitude": [low, low + 5.0], "slope": [-3.0, 0.0]},
            "survey": {"kind": "white-noise", "sigma": SIGMA},
            "observation": {"theta": {"log_amplitude": 0.5 if self.prior else 0.0, "slope": -1.5}},
            "embedding": BRANCHES[branch],
            "training": {"emulate": "always" if branch.endswith("emulated") else "never"},
            "bank": {"path": str((out / "banks" / f"{name}-{seed}").resolve())},
            "inference": {"rounds": [self.simulations], "predictive": 0},
        }


#: Priors that are not flat.
NORMAL = {"log_amplitude": {"normal": [0.5, 0.7]}, "slope": {"normal": [-1.5, 0.4], "range": [-3.0, 0.0]}}
LOG_UNIFORM = {"log_amplitude": {"log_uniform": [0.1, 3.0]}, "slope": [-3.0, 0.0]}
CASES = {
    "2d-32-500": Case(2, 32, 500),
    "2d-32-1000": Case(2, 32, 1000),
    "2d-32-2000": Case(2, 32, 2000),
    "2d-64-2000": Case(2, 64, 2000),
    "3d-16-2000": Case(3, 16, 2000),
    "2d-32-normal": Case(2, 32, 2000, prior=NORMAL),
    "2d-32-log": Case(2, 32, 2000, prior=LOG_UNIFORM),
    "lognormal-32-4000": Case(2, 32, 4000, "lognormal-field"),
}
#: Keys of ``[embedding]`` that differ from the defaults.
BRANCHES: dict[str, dict[str, bool]] = {
    "default": {},
    "cnn": {"power_spectrum": False},
    "power": {"convolution": False},
    "emulated": {},
    "power-emulated": {"convolution": False},
}
#: Beside the networks: the Gaussian power-spectrum likelihood of the same simulations.
BASELINE = "ps-likelihood"


def main() -> None:
    """Fill the folder with results, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"by default all: {', '.join(CASES)}")
    parser.add_argument("--branches", nargs="+", choices=[*BRANCHES, BASELINE], default=["default", "cnn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="folder of banks, runs and results")
    parser.add_argument("--table", action="store_true", help="compute nothing, print what is there")
    parser.add_argument("--record", action="store_true", help="write the medians to benchmarks/results")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    torch.set_num_threads(1)
    if not arguments.table:
        for seed in arguments.seeds:
            for name in arguments.cases or CASES:
                for branch in arguments.branches:
                    path = arguments.out / "results" / f"{name}.{branch}.{seed}.json"
                    if not path.exists():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_json(path, measure(name, branch, seed, arguments.out))
    medians = print_tables(arguments.out / "results")
    if arguments.record:
        record("known_answer", medians, seconds=sum(row["cpu_seconds"] for row in medians.values()))


def measure(name: str, branch: str, seed: int, out: Path) -> dict[str, Any]:
    """Train once, then go through the observations."""
    case = CASES[name]
    content = case.config("default" if branch == BASELINE else branch, seed, out, name)
    config = check_config(Path("known_answer.toml"), content)
    run = Run(config, out / "runs" / f"{name}-{branch}-{seed}", for_terminal())
    run.simulate()
    start = time.process_time()
    if branch == BASELINE:
        run.mcmc()
        posterior = None
    else:
        run.infer()
        posterior = Posterior.load(run.out / "posterior")
    result: dict[str, Any] = {"cpu_seconds": time.process_time() - start, "observations": []}
    simulator, prior = config.simulator, config.prior
    assert isinstance(simulator, GaussianField)
    if posterior is None:
        likelihood = PowerSpectrumLikelihood(
            Emulator.load(run.out / "emulator"),
            build_power_spectrum(config.observable, config.tables.power_spectrum),
        )
    for i in range(case.observations):
        theta, field, one = observe(simulator, prior, i)
        observation = Observation.from_observable(config.observable, field[None].astype(np.float32), theta)
        if posterior is None:
            samples = grid_samples(likelihood.for_observation(observation), prior, 10 * SAMPLES, one, branch, 150)
        else:
            samples = posterior.draw(observation, 10 * SAMPLES, one)
        score: dict[str, Any] = {
            "theta": theta.tolist(),
            "area": float(np.sqrt(np.linalg.det(np.cov(samples.values.T)))),
        }
        if posterior is not None:
            score["log_density"] = float(posterior.log_density(theta[None], observation)[0])
        if case.kind == "gaussian-field":
            score |= compare(samples, grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one))
        result["observations"].append(score)
        print(name, branch, seed, i, {k: np.round(v, 3).tolist() for k, v in score.items()}, flush=True)
    if posterior is not None:
        result["calibration"] = check_calibration(simulator, posterior, seed)
    return result


def observe(simulator: GaussianField, prior: Any, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Truth (2,), observed field (*cells) and a seed: the same for all branches and seeds."""
    rng = np.random.default_rng([77, i])
    theta = prior.sample(1, rng)[0]
    while simulator.kind == "lognormal-field" and not 0.3 < simulator.variance(theta) < 1.0:
        theta = prior.sample(1, rng)[0]
    seed = int(rng.integers(2**32))
    clean = simulator.simulate(theta, seed)["field"][0]
    return theta, clean + SIGMA * rng.standard_normal(clean.shape), seed


def compare(samples: Samples, exact: Samples) -> dict[str, Any]:
    """C2ST, and for each parameter width and standard deviation over the exact ones."""
    # Without replacement: a classifier recognises doublets.
    rows = np.random.default_rng(1).permutation(len(samples))[:SAMPLES]
    a = torch.from_numpy(samples.values[rows]).float()
    b = torch.from_numpy(exact.values).float()
    low, high = samples.interval(0.68)
    exact_low, exact_high = exact.interval(0.68)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = float(c2st(a, b))
    width = (high - low) / (exact_high - exact_low)
    return {"c2st": score, "width": width.tolist(), "std": (samples.std / exact.std).tolist()}


def check_calibration(simulator: GaussianField, posterior: Posterior, seed: int) -> dict[str, Any]:
    """The smallest corrected p-value of `TRUTHS` truths from the prior; of a flat one and Gaussian fields also nats."""
    rng = np.random.default_rng([78, seed])
    theta = posterior.prior.sample(TRUTHS, rng)
    cubes = np.stack([simulator.simulate(t, int(rng.integers(2**32)))["field"] for t in theta])
    observed = torch.from_numpy(cubes + SIGMA * rng.standard_normal(cubes.shape).astype(np.float32))
    read = posterior.read(observed)
    draws = draw(posterior, read, 1000, seed).values
    at = log_density(posterior.networks, theta[:, None], read)[:, 0]
    of_draws = log_density(posterior.networks, draws, read)
    unit = posterior.prior.unit
    found = calibrate(posterior.prior.names, unit(theta), unit(draws), at, of_draws, seed)
    inside = (of_draws > at[:, None]).mean(1)
    result = {"p": found.worst.p_holm, "worst": found.worst.quantity, "truths": TRUTHS}
    result["inside_50_68_95"] = [float((inside <= level).mean()) for level in (0.5, 0.68, 0.95)]
    if simulator.kind == "gaussian-field" and posterior.prior.flat:
        exact = [
            exact_log_density(simulator, posterior.prior, x[0], t) for x, t in zip(observed.numpy(), theta, strict=True)
        ]
        below = np.array(exact) - at
        result |= {"nats_below_exact": float(below.mean()), "error": float(below.std(ddof=1) / len(below) ** 0.5)}
    return result


def exact_log_density(
    simulator: GaussianField, prior: Prior, field: NDArray[np.float32], theta: NDArray[np.float64], points: int = 120
) -> float:
    """Log of the exact posterior density at theta (2,) under a flat prior, by two grids, the second around the mass."""
    modes = ModePower.from_field(field.astype(np.float64), simulator.box_length)
    low, high = prior.low, prior.high
    for _ in range(2):
        step = (high - low) / points
        axes = [a + s * (np.arange(points) + 0.5) for a, s in zip(low, step, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        log_l = log_likelihood(simulator, SIGMA, modes, grid)
        near = grid[log_l > log_l.max() - 20]
        log_z = np.log(np.exp(log_l - log_l.max()).sum()) + log_l.max() + np.log(step).sum()
        low, high = np.maximum(low, near.min(0) - 2 * step), np.minimum(high, near.max(0) + 2 * step)
    return float(log_likelihood(simulator, SIGMA, modes, theta[None])[0] - log_z)


def print_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Print and return medians over observations and seeds of everything that is there."""
    medians: dict[str, dict[str, Any]] = {}
    print("\nmedian (90th percentile, worst) over observations and seeds; width and std: ln A, slope")
    print(f"{'case':18s} {'branch':14s} {'n':>3s}  {'C2ST':22s} {'width':12s} {'std':12s} {'std, 90th pct':14s} CPU s")
    for name, case in CASES.items():
        for branch in (*BRANCHES, BASELINE):
            results = _results(folder, name, branch)
            scores = [score for result in results for score in result["observations"] if "c2st" in score]
            if not scores:
                continue
            c = np.array([s["c2st"] for s in scores])
            width, std = np.array([s["width"] for s in scores]), np.array([s["std"] for s in scores])
            tell = f"{np.median(c):.3f} ({np.quantile(c, 0.9):.3f}, {c.max():.3f})"
            seconds = np.median([r["cpu_seconds"] for r in results])
            judged = [r["calibration"] for r in results if "calibration" in r]
            medians[f"{name}, {branch}"] = {
                **{
                    key: [round(one[key], 4) for one in judged]
                    for key in ("nats_below_exact", "error", "p")
                    if judged and key in judged[0]
                },
                "inside_50_68_95": [one["inside_50_68_95"] for one in judged],
                "seeds": len(results),
                "observations": len(scores),
                "c2st": round(float(np.median(c)), 3),
                "c2st_worst": round(float(c.max()), 3),
                "width_over_exact": np.median(width, 0).round(3).tolist(),
                "std_over_exact": np.median(std, 0).round(3).tolist(),
                "cpu_seconds": round(float(seconds)),
            }
            print(
                f"{name:18s} {branch:14s} {len(scores):3d}  {tell:22s} {_pair(np.median(width, 0))}   "
                f"{_pair(np.median(std, 0))}   {_pair(np.quantile(std, 0.9, axis=0))}     {seconds:.0f}"
            )
        if case.kind != "gaussian-field":
            _print_against_power(folder, name)
    return medians


def _print_against_power(folder: Path, name: str) -> None:
    """Area and log density of each branch against NPE on the power spectrum, seed by seed."""
    for branch in ("default", "cnn"):
        for path in sorted(folder.glob(f"{name}.{branch}.*.json")):
            other = path.with_name(path.name.replace(f".{branch}.", ".power."))
            if not other.exists():
                continue
            ours, power = read_json(path), read_json(other)
            pairs = list(zip(ours["observations"], power["observations"], strict=True))
            area = np.array([a["area"] / b["area"] for a, b in pairs])
            gain = np.array([a["log_density"] - b["log_density"] for a, b in pairs])
            again = np.random.default_rng(1).choice(gain, (2000, len(gain))).mean(1)
            print(
                f"{name} {branch} seed {path.name.split('.')[-2]}: area smaller than on the power spectrum in "
                f"{(area < 1).mean():.0%} of {len(area)}, median ratio {np.median(area):.2f}; "
                f"gain in log density at the truth {gain.mean():.2f} +- {again.std():.2f}; "
                f"calibration p {ours['calibration']['p']:.3f}, on the power spectrum {power['calibration']['p']:.3f}"
            )


def _results(folder: Path, name: str, branch: str) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob(f"{name}.{branch}.*.json"))]


def _pair(values: NDArray[np.float64]) -> str:
    return f"{values[0]:.2f}, {values[1]:.2f}"


if __name__ == "__main__":
    main()
