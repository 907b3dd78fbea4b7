"""Trained on one simulator, asked about another: the four worlds of ``examples/worlds.toml`` through SKA-Low.

    python -m benchmarks.worlds --source BANK --bank WORLDS --out DIR

``--source`` is a bank of the first world alone, the one of ``examples/contest.toml``. Its rows are copied into the bank
``WORLDS``, and the other worlds are simulated at the same theta and realisations. Without it the bank is taken as is.

Each world in turn is left out of all trainings and asked about. Networks read summaries of the observed cube, once P(k)
and once P(k) with moments of the smoothed cube, which stand for an image here: they cost a thousandth of a CNN's time.
What is there already is not made again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.record import record
from benchmarks.worlds_seen import checks, odds, of_checks, over_references, with_reference
from eorinfer import Run
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import planned_rows
from eorinfer.contest.contest import build_method
from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.core.toml import read_toml
from eorinfer.npe.check import ObservationCheck
from eorinfer.run.config import check_config
from eorinfer.run.truths import observed_rows
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import build_survey
from eorinfer.validation.sharpness import NO_DENSITY

CONFIG = Path(__file__).parents[1] / "examples" / "worlds.toml"
#: Rows of the first world to train on and to test with, rows of each other world, and rows in a shard of these.
FIRST, KNOWN, OTHERS, SHARD = 1200, 600, 120, 20
#: Draws of noise of each row: those of the other worlds stand for as many as the first one has.
DRAWS = {"first": 1, "others": 8}
#: Widths of the Gaussians by which a cube is smoothed, in cells, and quantiles of it.
WIDTHS, QUANTILES = (0.0, 1.0, 2.0), (0.01, 0.1, 0.5, 0.9, 0.99)
BINS, BATCH, STEPS, SAMPLES = 8, 64, 400, 500
#: Truths of the known world that tell how false alarms depend on the realisations that are compared with.
MANY = 300
#: The world left out, in turn, and the odds of worlds.
PARTS = ("spheres", "press-schechter", "l-integral", "e-integral", "odds")
METHODS = {
    "npe-one-world": "one world",
    "npe-power": "mixed",
    "npe-aligned": "aligned",
    "npe-error-model": "error model",
    "npe-hedged": "hedged",
}


def simulate(source: Bank, out: Path, worlds: Path) -> None:
    """Copy the first world's rows, and simulate those of the other worlds."""
    content = read_toml(CONFIG) | {"bank": {"path": str(worlds.resolve())}}
    run = Run(check_config(CONFIG, content), out / "simulate", for_terminal())
    assert run.config.worlds is not None
    of = source.plans()[0]
    for number, name in enumerate(run.config.worlds.names):
        first = FIRST if name == "spheres" else 0
        n = FIRST + KNOWN if number == 0 else OTHERS
        rows, size = slice(first, first + n), of.shard_rows if number == 0 else SHARD
        plan = Plan(f"01-{number:02d}", 1, "worlds", size, of.theta[rows], of.seed[rows], np.full(n, number, np.int64))
        plan = run.bank.add(plan)
        if number > 0:
            run.context.simulations.fill([(plan, n)], name)
            continue
        there = planned_rows(source, [(of, n)])
        for shard in run.bank.missing(plan):
            part = there[plan.rows(shard)]
            run.bank.write_shard(
                plan,
                shard,
                status=part.status.tolist(),
                message=part.message.tolist(),
                seconds=part.seconds.tolist(),
                arrays={o.name: source.read(o.name, part) for o in run.bank.observables},
            )


def summaries(bank: Bank, out: Path) -> tuple[Rows, NDArray[np.float32]]:
    """Rows of all worlds, repeated for each draw of noise, and their summaries (n, S): P(k) first."""
    rows = bank.rows().ok
    rows = rows[np.lexsort((rows.index, rows.shard))]
    draws = np.where(rows.world == 0, DRAWS["first"], DRAWS["others"])
    repeated = rows[np.repeat(np.arange(len(rows)), draws)]
    path = out / "summaries.npy"
    if path.exists():
        return repeated, np.load(path)
    tables = check_config(CONFIG, read_toml(CONFIG)).tables
    observable = bank.observables[0]
    survey = build_survey(tables.survey, observable)
    power = PowerSpectrum(observable.cells, observable.box_length, n_bins=BINS)
    generator = torch.Generator().manual_seed(1)
    blocks = []
    for start in range(0, len(repeated), BATCH):
        clean = torch.from_numpy(bank.read(observable.name, repeated[start : start + BATCH]))
        with torch.no_grad():
            observed = survey(clean, generator)
            blocks.append(torch.cat([torch.log(power(observed) + 1e-6).flatten(1), _moments(observed)], 1))
    values = torch.cat(blocks).float().numpy()
    np.save(path, values)
    return repeated, values


