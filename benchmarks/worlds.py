"""Trained on one simulator, asked about another: the four worlds of ``examples/worlds.toml`` through SKA-Low.

    python -m benchmarks.worlds --source BANK --bank WORLDS --out DIR

``--source`` is a bank of the first world alone, the one of ``examples/contest.toml``. Its rows are copied into the bank
``WORLDS``, and the other worlds are simulated at the same theta and realisations. Without it the bank is taken as is.

Each world in turn is left out of all trainings and asked about. Networks read P(k) and moments of the smoothed cube,
which cost a thousandth of a CNN's time; where two of the worlds are left out they also read P(k) alone, the cube, or
both. Each part is kept in ``DIR/figures`` as it is done, and what is there already is not made again. A record is
written when all of its parts are there.
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
from benchmarks.worlds_ceiling import ceiling
from benchmarks.worlds_match import nearest
from benchmarks.worlds_scores import LATER, once, question, scores
from benchmarks.worlds_seen import FirstElements, checks, odds, of_checks, over_references, with_reference
from benchmarks.worlds_targets import TARGET, ask_target
from eorinfer import Run
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.bank.targets import parse_targets, target_values
from eorinfer.campaign.plans import planned_rows
from eorinfer.contest.contest import build_method
from eorinfer.contest.method import ContestSetup
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.core.revision import commit
from eorinfer.core.toml import read_toml
from eorinfer.npe.check import ObservationCheck
from eorinfer.npe.image_statistics import Statistics
from eorinfer.run.config import check_config
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import build_survey

CONFIG = Path(__file__).parents[1] / "examples" / "worlds.toml"
#: Rows of the first world to train on and to test with, rows of each other world, and rows in a shard of these.
FIRST, KNOWN, OTHERS, SHARD = 1200, 600, 120, 20
#: Further rows of each world, of round `LATER`, at realisations of their own: they came when all choices were made.
MORE = 180
#: Draws of noise of each row: those of the other worlds stand for as many as the first one has.
DRAWS = {"first": 1, "others": 8}
#: Widths of the Gaussians by which a cube is smoothed, in cells, and quantiles of it.
WIDTHS, QUANTILES = (0.0, 1.0, 2.0), (0.01, 0.1, 0.5, 0.9, 0.99)
BINS, BATCH, STEPS = 8, 64, 400
#: Truths of the known world that tell how false alarms depend on the realisations that are compared with.
MANY = 300
#: Factors on the errors of the error model, where they are compared; 1 elsewhere.
STRENGTHS = {"e-integral": [0.7, 1.0, 1.5]}
#: What networks read of cubes, and their training: one network, which sees new noise at each step.
VIEWS = ("npe-both", "npe-image", "npe-power")
ON_CUBES = {"steps": 1500, "ensemble": 1, "batch_size": 32, "learning_rate": 4e-3}
#: Realisations of the other worlds that are trained on, beside all but the later ones.
SHARES = ("half", "more")
SMALL = ("spheres", "press-schechter", "l-integral")
#: Parts of each record: the world left out in turn and the odds of worlds; the target in place of the parameters;
#: networks that read cubes; what a warning could reach at most; whether the world that is hardly warned of is another
#: sky; fewer rows and more.
RECORDS = {
    "worlds": (*SMALL, "e-integral", "odds"),
    "worlds_target": tuple(f"{held_out} {TARGET}" for held_out in (*SMALL, "e-integral")),
    "worlds_cubes": tuple(f"{held_out} {view}" for held_out in SMALL[:2] for view in VIEWS),
    "worlds_ceiling": tuple(f"{held_out} ceiling" for held_out in SMALL),
    "worlds_match": ("press-schechter match",),
    "worlds_rows": tuple(f"{held_out} {share}" for held_out in SMALL for share in SHARES),
}
PARTS = tuple(part for parts in RECORDS.values() for part in parts)
METHODS = {
    "npe-one-world": "one world",
    "npe-power": "mixed",
    "npe-aligned": "aligned",
    "npe-error-model": "error model",
    "npe-hedged": "hedged",
}
#: Those of them that are trained on several worlds, and differ in what is seen.
MIXED = ("npe-power", "npe-error-model", "npe-hedged")


def simulate(source: Bank, out: Path, worlds: Path) -> None:
    """Copy the first world's rows, and simulate those of the other worlds."""
    content = read_toml(CONFIG) | {"bank": {"path": str(worlds.resolve())}, "executor": {"workers": 1}}
    run = Run(check_config(CONFIG, content), out / "simulate", for_terminal())
    assert run.config.worlds is not None
    for number, name in enumerate(run.config.worlds.names):
        first = FIRST if name == "spheres" else 0
        fill(run, source, number, 1, slice(first, first + (FIRST + KNOWN if number == 0 else OTHERS)))
        fill(run, source, number, LATER, slice(FIRST + KNOWN, FIRST + KNOWN + MORE))


