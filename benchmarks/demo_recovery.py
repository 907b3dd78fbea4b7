"""How well does the demo recover its parameters, over mocks drawn from the prior?

Takes the round-1 posterior of a run (it holds for any observation), simulates fresh mocks with
seeds of their own, observes each once, and prints widths relative to the prior and how
often the truth is inside the 68% and 95% intervals.

    python -m benchmarks.demo_recovery examples/demo.toml runs/demo [--mocks 20]
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from eorinfer import Bank, Observation, Samples, build_survey, fill, load_config, local_executor
from eorinfer.campaign.plans import plan_round
from eorinfer.core.seeds import item_seed
from eorinfer.npe.posterior import Posterior

#: Stream of the survey's noise.
NOISE = 1


def main() -> None:
    """Print one line for each parameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--mocks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    posterior = Posterior.load(arguments.run / "rounds" / "01" / "posterior")

    theta = config.prior.sample(arguments.mocks, np.random.default_rng(arguments.seed))
    bank = Bank.create(arguments.run / "mocks", config.simulator)
    plan = bank.add(plan_round(99, "mocks", theta, config.simulator, arguments.seed, share=1))
    trained_on = set(Bank.open(config.bank_path(arguments.run)).rows().seed.tolist())
    assert not trained_on & set(plan.seed.tolist()), "a mock shares its realisation with the training set"
    with local_executor() as executor:
        fill(bank, plan, config.simulator, executor, beside=config.folder)
    rows = bank.rows([plan]).ok
    survey = build_survey(config.tables.survey, config.observable)
    generator = torch.Generator().manual_seed(item_seed(arguments.seed, NOISE))
    clean = torch.from_numpy(bank.read(config.observable.name, rows))
    observed = survey(clean, generator).numpy()

    results: list[Samples] = [
        posterior.draw(Observation.from_observable(config.observable, cube), 5000, i) for i, cube in enumerate(observed)
    ]
    ratio = np.array([s.std / config.prior.std for s in results])
    z = np.array([(s.mean - t) / s.std for s, t in zip(results, rows.theta, strict=True)])
    print(f"{len(results)} mocks from the prior, posterior of round 1 ({posterior.facts['simulations']} simulations)")
    print("parameter     std / prior std: median (16-84%)   truth inside 68%   inside 95%   rms (mean - truth) / std")
    for j, p in enumerate(config.prior.parameters):
        low, middle, high = np.quantile(ratio[:, j], [0.16, 0.5, 0.84])
        inside = [
            sum(
                s.interval(level)[0][j] <= t[j] <= s.interval(level)[1][j]
                for s, t in zip(results, rows.theta, strict=True)
            )
            for level in (0.68, 0.95)
        ]
        n = len(results)
        print(
            f"{p.name:18s} {middle:15.2f} ({low:.2f}-{high:.2f}) {inside[0]:15d}/{n} {inside[1]:10d}/{n}"
            f" {np.sqrt((z[:, j] ** 2).mean()):18.2f}"
        )


if __name__ == "__main__":
    main()