def _moments(cubes: Tensor) -> Tensor:
    """Log spread, skewness, kurtosis and quantiles (B, M) of cubes (B, 1, *cells), smoothed by each of `WIDTHS`."""
    cells = cubes.shape[2:]
    axes = [torch.fft.fftfreq(cells[0]), torch.fft.fftfreq(cells[1]), torch.fft.rfftfreq(cells[2])]
    k2 = torch.stack([axis.square() for axis in torch.meshgrid(*axes, indexing="ij")]).sum(0) * (2 * np.pi) ** 2
    modes = torch.fft.rfftn(cubes[:, 0], dim=(1, 2, 3))
    columns = []
    for width in WIDTHS:
        smooth = torch.fft.irfftn(modes * torch.exp(-0.5 * k2 * width**2), s=cells, dim=(1, 2, 3)).flatten(1)
        spread = smooth.std(1, keepdim=True) + 1e-6
        standard = (smooth - smooth.mean(1, keepdim=True)) / spread
        shape = [standard.pow(3).mean(1, keepdim=True), standard.pow(4).mean(1, keepdim=True).log()]
        columns += [spread.log(), *shape, torch.quantile(standard, torch.tensor(QUANTILES), dim=1).T]
    return torch.cat(columns, 1)


def opened(
    rows: Rows, values: NDArray[np.float32], names: tuple[str, ...], out: Path, held_out: str, strengths: list[float]
) -> Run:
    """Open the run of one question, on a bank of summaries."""
    further = next(name for name in names[1:] if name != held_out)
    prior = {"F_ESC10": {"low": -2.0, "high": 0.0}, "ALPHA_ESC": {"low": -1.0, "high": 0.5}}
    content: dict[str, Any] = {
        "seed": 1,
        "simulator": {"kind": "imported", "ranges": prior, "shape": [1, values.shape[1]]}
        | {"worlds": [{"name": name} for name in names]},
        "observation": {"file": "none.h5"},
        "inference": {"rounds": [1]},
        "bank": {"path": str((out / "bank-moments").resolve())},
        "flow": {"kind": "zuko_nsf"},
        "training": {"steps": STEPS, "ensemble": 2, "batch_size": 64, "learning_rate": 4e-3},
        "contest": {"methods": list(METHODS), "reference": "npe-power", "baseline": "npe-power"}
        | {
            "held_out_world": held_out,
            "further_world": further,
            "worlds_view": "npe-power",
            "alignments": [3.0],
            "error_strengths": strengths,
        },
    }
    run = Run(check_config(out / "worlds.toml", content), out / f"{held_out}-moments", for_terminal())
    plan = run.bank.add(Plan("01-all", 1, "worlds", len(rows), rows.theta, rows.seed, rows.world))
    if run.bank.missing(plan):
        n = len(rows)
        run.bank.write_shard(
            plan,
            0,
            status=["ok"] * n,
            message=[""] * n,
            seconds=[0.0] * n,
            arrays={"image": values[:, None]},
        )
    return run


def ask(run: Run, held_out: str) -> dict[str, Any]:
    """Score each method on worlds of its training and on the one held out, and the warnings."""
    worlds = run.config.worlds
    assert worlds is not None
    every, number = run.bank.rows(), worlds.number(held_out)
    # Realisations that are asked about: no world trains on them.
    rows, asked = question(every, number)
    inside, first = np.isin(every.seed, asked), int(rows.world.min())
    truths = {
        "held out": _once(every[inside & (every.world == number)]),
        "known": _once(every[inside & (every.world == first)]),
    }
    setup = ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    of_first = rows[rows.world == first]
    trained = {
        "mixed": with_reference(run, trained_posterior(setup, "npe-power"), rows),
        "one world": with_reference(
            run, trained_posterior(setup, "npe-power", rows=of_first, place="npe-one-world"), of_first
        ),
    }
    content: dict[str, Any] = {"rows": worlds.counts(rows.world), "methods": {}, "warned": {}}
    checked = {name: {what: checks(run, one, of) for what, of in truths.items()} for name, one in trained.items()}
    for name, of_posterior in checked.items():
        content["warned"][name] = {what: of_checks(each) for what, each in of_posterior.items()}
        if len(truths["known"]) > MANY:
            content["warned"][name]["known, over references"] = over_references(run, trained[name], truths["known"])
        print(held_out, name, content["warned"][name], flush=True)
    for name, label in METHODS.items():
        start = time.monotonic()
        method = build_method(setup, name)
        by = checked.get(label, checked["mixed"])
        content["methods"][label] = {what: scores(run, method, of, by[what]) for what, of in truths.items()}
        content["methods"][label]["seconds"] = round(time.monotonic() - start)
        print(held_out, label, content["methods"][label], flush=True)
    return content