def fill(run: Run, source: Bank, number: int, of_round: int, rows: slice) -> None:
    """Copy rows of the source where the world is the first one, else simulate them at its theta and realisations."""
    of = source.plans()[0]
    assert run.config.worlds is not None
    theta, seed = of.theta[rows], of.seed[rows]
    size = of.shard_rows if number == 0 else SHARD
    world = np.full(len(theta), number, np.int64)
    plan = run.bank.add(Plan(f"{of_round:02d}-{number:02d}", of_round, "worlds", size, theta, seed, world))
    if number > 0:
        run.context.simulations.fill([(plan, len(theta))], run.config.worlds.names[number])
        return
    there = planned_rows(source, [(of, len(of.theta))])[rows]
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
    if path.exists() and len(values := np.load(path)) == len(repeated):
        return repeated, values
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


def opened_cubes(bank: Path, out: Path, held_out: str, view: str) -> Run:
    """Open the run of one question to one view, on the bank of cubes."""
    content = read_toml(CONFIG) | {
        "bank": {"path": str(bank.resolve())},
        "flow": {"kind": "zuko_nsf"},
        "power_spectrum": {"bins": BINS},
        "training": ON_CUBES,
        "contest": {"methods": [view], "reference": view, "baseline": view, "worlds_view": view}
        | {"held_out_world": held_out},
    }
    return Run(check_config(CONFIG, content), out / f"{held_out}-{view}", for_terminal())


def opened(
    rows: Rows, values: NDArray[np.float32], names: tuple[str, ...], out: Path, held_out: str, share: str = ""
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
        "training": {"steps": STEPS, "ensemble": 2, "batch_size": 64, "learning_rate": 4e-3, "emulate": "never"},
        "contest": {"methods": list(METHODS), "reference": "npe-power", "baseline": "npe-power"}
        | {
            "held_out_world": held_out,
            "further_world": further,
            "worlds_view": "npe-power",
            "alignments": [3.0],
            "error_strengths": STRENGTHS.get(held_out, [1.0]),
        },
    }
    run = Run(check_config(out / "worlds.toml", content), out / f"{held_out}-moments{share}", for_terminal())
    for name, number, own in (("01-all", 1, rows.round != LATER), ("02-later", LATER, rows.round == LATER)):
        part, n = rows[own], int(own.sum())
        if not n:
            continue
        plan = run.bank.add(Plan(name, number, "worlds", n, part.theta, part.seed, part.world))
        if run.bank.missing(plan):
            run.bank.write_shard(
                plan,
                0,
                status=["ok"] * n,
                message=[""] * n,
                seconds=[0.0] * n,
                arrays={"image": values[own][:, None]},
            )
    return run


