"""Do later rounds pay, and what do they leave out? One round against three, where the exact posterior is known.

A 2D Gaussian field of 32 cells with white noise 0.3, as in known_answer.py. Each observation is inferred with all
simulations in one round, with truncated proposals, and with NPE-C's atomic loss, in rounds of one half and two
quarters. With ``--branch power`` the networks read 16 bins of P(k) alone, which hold all but 0.006 nats of such a
field, and train in a tenth of the time.

    python -m benchmarks.sequential --out DIR [--simulations 600] [--observations 10] [--branch power] [--table]

Each inference that is done is kept in DIR, so that a rerun continues. Measured against samples of the exact posterior:
C2ST, the bias of each mean in exact standard deviations, widths, and the share of it that the truncation cuts off.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.known_answer import BRANCHES, CASES, SAMPLES, SIGMA, compare, observe
from benchmarks.record import record
from eorinfer import Observation, Run
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.likelihood.exact import grid_posterior
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import check_config
from simulators import GaussianField

METHODS = ("one round", "truncated", "posterior")
CASE = "2d-32-1000"


def main() -> None:
    """Fill the folder with results, print the table, and record it once all are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", type=int, default=2)
    parser.add_argument("--branch", choices=BRANCHES, default="default")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="compute nothing, print what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    branch = arguments.branch
    name = f"{branch}-{arguments.networks}"
    results = arguments.out / f"results-{name}-{arguments.simulations}-{arguments.seed}"
    results.mkdir(parents=True, exist_ok=True)
    for i in range(arguments.observations):
        for method in arguments.methods:
            path = results / f"{method}.{i}.json"
            if not path.exists() and not arguments.table:
                start = time.perf_counter()
                content = CASES[CASE].config(branch, arguments.seed, arguments.out / name, "prior")
                content["training"] = {"ensemble": arguments.networks}
                score = measure(method, i, arguments.simulations, content, arguments.out / name)
                write_json(path, score | {"seconds": time.perf_counter() - start})
    table = tabulate(results)
    for row in table:
        print(row)
    if not arguments.table:
        seconds = sum(read_json(path)["seconds"] for path in results.glob("*.json"))
        facts = {
            name: getattr(arguments, name) for name in ("simulations", "observations", "branch", "networks", "seed")
        }
        record("sequential", facts | {"methods": table}, seconds=seconds)


def measure(method: str, i: int, simulations: int, content: dict[str, Any], out: Path) -> dict[str, Any]:
    """Infer one observation with a config of this content, and compare with the exact posterior."""
    first, seed = simulations // 2, content["seed"]
    rounds = [simulations] if method == "one round" else [first, first // 2, simulations - first - first // 2]
    content["inference"]["rounds"] = rounds
    content["inference"]["proposal"] = "posterior" if method == "posterior" else "truncated"
    simulator, prior = (checked := check_config(Path("sequential.toml"), content)).simulator, checked.prior
    assert isinstance(simulator, GaussianField)
    theta, field, one = observe(simulator, prior, i)
    # A file, so that every method sees the same cube.
    observed = out / f"observation-{i}.h5"
    observed.parent.mkdir(parents=True, exist_ok=True)
    Observation.from_observable(checked.observable, field[None].astype(np.float32)).write(observed)
    content["observation"] = {"file": str(observed.resolve())}
    folder = out / f"{method.replace(' ', '-')}-{simulations}-{i}-{seed}"
    # The first posterior depends on no observation: those of one seed share it.
    kept = out / f"first-{len(rounds)}-{simulations}-{seed}"
    if kept.exists() and not (folder / "rounds").exists():
        shutil.copytree(kept, folder / "rounds" / "01")
    run = Run(check_config(Path("sequential.toml"), content), folder, for_terminal())
    samples = run.infer()
    if not kept.exists():
        shutil.copytree(folder / "rounds" / "01", kept)
    last = read_json(folder / "rounds" / f"{len(rounds):02d}" / "round.json")
    exact = grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one)
    score = compare(samples, exact) | {"bias": ((samples.mean - exact.mean) / exact.std).tolist()}
    posterior = Posterior.load(run.out / "posterior")
    score["left_out"] = float(1 - posterior.contains(exact.values).mean())
    score |= {"theta": theta.tolist(), "rounds": rounds, "volume": last["volume"]}
    print(method, i, {k: np.round(v, 3).tolist() for k, v in score.items()}, flush=True)
    return score


def tabulate(results: Path) -> list[dict[str, Any]]:
    """Medians over the observations, and the C2ST of each."""
    rows = []
    for method in METHODS:
        scores = [read_json(path) for path in sorted(results.glob(f"{method}.*.json"))]
        if not scores:
            continue
        bias = np.array([score["bias"] for score in scores])
        rows.append(
            {
                "method": method,
                "observations": len(scores),
                "c2st_median": round(float(np.median([s["c2st"] for s in scores])), 3),
                "c2st_each": [round(s["c2st"], 3) for s in scores],
                "bias_rms_sigma": np.sqrt((bias**2).mean(0)).round(2).tolist(),
                "bias_worst_sigma": round(float(np.abs(bias).max()), 2),
                "width_median": np.median([s["width"] for s in scores], axis=0).round(2).tolist(),
                "std_median": np.median([s["std"] for s in scores], axis=0).round(2).tolist(),
                "volume_median": round(float(np.median([s["volume"] for s in scores])), 4),
                "exact_mass_left_out": [round(s["left_out"], 4) for s in scores],
            }
        )
    return rows


if __name__ == "__main__":
    main()
