"""Trained on one simulator, asked about another: the four worlds of ``examples/worlds.toml``.

    python -m benchmarks.worlds simulate --bank BANK --out DIR --held-out spheres
    python -m benchmarks.worlds ask --out DIR --held-out spheres --view npe-both

``--bank`` is a bank of the first world alone, the one of ``examples/contest.toml``. Its first rows are trained on,
others are test observations of the first world. The other worlds are simulated at the same theta and realisations:
`TRAINED` rows each to train on, `ASKED` test observations of the world held out. What is there is not made again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import planned_rows
from eorinfer.contest.contest import build_method
from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.files import write_json
from eorinfer.core.progress import for_terminal
from eorinfer.core.toml import read_toml
from eorinfer.npe.check import check_images
from eorinfer.run.config import check_config
from eorinfer.run.truths import observed_rows
from eorinfer.run.worlds import TOGETHER, warned_of
from eorinfer.validation.sharpness import NO_DENSITY

CONFIG = Path(__file__).parents[1] / "examples" / "worlds.toml"
#: Rows of the first world to train on and to test with, and of each other world to train on and to test with.
FIRST, KNOWN, TRAINED, ASKED = 1200, 600, 120, 120
#: Rows in a shard of the other worlds, a multiple of those of a realisation.
SHARD = 20
#: Steps of a training, by view.
STEPS = {"npe-power": 1500, "npe-both": 600, "npe-image": 600}
METHODS = ("npe-one-world", "mixed", "npe-aligned", "npe-error-model")
SAMPLES = 1000


def opened(out: Path, held_out: str, view: str) -> Run:
    """Open the run of one question, on the bank that all share."""
    content = read_toml(CONFIG)
    further = next(world["name"] for world in content["simulator"]["worlds"][1:] if world["name"] != held_out)
    content["bank"] = {"path": str((out / "bank").resolve())}
    content["observation"] = {"theta": content["observation"]["theta"], "world": held_out}
    content["training"] |= {"steps": STEPS[view], "ensemble": 2}
    content["executor"] = {"workers": 1}
    content["contest"] = {
        "methods": [view, *(name for name in METHODS if name != "mixed")],
        "reference": view,
        "baseline": view,
        "held_out_world": held_out,
        "further_world": further,
        "worlds_view": view,
        "alignments": [1.0, 10.0] if view == "npe-power" else [3.0],
    }
    return Run(check_config(CONFIG, content), out / f"{held_out}-{view}", for_terminal())


def plans(run: Run, source: Bank | None = None) -> dict[tuple[str, str], tuple[Plan, int]]:
    """Plan the rows of each world, to ``train`` on and to ``ask`` about; with the source bank they are added."""
    worlds, bank = run.config.worlds, run.bank
    assert worlds is not None
    wanted: dict[tuple[str, str], tuple[Plan, int]] = {}
    for number, name in enumerate(worlds.names):
        sizes = {"train": FIRST, "ask": KNOWN} if number == 0 else {"train": TRAINED, "ask": ASKED}
        for what, n in sizes.items():
            id = f"{'01' if what == 'train' else '00'}-{number:02d}{what}{n}"
            if source is not None:
                of = source.plans()[0]
                rows = slice(0, n) if what == "train" else slice(FIRST, FIRST + n)
                size = of.shard_rows if number == 0 else SHARD
                world = np.full(n, number, np.int64)
                bank.add(Plan(id, int(id[:2]), "worlds", size, of.theta[rows], of.seed[rows], world))
            wanted[name, what] = bank.plan(id), n
    return wanted


def simulate(run: Run, source: Bank, held_out: str) -> None:
    """Copy the first world's rows, and simulate those of the others that this question needs."""
    all_plans = plans(run, source)
    for (name, what), (plan, n) in all_plans.items():
        if name == run.config.worlds.names[0]:  # type: ignore[union-attr]
            _copy(source, FIRST * (what == "ask"), run.bank, plan)
        elif what == ("ask" if name == held_out else "train"):
            start = time.monotonic()
            run.context.simulations.fill([(plan, n)], f"{name}, {what}")
            print(f"{name}, {what}: {n} rows in {time.monotonic() - start:.0f} s", flush=True)


def _copy(source: Bank, first: int, bank: Bank, own: Plan) -> None:
    missing = bank.missing(own)
    if not missing:
        return
    rows = planned_rows(source, [(source.plans()[0], first + len(own))])[first:]
    for shard in missing:
        part = rows[own.rows(shard)]
        bank.write_shard(
            own,
            shard,
            status=part.status.tolist(),
            message=part.message.tolist(),
            seconds=part.seconds.tolist(),
            arrays={o.name: source.read(o.name, part) for o in bank.observables},
        )


