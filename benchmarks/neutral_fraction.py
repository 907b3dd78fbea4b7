"""How well is the mean neutral fraction inferred in place of the parameters? Scored on simulations outside of training.

The run folder of a config of 21cm cubes is read, for example that of ``eorinfer simulate examples/contest.toml``.
Networks are trained for `[inference] targets = ["neutral_fraction"]` on its first rows; the last 200 rows, which
share no realisation with them, are the truths. The information gained is the mean log density at the truth over that of
the prior which the simulations give the target.

    python -m benchmarks.neutral_fraction CONFIG RUN --out DIR [--truths 200] [--steps 4000] [--branches image power]

A branch that is done is kept in DIR. The folder RUN is only read.
"""

import argparse
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.targets import target_rows
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import check_config
from eorinfer.validation.calibration import calibrate, interval_coverage, recovery
from eorinfer.validation.sharpness import mean_and_error, with_floor
from eorinfer.validation.uniformity import COVERAGE

TARGET = "neutral_fraction"
BRANCHES: dict[str, dict[str, bool]] = {
    "image": {"convolution": True, "power_spectrum": True},
    "power": {"convolution": False, "power_spectrum": True},
}
SAMPLES, NOISE_SEED = 1000, 20261128


def main() -> None:
    """Train and score each branch, print and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--branches", nargs="+", choices=BRANCHES, default=list(BRANCHES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for branch in arguments.branches:
        path = arguments.out / f"{branch}.json"
        if not path.exists():
            start = time.perf_counter()
            score = measure(arguments, branch)
            write_json(path, score | {"seconds": time.perf_counter() - start})
        found[branch] = read_json(path)
        print(branch, found[branch], flush=True)
    seconds = sum(score["seconds"] for score in found.values())
    record("neutral_fraction", {"steps": arguments.steps, "branches": found}, seconds=seconds)


def measure(arguments: argparse.Namespace, branch: str) -> dict[str, Any]:
    """Train one branch, and score it on the truths."""
    content = tomllib.loads(arguments.config.read_text())
    total = content["inference"]["rounds"][0]
    content["inference"] |= {"rounds": [total - arguments.truths], "targets": [TARGET], "predictive": 0}
    content["embedding"] = content.get("embedding", {}) | BRANCHES[branch]
    content["training"] = content.get("training", {}) | {"steps": arguments.steps}
    content["bank"] = {"path": str((arguments.run / "bank").resolve())}
    content.pop("contest", None)
    run = Run(check_config(arguments.config, content), arguments.out / branch, for_terminal())
    run.infer()
    posterior = Posterior.load(run.out / "posterior")
    bank = run.bank
    used = bank.rows([of.plan for of in run.rounds.first()])
    trained = run.first_rows(run.observe())
    rows = bank.rows().ok
    rows = rows[np.isin(rows.seed, used.seed) & ~np.isin(rows.seed, trained.seed)]
    truths = target_rows(bank, rows, run.config.targets or ())
    seen = posterior.contains(truths.theta)
    truths, rows = truths[seen], rows[seen]
    generator = torch.Generator().manual_seed(NOISE_SEED)
    with torch.no_grad():
        observed = run.context.survey(torch.from_numpy(bank.read(run.config.observable.name, rows)), generator)
    features = posterior.read(observed)
    theta, prior = truths.theta, posterior.prior
    values = draw(posterior, features, SAMPLES, NOISE_SEED).values
    at_truth = log_density(posterior.networks, theta[:, None], features)[:, 0]
    at_samples = log_density(posterior.networks, values, features)
    calibration = calibrate(prior.names, prior.unit(theta), prior.unit(values), at_truth, at_samples, NOISE_SEED)
    log_q, without = with_floor(at_truth)
    inside = {f"inside_{level:.0%}": float(interval_coverage(theta, values, level)[0]) for level in (0.5, 0.68, 0.95)}
    return {
        "training_rows": len(trained),
        "truths": len(theta),
        "realisations": len(np.unique(rows.seed)),
        "outside_of_what_training_has": int((~seen).sum()),
        "without_density": without,
        "gain_nats": mean_and_error(log_q - prior.log_prob(theta)),
        "calibration_p": calibration.worst.p_holm,
        "worst": calibration.worst.quantity,
        "widths": calibration.effects[COVERAGE].line(),
        "target": calibration.effects[prior.names[0]].line(),
        **inside,
        **recovery(prior.names, theta, values, prior.std)[prior.names[0]],
    }


if __name__ == "__main__":
    main()