def question(every: Rows, number: int) -> tuple[Rows, NDArray[np.uint64]]:
    """Rows to train on where a world is left out, and seeds of the realisations that are asked about."""
    known = np.unique(every.seed[every.world == 0])[::3]
    asked = known if number == 0 else np.union1d(known, np.unique(every.seed[every.world == number])[::2])
    return every[~np.isin(every.seed, asked) & (every.world != number)], asked


def _once(rows: Rows) -> Rows:
    """Rows of one draw of noise each."""
    key = np.stack([rows.theta[:, 0], rows.theta[:, 1], rows.seed.astype(float)], 1)
    return rows[np.sort(np.unique(key, axis=0, return_index=True)[1])]


def scores(run: Run, method: Method, truths: Rows, checks: list[ObservationCheck]) -> dict[str, Any]:
    """Nats gained, bias and rms in sigma, and coverage, of all and of those without a warning.

    Errors are by realisation, since its rows err together.
    """
    drawn, at_truth, start = [], [], 0
    for observed in observed_rows(run.context, truths):
        posteriors = method.evaluate(observed, truths.theta[start : start + len(observed)], SAMPLES, 1)
        drawn.append(posteriors.values)
        at_truth.append(posteriors.at_truth)
        start += len(observed)
    values, names = np.concatenate(drawn), run.config.prior.names
    gain = np.maximum(np.concatenate(at_truth), NO_DENSITY) - run.config.prior.log_prob(truths.theta)
    pull = (values.mean(1) - truths.theta) / values.std(1)
    low, high = np.quantile(values, [0.16, 0.84], axis=1)
    inside = (truths.theta >= low) & (truths.theta <= high)
    off, warned = (np.abs(pull) > 2).any(1), np.array([check.unlike for check in checks])

    def of(which: NDArray[np.bool_]) -> dict[str, Any]:
        each = np.array([gain[which & (truths.seed == seed)].mean() for seed in np.unique(truths.seed[which])])
        return {
            "truths": int(which.sum()),
            "realisations": len(each),
            "gain": float(gain[which].mean()),
            "gain_error": float(each.std(ddof=1) / len(each) ** 0.5),
            "bias": dict(zip(names, pull[which].mean(0).tolist(), strict=True)),
            "rms": dict(zip(names, np.sqrt((pull[which] ** 2).mean(0)).tolist(), strict=True)),
            "inside_68": dict(zip(names, inside[which].mean(0).tolist(), strict=True)),
            "off_by_2_sigma": int(off[which].sum()),
        }

    return of(np.ones(len(gain), bool)) | {"not warned of": of(~warned), "warned_and_off": int((warned & off).sum())}


def main() -> None:
    """Simulate if asked to, then leave out each world in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0], help="of the error model, to choose from")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.source is not None:
        simulate(Bank.open(arguments.source), arguments.out, arguments.bank)
    worlds = check_config(CONFIG, read_toml(CONFIG)).worlds
    assert worlds is not None
    start = time.monotonic()
    rows, values = summaries(Bank.open(arguments.bank), arguments.out)
    print(f"{len(rows)} summaries in {time.monotonic() - start:.0f} s", flush=True)
    kept = arguments.out / "figures.json"
    figures: dict[str, Any] = read_json(kept) if kept.exists() else {}
    for name in arguments.parts:
        if name in figures:
            continue
        start = time.monotonic()
        held_out = "spheres" if name == "odds" else name
        run = opened(rows, values, worlds.names, arguments.out, held_out, arguments.strengths)
        figures[name] = (odds(run, *question(run.bank.rows(), 2)) if name == "odds" else ask(run, name)) | {
            "seconds": round(time.monotonic() - start)
        }
        write_json(kept, figures)
    record("worlds", figures, seconds=sum(of["seconds"] for of in figures.values()))


if __name__ == "__main__":
    main()
