"""Does the third dimension help to separate lines? Cubes against their single channels, on the same mocks.

    python -m benchmarks.separation_cubes --out DIR                                   an hour of one core
    python -m benchmarks.separation_cubes --out DIR --case all-sky
    python -m benchmarks.separation_cubes --out DIR --cubes 3       with Halpha of the [OIII] that falls on cube A
    python -m benchmarks.separation_cubes --out DIR --realisations 40 --steps 0 --slice-steps 0      without networks
    python -m benchmarks.separation_cubes --out DIR --known                how far the lines of one galaxy agree

Light-cones with a cube A in which Halpha is at z = 1.3 and a cube B in which [OIII] is at the same redshifts: one
structure, in two lines, each among interlopers. The 3D network takes all cubes and finds Halpha of A and [OIII] of
B. A third cube, C, has Halpha of the galaxies whose [OIII] falls on A. Two networks of maps take single channels of
A, and of B, as one who has images alone. Lines 20 times as bright as published luminosity functions allow, smoothed by
1.2 arcmin, as in benchmarks.separation; thresholds of peaks are chosen on validation cubes. Beside them a Wiener
filter of cubes, one of channels, and a sparse fit of templates.
With `--known` cube A has no [OIII]: it is Halpha itself. What is then missed of [OIII] in B no better Halpha would
find, as the luminosities of a galaxy's lines scatter each by itself, and Halpha of nearer galaxies lies on B.
What is there already is not made again.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from benchmarks.arrays import ArrayBank, repeated
from benchmarks.record import record
from benchmarks.separation_setting import SIMULATOR, SURVEYS, separation_step
from benchmarks.separation_tables import MapsByMethod, line_figures, printed
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.progress import Lines as Told
from eorinfer.core.seeds import stream_seed
from eorinfer.figures.separation import separation_figure
from eorinfer.figures.style import write_figure
from eorinfer.run.line_separation import Separation
from eorinfer.separation.apply import estimate
from eorinfer.separation.data import Lines, Pairs, Split, Target, line_names, split
from eorinfer.separation.model import Separator, SeparatorSpec
from eorinfer.separation.training import prepare, train
from eorinfer.survey import build_survey
from simulators import Observable, Symmetry, build
from simulators.lim.mock import LimMock

#: Lines of cube A and cube B at one redshift.
FOUND = ("ha", "oiii")
#: Precision of the two lines for which the recall is asked.
WANTED = (0.88, 0.75)
#: Methods in the picture.
SHOWN = ("3D", "2D", "templates")
#: Cubes at once.
BATCH = 8
SEED = 1


class Stream(IntEnum):
    """Streams of the randomness of this script."""

    TRAINING = 2
    NOISE = 4


def main() -> None:
    """Simulate, train and score what lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--realisations", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--pixel", type=float, default=0.8, help="arcmin")
    parser.add_argument("--channels", type=int, default=11)
    parser.add_argument("--cubes", type=int, default=2)
    parser.add_argument("--case", choices=SURVEYS, default="noise-free")
    parser.add_argument("--steps", type=int, default=6000, help="of the network of cubes, in batches of 4; 0 for none")
    parser.add_argument("--slice-steps", type=int, default=1000, help="of each of maps, in batches of 16; 0 for none")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--known", action="store_true", help="take [OIII] away from cube A")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    mock = build(SIMULATOR | cubes_of(arguments))
    assert isinstance(mock, LimMock)
    if arguments.channels < (least := mock.offset):
        parser.error(f"--channels {arguments.channels}: the fit of templates needs {least}, from [OIII] to Halpha")
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    step = training(arguments)
    parts = split(step.simulate(), step.settings.validation_fraction, step.settings.test_fraction)
    if arguments.known:
        record_known(arguments, step, parts, start)
        return
    cubes = timed("cubes", step.train if arguments.steps else partial(untrained, step.spec, step.bank, parts))
    maps = [timed(f"channels of cube {'AB'[i]}", sliced, arguments, step, parts, i) for i in range(len(FOUND))]
    ratio = float(cubes.wiener.mean_lines[1].mean() / cubes.wiener.mean_lines[0].mean())
    others = partial(other_methods, maps, least, ratio)
    chosen, scored = (compared(cubes, step.bank, rows, others) for rows in (parts.validation, parts.test))
    figures = begun(arguments, parts)
    for i, name in enumerate(FOUND):
        first, held_out = (
            {method: as_maps(made[:, i])[:, 0] for method, made in some.items()} for some in (chosen, scored)
        )
        figures[name] = line_figures(first, held_out, arguments.pixel, arguments.channels, WANTED[i])
        print(printed(name, figures[name]))
    record(file_name(arguments), figures, seconds=time.monotonic() - start)
    observed, true = (scored.pop(name)[0] for name in ("observed", "true"))
    side, unit = 60 * step.config.observable.field_of_view, step.config.observable.unit
    shown = {name: made[0] for name, made in scored.items() if name in SHOWN}
    write_figure(
        separation_figure(observed, true, shown, cubes.spec.lines, side=side, unit=unit), arguments.out / "scores.png"
    )