def ask(
    run: Run, held_out: str, statistics: Statistics | None = None, draws: int = 1, share: str = ""
) -> dict[str, Any]:
    """Score each method on worlds of its training and on the one held out, and the warnings.

    Parameters
    ----------
    run
        Opened by `opened` or `opened_cubes`.
    held_out
        Name of the world left out.
    statistics
        Of vectors, for the check of an observation; None for those of an image.
    draws
        Times that rows of the other worlds are given to a training, each with noise of its own.
    share
        One of `SHARES`: training on half of the realisations of the other worlds, or on later ones too.
    """
    worlds, view = run.config.worlds, run.tables.contest.worlds_view
    assert worlds is not None
    every, number = run.bank.rows().ok, worlds.number(held_out)
    later = every[(every.round == LATER) & (every.world > 0) & (every.world != number)]
    # Realisations that are asked about: no world trains on them.
    rows, asked = question(every, number)
    if share == "half":
        rows = rows[(rows.world == 0) | np.isin(rows.seed, np.unique(rows.seed[rows.world > 0])[::2])]
    if share == "more":
        rows = Rows.concatenate([rows, later])
    rows = rows[np.repeat(np.arange(len(rows)), np.where(rows.world == 0, 1, draws))]
    inside, first = np.isin(every.seed, asked), int(rows.world.min())
    truths = {
        "held out": once(every[inside & (every.world == number)]),
        "known": once(every[inside & (every.world == first)]),
    }
    setup = ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    trained, training, methods = {"mixed": trained_posterior(setup, view)}, {"mixed": rows}, METHODS
    if statistics is None or share:
        methods = {name: METHODS[name] for name in MIXED}
    if statistics is None:
        truths["known"] = truths["known"][np.unique(truths["known"].seed, return_index=True)[1]]
    elif not share:
        training["one world"] = rows[rows.world == first]
        trained["one world"] = trained_posterior(setup, view, rows=training["one world"], place="npe-one-world")
    content: dict[str, Any] = {"rows": worlds.counts(rows.world), "methods": {}, "warned": {}}
    checked: dict[str, dict[str, list[ObservationCheck]]] = {}
    for name, one in trained.items():
        if statistics is not None:
            one = with_reference(run, one, training[name], statistics)
        checked[name] = {what: checks(run, one, of, statistics) for what, of in truths.items()}
        content["warned"][name] = {what: of_checks(each) for what, each in checked[name].items()}
        if statistics is not None and len(truths["known"]) > MANY:
            shares = over_references(run, one, truths["known"], statistics)
            content["warned"][name]["known, over references"] = shares
        print(held_out, view, name, content["warned"][name], flush=True)
    for name, label in methods.items():
        start = time.monotonic()
        method = build_method(setup, view if name == "npe-power" else name)
        by = checked.get(label, checked["mixed"])
        content["methods"][label] = {
            what: scores(run, method, of, by[what], run.config.prior) for what, of in truths.items()
        }
        content["methods"][label]["seconds"] = round(time.monotonic() - start)
        print(held_out, view, label, content["methods"][label], flush=True)
    return content


def main() -> None:
    """Simulate if asked to, then leave out each world in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, metavar="PART", help="those to make now")
    arguments = parser.parse_args()
    (arguments.out / "figures").mkdir(parents=True, exist_ok=True)
    if arguments.source is not None:
        simulate(Bank.open(arguments.source), arguments.out, arguments.bank)
    worlds = check_config(CONFIG, read_toml(CONFIG)).worlds
    assert worlds is not None
    bank = Bank.open(arguments.bank)
    rows, values = summaries(bank, arguments.out)
    for name in arguments.parts:
        kept = arguments.out / "figures" / f"{name}.json"
        if kept.exists():
            continue
        start = time.monotonic()
        held_out, _, view = name.partition(" ")
        if view == "match":
            run = opened_cubes(arguments.bank, arguments.out, held_out, "npe-power")
            made = {"boxes": nearest(run, worlds.number(held_out))}
        elif view == "ceiling":
            made = ceiling(rows, values, worlds.number(held_out))
        elif view == TARGET:
            run = opened(rows, values, worlds.names, arguments.out, held_out)
            targets = parse_targets([TARGET], (), bank.observables)
            made = ask_target(run, held_out, targets, target_values(bank, rows, targets))
        elif view in SHARES:
            run = opened(rows, values, worlds.names, arguments.out, held_out, view)
            made = ask(run, held_out, FirstElements(), share=view)
        elif view:
            made = ask(opened_cubes(arguments.bank, arguments.out, held_out, view), held_out, draws=DRAWS["others"])
        elif name == "odds":
            run = opened(rows, values, worlds.names, arguments.out, "spheres")
            made = odds(run, *question(run.bank.rows(), 2))
        else:
            made = ask(opened(rows, values, worlds.names, arguments.out, name), name, FirstElements())
        write_json(kept, made | {"seconds": round(time.monotonic() - start), "commit": commit()})
    for name, parts in RECORDS.items():
        paths = {part: arguments.out / "figures" / f"{part}.json" for part in parts}
        if set(parts) & set(arguments.parts) and all(path.exists() for path in paths.values()):
            figures = {part: read_json(path) for part, path in paths.items()}
            record(name, figures, seconds=sum(of["seconds"] for of in figures.values()))


if __name__ == "__main__":
    main()