def ask(run: Run, held_out: str, view: str, out: Path) -> dict[str, Any]:
    """Score each method on the known world and on the one held out, and the warning of the mixed one."""
    worlds, start = run.config.worlds, time.monotonic()
    assert worlds is not None
    wanted = plans(run)
    rows = planned_rows(run.bank, [wanted[name, "train"] for name in worlds.names if name != held_out]).ok
    truths = {name: planned_rows(run.bank, [wanted[name, "ask"]]).ok for name in (worlds.names[0], held_out)}
    setup = ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    path = out / f"{held_out}-{view}.json"
    content: dict[str, Any] = {"held_out": held_out, "view": view, "rows": worlds.counts(rows.world), "methods": {}}
    for name in METHODS:
        began = time.monotonic()
        method = build_method(setup, view if name == "mixed" else name)
        content["methods"][name] = {world: scores(run, method, asked) for world, asked in truths.items()} | {
            "seconds": time.monotonic() - began
        }
        if name == "mixed":
            content["warned"] = warnings(run, setup, view, truths)
        write_json(path, content | {"seconds": time.monotonic() - start})
        print(name, json.dumps(content["methods"][name]), flush=True)
    print(json.dumps(content["warned"]), flush=True)
    return content


def scores(run: Run, method: Method, truths: Rows) -> dict[str, Any]:
    """Nats gained, bias and rms in sigma, and coverage; errors by realisation, since its rows err together."""
    values, at_truth = [], []
    for i, observed in enumerate(observed_rows(run.context, truths)):
        theta = truths.theta[64 * i : 64 * i + len(observed)]
        posteriors = method.evaluate(observed, theta, SAMPLES, 1)
        values.append(posteriors.values)
        at_truth.append(posteriors.at_truth)
    drawn = np.concatenate(values)
    gain = np.maximum(np.concatenate(at_truth), NO_DENSITY) - run.config.prior.log_prob(truths.theta)
    pull = (drawn.mean(1) - truths.theta) / drawn.std(1)
    low, high = np.quantile(drawn, [0.16, 0.84], axis=1)
    inside = (truths.theta >= low) & (truths.theta <= high)
    each = np.array([gain[truths.seed == seed].mean() for seed in np.unique(truths.seed)])
    return {
        "truths": len(truths),
        "realisations": len(each),
        "gain": float(gain.mean()),
        "gain_error": float(each.std(ddof=1) / len(each) ** 0.5),
        "median_gain": float(np.median(gain)),
        "bias": dict(zip(run.config.prior.names, pull.mean(0).tolist(), strict=True)),
        "rms": dict(zip(run.config.prior.names, np.sqrt((pull**2).mean(0)).tolist(), strict=True)),
        "inside_68": dict(zip(run.config.prior.names, inside.mean(0).tolist(), strict=True)),
        "off_by_2_sigma": float((np.abs(pull) > 2).any(1).mean()),
    }


def warnings(run: Run, setup: ContestSetup, view: str, truths: dict[str, Rows]) -> dict[str, Any]:
    """Shares that are warned of by the mixed posterior and by that of one world: single ones, and several together."""
    found: dict[str, Any] = {}
    first = setup.rows[setup.rows.world == setup.rows.world.min()]
    posteriors = {
        "mixed": trained_posterior(setup, view),
        "one world": trained_posterior(setup, view, rows=first, place="npe-one-world"),
    }
    for name, posterior in posteriors.items():
        assert posterior.reference is not None
        found[name] = {"realisations": int(posterior.reference.realisations)}
        for world, asked in truths.items():
            checks = [
                check for observed in observed_rows(run.context, asked) for check in check_images(posterior, observed)
            ]
            p = np.array([[check.p_statistics, check.p_features] for check in checks])
            found[name][world] = {
                "observations": len(checks),
                "warned": {str(n): warned_of(checks, n, 1) for n in TOGETHER},
                "p_below": {str(level): (p < level).mean(0).tolist() for level in (0.005, 0.05, 0.5)},
            }
    return found


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["simulate", "ask", "all"])
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", nargs="+", default=["spheres"])
    parser.add_argument("--view", nargs="+", default=["npe-power", "npe-both"])
    arguments = parser.parse_args()
    for held_out in arguments.held_out:
        for view in arguments.view:
            run = opened(arguments.out, held_out, view)
            if arguments.step != "ask":
                simulate(run, Bank.open(arguments.bank), held_out)
            if arguments.step != "simulate":
                start = time.monotonic()
                content = ask(run, held_out, view, arguments.out)
                record(f"worlds_{held_out}_{view}", content, seconds=time.monotonic() - start)


if __name__ == "__main__":
    main()