def begun(arguments: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """Begin the figures of a record."""
    count = {"training": len(parts.training), "thresholds": len(parts.validation), "scored": len(parts.test)}
    return {"case": arguments.case, "cubes": count}


def file_name(arguments: argparse.Namespace) -> str:
    """Name the record."""
    more = f"_{arguments.cubes}_cubes" if arguments.cubes > 2 else ""
    return f"separation_3d_{arguments.case.replace('-', '_')}{more}"


def record_known(arguments: argparse.Namespace, step: Separation, parts: Split, start: float) -> None:
    """Train a network where cube A is Halpha itself, score it and a Wiener filter on [OIII] of B, and record."""
    names = [o.name for o in step.bank.observables]
    bank, rows = arrays_of(step.bank, Rows.concatenate([parts.training, parts.validation, parts.test]))
    interlopers = bank.arrays[FOUND[1]][:, 0].copy()
    for name in (names[0], FOUND[1]):
        bank.arrays[name][:, 0] -= interlopers
    n, m = len(parts.training), len(parts.validation)
    parts = Split(rows[:n], rows[n : n + m], rows[n + m :])
    make = partial(trained, arguments.out / "known", step.spec, bank, parts, SEED)
    separator = timed("cubes", make if arguments.steps else partial(untrained, step.spec, bank, parts))
    chosen, scored = (
        {method: as_maps(made[:, 1])[:, 0] for method, made in compared(separator, bank, held).items()}
        for held in (parts.validation, parts.test)
    )
    figures = begun(arguments, parts)
    figures[FOUND[1]] = line_figures(chosen, scored, arguments.pixel, arguments.channels, WANTED[1])
    print(printed(FOUND[1], figures[FOUND[1]]))
    record(f"{file_name(arguments)}_known", figures, seconds=time.monotonic() - start)


def cubes_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the keys of ``[simulator]`` beside those of the setting."""
    return {
        "geometry": "cubes",
        "pixels": arguments.pixels,
        "pixel": arguments.pixel,
        "channels": arguments.channels,
        "cubes": arguments.cubes,
        "rows_per_realisation": 1,
    }


def training(arguments: argparse.Namespace) -> Separation:
    """Set up the 3D network."""
    return separation_step(
        arguments.out,
        "cubes",
        arguments.case,
        cubes_of(arguments),
        {
            "kind": "mean",
            "simulations": arguments.realisations,
            "test_fraction": 0.2,
            "steps": arguments.steps or 1,
            "batch_size": 4,
            "width": arguments.width,
            "widest": 8 * arguments.width,
        },
        seed=SEED,
        workers=arguments.workers,
    )


def timed(title: str, make: Any, *arguments: Any) -> Separator:
    """A separator, and what it took, told."""
    start, used = time.monotonic(), time.process_time()
    separator: Separator = make(*arguments)
    print(f"{title}: {time.monotonic() - start:.0f} s, {time.process_time() - used:.0f} of one core", flush=True)
    for warning in separator.spec.facts.get("warnings", ()):
        print(f"{title}: {warning}")
    return separator


def channels_of(bank: Bank, rows: Rows, cube: int) -> tuple[ArrayBank, Rows]:
    """Every channel of one cube of a bank as a map, the channels of a cube one after the other, and a row for each."""
    maps = {o.name: as_maps(bank.read(o.name, rows)[:, cube]) for o in bank.observables}
    observables = tuple(one_channel(o, cube) for o in bank.observables)
    several = repeated(rows, len(next(iter(maps.values()))) // len(rows))
    return ArrayBank(bank.path, bank.fingerprint, observables, maps), several


def arrays_of(bank: Bank, rows: Rows) -> tuple[ArrayBank, Rows]:
    """Rows of a bank in memory."""
    arrays = {o.name: bank.read(o.name, rows) for o in bank.observables}
    return ArrayBank(bank.path, bank.fingerprint, bank.observables, arrays), repeated(rows, 1)


def as_maps(cubes: Any) -> Any:
    """Channels (n * M, 1, nx, ny) of cubes (n, nx, ny, M), arrays or tensors."""
    return cubes.swapaxes(2, 3).swapaxes(1, 2).reshape(-1, 1, *cubes.shape[1:3])


def as_cubes(maps: Tensor, channels: int) -> Tensor:
    """Undo `as_maps`."""
    return maps.view(-1, channels, *maps.shape[-2:]).movedim(1, -1)


def one_channel(cube: Observable, which: int) -> Observable:
    """A map of the same pixels as one of the cubes has."""
    return replace(
        cube,
        shape=(1, *cube.shape[1:3]),
        axes=cube.axes[:3],
        cell_size=cube.cell_size[:2],
        channels=cube.channels[which : which + 1],
        coordinates=(),
        symmetry=Symmetry((False, False), "all"),
    )


def sliced(arguments: argparse.Namespace, step: Separation, parts: Split, cube: int) -> Separator:
    """The network of the single channels of a cube: loaded, or trained on the channels of the same simulations."""
    folder = arguments.out / f"channels-{'ab'[cube]}"
    if (folder / "separator.json").exists():
        return Separator.load(folder)
    bank, rows = channels_of(step.bank, Rows.concatenate([parts.training, parts.validation]), cube)
    training, validation = rows[: (n := len(parts.training) * arguments.channels)], rows[n:]
    # Those that are looked at in training are the first ones: of all realisations.
    order = np.random.default_rng(1).permutation(len(validation))
    settings = step.settings.model_copy(update={"steps": arguments.slice_steps or 1, "batch_size": 16})
    names = line_names(bank.observables)
    spec = SeparatorSpec(bank.observables[0], tuple(Target(n, 0) for n in names), step.config.tables.survey, settings)
    divided = Split(training, validation[order], parts.test)
    if not arguments.slice_steps:
        return untrained(spec, bank, divided)
    return trained(folder, spec, bank, divided, stream_seed(SEED, Stream.TRAINING, cube))


def trained(folder: Path, spec: SeparatorSpec, bank: ArrayBank, parts: Split, seed: int) -> Separator:
    """Load a separator of arrays from a folder, or train it and keep it there."""
    if (folder / "separator.json").exists():
        return Separator.load(folder)
    separator = train(
        spec,
        bank,  # type: ignore[arg-type]
        parts,
        build_survey(spec.survey, spec.observable),
        folder=folder.with_name(f"{folder.name}-checkpoints"),
        seed=seed,
        progress=Told(),
    )
    separator.save(folder)
    return separator


def untrained(spec: SeparatorSpec, bank: Bank | ArrayBank, parts: Split) -> Separator:
    """Make a separator of which only the Wiener filter is used."""
    separator, lines = Separator(spec), Lines(bank, parts.training)  # type: ignore[arg-type]
    survey = build_survey(spec.survey, spec.observable)
    pairs = Pairs(survey, spec.observable.symmetry, lines.names, spec.targets, spec.settings.mix)
    prepare(separator, lines, pairs, SEED)
    return separator


def compared(
    cubes: Separator, bank: Bank | ArrayBank, rows: Rows, others: Callable[[Tensor], dict[str, Tensor]] | None = None
) -> MapsByMethod:
    """Apply methods to the same observed cubes: lines (N, L, *cells) by name.

    Parameters
    ----------
    cubes
        Separator of cubes, of which the network, if it is trained, and the Wiener filter count.
    bank, rows
        Clean lines.
    others
        Turns observed cubes (B, C, *cells) into lines (B, L, *cells) by further methods.
    """
    lines, image = Lines(bank, rows), bank.observables[0]  # type: ignore[arg-type]
    pairs = Pairs(build_survey(cubes.spec.survey, image), image.symmetry, lines.names, cubes.spec.targets)
    generator = torch.Generator().manual_seed(stream_seed(SEED, Stream.NOISE))
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            (clean,) = lines.__getitems__(list(range(start, min(start + BATCH, len(rows)))))
            observed, true = pairs(clean, generator)
            made = {"true": true}
            if "history" in cubes.facts:
                made["3D"] = estimate(cubes, observed)
            made["Wiener 3D"] = cubes.wiener(observed)
            parts.append(made | (others(observed) if others else {}))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def other_methods(maps: list[Separator], offset: int, ratio: float, observed: Tensor) -> dict[str, Tensor]:
    """Apply separators of maps channel by channel, and the fit of templates; see `by_templates`."""

    def by_channel(of: Callable[[Separator, Tensor], Tensor]) -> Tensor:
        found = []
        for i, (separator, name) in enumerate(zip(maps, FOUND, strict=True)):
            made = of(separator, as_maps(observed[:, i]))[:, separator.spec.lines.index(name)]
            found.append(as_cubes(made, observed.shape[-1]))
        return torch.stack(found, 1)

    made = {}
    if all("history" in separator.facts for separator in maps):
        made["2D"] = by_channel(estimate)
    return made | {
        "Wiener 2D": by_channel(lambda separator, x: separator.wiener(x)),
        "templates": by_templates(observed, offset, ratio),
        "observed": observed[:, [0, 1]],
    }


def by_templates(observed: Tensor, offset: int, ratio: float) -> Tensor:
    """Fit the spectrum of every pixel by galaxies of each redshift, as few as there are, as Cheng et al. 2020 do.

    A template (arXiv 2005.05341) has Halpha in the channel of its redshift and [OIII] `offset` channels before, in the
    mean ratio of the lines. Amplitudes are the non-negative ones of least squares, most of which are zero.

    Parameters
    ----------
    observed
        (B, C, nx, ny, S) cubes A, B and those that follow A, of one instrument: each begins `offset` <= S channels
        behind the one before it, B the first.
    offset
        Channels by which B begins before A.
    ratio
        Mean intensity of [OIII] over that of Halpha.
    """
    first, second, *others = observed.unbind(1)
    rising = [second, first, *others]
    spectra = torch.cat([*(cube[..., :offset] for cube in rising[:-1]), rising[-1]], -1).double().numpy()
    channels = spectra.shape[-1]
    design = np.eye(channels, channels + offset) + ratio * np.eye(channels, channels + offset, offset)
    flat = spectra.reshape(-1, channels)
    found = np.stack([nnls(design, one)[0] for one in flat])[:, offset : offset + first.shape[-1]]
    halpha = torch.from_numpy(found.reshape(*first.shape[:-1], -1)).to(observed)
    return torch.stack([halpha, ratio * halpha], 1)


if __name__ == "__main__":
    main()
