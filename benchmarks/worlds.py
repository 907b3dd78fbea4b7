"""Trained on one simulator, asked about another: the four worlds of ``examples/worlds.toml`` through SKA-Low.

    python -m benchmarks.worlds --source BANK --bank WORLDS --out DIR

``--source`` is a bank of the first world alone, the one of ``examples/contest.toml``. Its rows are copied into the bank
``WORLDS``, and the other worlds are simulated at the same theta and realisations. Without it the bank is taken as is.

Each world in turn is left out of all trainings and asked about. Networks read P(k) and moments of the smoothed cube,
which cost a thousandth of a CNN's time, P(k) alone, the cube, or the cube and P(k). Each method of a part is kept in
``DIR/figures`` as it is done, and what is there already is not made again; ``--parts`` and ``--methods`` choose some. A
record is written when all of its parts are there.
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
from benchmarks.worlds_ask import BINS, CONFIG, DRAWS, LIKELIHOOD, METHODS, ask, ask_likelihood, opened, opened_cubes
from benchmarks.worlds_ceiling import ceiling
from benchmarks.worlds_match import nearest
from benchmarks.worlds_scores import LATER, question
from benchmarks.worlds_seen import odds
from benchmarks.worlds_targets import TARGET, ask_target
from eorinfer import Run
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.bank.targets import parse_targets, target_values
from eorinfer.campaign.plans import Used, planned_rows
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.core.revision import commit
from eorinfer.core.toml import read_toml
from eorinfer.run.config import check_config
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import build_survey

#: Rows of the first world to train on and to test with, rows of each other world, and rows in a shard of these.
FIRST, KNOWN, OTHERS, SHARD = 1200, 600, 600, 20
#: Further rows of each world, of round `LATER`, at realisations of their own: they came when all choices were made.
#: Two of a realisation, which take less time than two realisations; rows of the source that share a realisation.
MORE, TOGETHER, SHARED = 100, 2, 4
#: Widths of the Gaussians by which a cube is smoothed, in cells, and quantiles of it.
WIDTHS, QUANTILES = (0.0, 1.0, 2.0), (0.01, 0.1, 0.5, 0.9, 0.99)
BATCH = 64
#: What networks read of cubes, and what parts are called in which the target is inferred from both.
VIEWS, OF_CUBES = ("npe-image", "npe-both"), " of cubes"
SMALL = ("spheres", "press-schechter", "l-integral")
EACH = (*SMALL, "e-integral")
#: Parts of each record: the world left out in turn and the odds of worlds; networks that read P(k) alone, and the
#: likelihood of P(k); networks that read cubes; the target in place of the parameters; what a warning could reach at
#: most; whether the world that is hardly warned of is another sky.
RECORDS = {
    "worlds": (*EACH, "odds"),
    "worlds_power": tuple(f"{held_out} {view}" for held_out in EACH for view in ("power", LIKELIHOOD)),
    "worlds_cubes": tuple(f"{held_out} {view}" for view in VIEWS for held_out in EACH),
    "worlds_target": tuple(f"{held_out} {TARGET}" for held_out in EACH),
    "worlds_target_cubes": tuple(f"{held_out} {TARGET}{OF_CUBES}" for held_out in EACH),
    "worlds_ceiling": tuple(f"{held_out} ceiling" for held_out in SMALL),
    "worlds_match": ("press-schechter match",),
}
LABELS = tuple(METHODS.values())
PARTS = tuple(part for parts in RECORDS.values() for part in parts)


def simulate(source: Bank, out: Path, worlds: Path) -> None:
    """Copy the first world's rows, and simulate those of the other worlds."""
    content = read_toml(CONFIG) | {"bank": {"path": str(worlds.resolve())}, "executor": {"workers": 1}}
    run = Run(check_config(CONFIG, content), out / "simulate", for_terminal())
    assert run.config.worlds is not None
    for number, name in enumerate(run.config.worlds.names):
        first = FIRST if name == "spheres" else 0
        fill(run, source, number, 1, first + np.arange(FIRST + KNOWN if number == 0 else OTHERS))
        fill(run, source, number, LATER, later_rows(number))


