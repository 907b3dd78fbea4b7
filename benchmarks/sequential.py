"""Do later rounds pay? One round against three at equal simulations, on the field whose exact posterior is known.

A 2D Gaussian field of 32 cells with white noise 0.3, as in known_answer.py. Each observation is inferred with all
simulations in one round, with truncated proposals, and with NPE-C's atomic loss, in rounds of one
half and two quarters; two networks each time.

    python -m benchmarks.sequential --out DIR [--simulations 600] [--observations 4] [--table]

Each inference that is done is kept in DIR, so that a rerun continues.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.known_answer import CASES, SAMPLES, SIGMA, compare, observe
from eorinfer import Observation, Run
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.likelihood.exact import grid_posterior
from eorinfer.run.config import check_config
from simulators import GaussianField

METHODS = ("one round", "truncated", "posterior")
CASE = "2d-32-1000"


def main() -> None:
    """Fill the folder with results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--observations", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="compute nothing, print what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = arguments.out / f"results-{arguments.simulations}"
    results.mkdir(parents=True, exist_ok=True)
    for i in range(arguments.observations):
        for method in METHODS:
            path = results / f"{method}.{i}.{arguments.seed}.json"
            if not path.exists() and not arguments.table:
                write_json(path, measure(method, i, arguments.simulations, arguments.seed, arguments.out))
    print_table(results)


def measure(method: str, i: int, simulations: int, seed: int, out: Path) -> dict[str, Any]:
    """Infer one observation, and compare with the exact posterior."""
    content = CASES[CASE].config("default", seed, out, "prior")
    first = simulations // 2
    rounds = [simulations] if method == "one round" else [first, first // 2, simulations - first - first // 2]
    content["inference"]["rounds"] = rounds
    content["training"] = {"ensemble": 2}
    content["inference"]["proposal"] = "posterior" if method == "posterior" else "truncated"
    simulator, prior = (checked := check_config(Path("sequential.toml"), content)).simulator, checked.prior
    assert isinstance(simulator, GaussianField)
    theta, field, one = observe(simulator, prior, i)
    # A file, so that every method sees the same cube.
    observed = out / f"observation-{i}.h5"
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
    score = compare(samples, grid_posterior(simulator, SIGMA, field, prior, SAMPLES, one))
    score |= {"theta": theta.tolist(), "rounds": rounds, "volume": last["volume"]}
    print(method, i, {k: np.round(v, 3).tolist() for k, v in score.items()}, flush=True)
    return score


def print_table(results: Path) -> None:
    """Medians, and each observation's C2ST."""
    print(f"\n{'method':12s} {'C2ST: median, each':44s} {'width':12s} {'std':12s} volume of the last round")
    for method in METHODS:
        scores = [read_json(path) for path in sorted(results.glob(f"{method}.*.json"))]
        if scores:
            c = [s["c2st"] for s in scores]
            width, std = (np.median([s[name] for s in scores], axis=0) for name in ("width", "std"))
            each = " ".join(f"{v:.3f}" for v in c)
            volume = np.median([s["volume"] for s in scores])
            print(
                f"{method:12s} {np.median(c):.3f}: {each:37s} {width[0]:.2f}, {width[1]:.2f}   "
                f"{std[0]:.2f}, {std[1]:.2f}   {volume:.3g}"
            )


if __name__ == "__main__":
    main()