def later_rows(number: int) -> NDArray[np.int64]:
    """Give the rows of the source that a world's later rows are made from; the worlds to simulate share no realisation.

    Those of the first world are there already: one of each realisation, and none that another world has.
    """
    if number == 0:
        return FIRST + KNOWN + SHARED * np.arange(MORE) + TOGETHER
    realisations = MORE // TOGETHER * (number - 1) + np.arange(MORE // TOGETHER)
    return FIRST + KNOWN + (SHARED * realisations[:, None] + np.arange(TOGETHER)).ravel()


def fill(run: Run, source: Bank, number: int, of_round: int, rows: NDArray[np.int64]) -> None:
    """Copy rows of the source where the world is the first one, else simulate them at its theta and realisations."""
    of = source.plans()[0]
    assert run.config.worlds is not None
    theta, seed = of.theta[rows], of.seed[rows]
    size = of.shard_rows if number == 0 else SHARD
    world = np.full(len(theta), number, np.int64)
    plan = run.bank.add(Plan(f"{of_round:02d}-{number:02d}", of_round, "worlds", size, theta, seed, world))
    if number > 0:
        run.context.simulations.fill([Used(plan, len(theta))], run.config.worlds.names[number])
        return
    there = planned_rows(source, [Used(of, len(of.theta))])[rows]
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


def main() -> None:
    """Simulate if asked to, then leave out each world in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, metavar="PART", help="those to make now")
    parser.add_argument("--methods", nargs="*", default=LABELS, choices=LABELS, help="those to train now")
    arguments = parser.parse_args()
    (arguments.out / "figures").mkdir(parents=True, exist_ok=True)
    if arguments.source is not None:
        simulate(Bank.open(arguments.source), arguments.out, arguments.bank)
    for name in arguments.parts:
        make_part(name, arguments.bank, arguments.out, tuple(arguments.methods))
    for name, parts in RECORDS.items():
        paths = {part: arguments.out / "figures" / f"{part}.json" for part in parts}
        if set(parts) & set(arguments.parts) and all(path.exists() for path in paths.values()):
            figures = {part: read_json(path) for part, path in paths.items()}
            record(name, figures, seconds=sum(of["seconds"] for of in figures.values()))


def make_part(name: str, path: Path, out: Path, methods: tuple[str, ...]) -> None:
    """Make one part, or the methods that it lacks, and keep it in ``figures/``."""
    kept = out / "figures" / f"{name}.json"
    held_out, _, view = name.partition(" ")
    content: dict[str, Any] = read_json(kept) if kept.exists() else {}
    if content and ("methods" not in content or view in (TARGET, TARGET + OF_CUBES, LIKELIHOOD)):
        return
    start, before = time.monotonic(), content.get("seconds", 0)

    def keep(content: dict[str, Any]) -> None:
        write_json(kept, content | {"seconds": before + round(time.monotonic() - start), "commit": commit()})

    worlds = check_config(CONFIG, read_toml(CONFIG)).worlds
    assert worlds is not None
    names, number = worlds.names, worlds.names.index(held_out) if held_out in EACH else 2
    if view in VIEWS:
        alone = opened_cubes(path, out, SMALL[0], view)
        ask(opened_cubes(path, out, held_out, view), held_out, methods, keep, content, vectors=False, alone=alone)
        return
    if view == "match":
        keep({"boxes": nearest(opened_cubes(path, out, held_out, "npe-power"), number)})
        return
    if view == LIKELIHOOD:
        keep(ask_likelihood(opened_cubes(path, out, held_out, "npe-power"), held_out))
        return
    bank = Bank.open(path)
    targets = parse_targets([TARGET], (), bank.observables)
    if view == TARGET + OF_CUBES:
        run = opened_cubes(path, out, held_out, "npe-both")
        keep(ask_target(run, held_out, targets, target_values(bank, bank.rows(), targets)))
        return
    rows, values = summaries(bank, out)
    if view == "power":
        ask(opened(rows, values[:, :BINS], names, out, held_out, read="power"), held_out, methods, keep, content)
    elif view == "ceiling":
        keep(ceiling(rows, values, number))
    elif view == TARGET:
        of_rows = target_values(bank, rows, targets)
        keep(ask_target(opened(rows, values, names, out, held_out), held_out, targets, of_rows))
    elif name == "odds":
        run = opened(rows, values, names, out, names[number])
        keep(odds(run, *question(run.bank.rows(), number)))
    else:
        ask(opened(rows, values, names, out, held_out), held_out, methods, keep, content)


if __name__ == "__main__":
    main()
