r"""How well are Halpha and [OIII] separated in the setting of Moriwaki & Yoshida 2021, and by what?

    python -m benchmarks.separation --out DIR --parts setting              is it their setting? ten minutes of one core
    python -m benchmarks.separation --out DIR --parts table                networks and table: an hour of one core
    python -m benchmarks.separation --out DIR --parts table --case all-sky --kinds mean
    python -m benchmarks.separation --out DIR --parts table --pixels 256 --maps 30000 --steps 3750 --batch 8 \
        --width 64 --widest 512 --workers 16                               an epoch of the papers' maps, on a GPU

Slabs of 102.4 arcmin with lines 20 times as bright as published luminosity functions allow, smoothed by a Gaussian of
1.2 arcmin (standard deviation). At pixels of 0.8 arcmin (`--pixels 128`, the default) smoothed maps lose nothing.

setting    Peaks, chance, P(k) and brightness of the mocks beside the published ones.
table      Trains each kind of network on the same maps and scores all methods on held-out realisations. Each method
           has one threshold for each line, chosen on validation maps, which no score uses: where the harmonic mean
           of precision and recall is largest, and the lowest at which the precision is that of `WANTED`. A picture
           of the first scored map lies beside.
continuum  What galaxies without lines and their removal do to a Wiener filter in the noise of the deep fields.

What is there already is not made again.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import record
from benchmarks.separation_setting import SURVEYS, separation_step
from benchmarks.separation_tables import HEIGHT, RADIUS, MapsByMethod, line_figures, peaks_of, printed
from eorinfer.core.seeds import WorkStream, stream_seed
from eorinfer.figures.separation import separation_figure
from eorinfer.figures.style import write_figure
from eorinfer.run.line_separation import Separation
from eorinfer.separation.apply import estimate, posterior
from eorinfer.separation.data import Lines, Pairs, split
from eorinfer.separation.model import Separator
from eorinfer.separation.peaks import count
from eorinfer.separation.wiener import WienerFilter
from eorinfer.settings.survey import SphereX
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import build_survey

#: Side of the maps in arcmin.
SIDE = 102.4
#: Seed of the noise of scored maps.
SCORES_SEED = 1
#: Wavenumbers per arcmin of the published P(k), and factor from the middle of the bins about them to the edge.
WAVENUMBERS, HALF = np.array([0.1, 0.16, 0.25, 0.4, 0.63, 1.0, 1.6]), 1.2
#: k^2 P / (2 pi mean^2) of the published maps, read to a tenth, and the brightness of their one public total over its
#: mean: from the notebooks of github.com/knmoriwaki/IM2IM.
PUBLISHED = {
    "ha": [0.104, 0.122, 0.153, 0.202, 0.214, 0.163, 0.036],
    "oiii": [0.081, 0.106, 0.115, 0.140, 0.140, 0.093, 0.025],
}
PERCENTILES = {1: 0.28, 50: 0.92, 99: 2.5, 99.9: 3.5}
#: Precision of the two lines for which the recall is asked.
WANTED = (0.82, 0.60)
#: Maps at once, draws of a map, and maps of one realisation.
BATCH, DRAWS, ROWS = 16, 8, 16
#: Name of the estimate of each kind of network.
NAMES = {"mean": "posterior mean", "cgan": "cGAN, no dropout", "flow-matching": "flow, mean"}
#: Function from observed maps and a seed to estimates of the lines by name.
Methods = Callable[[Tensor, int], dict[str, Tensor]]


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--case", choices=SURVEYS, default="noise-free")
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=["mean", "cgan"])
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--maps", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--widest", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        start = time.monotonic()
        name, figures = PARTS[part](arguments)
        record(name, figures, seconds=time.monotonic() - start)


def setting(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Compare the mocks with what is known of the published maps."""
    step = separation(arguments, "noise-free", "setting")
    rows = step.simulate()
    edges = np.stack([WAVENUMBERS / HALF, WAVENUMBERS * HALF], 1).ravel().tolist()
    cells, radius = (arguments.pixels, arguments.pixels), RADIUS * arguments.pixels / SIDE
    spectrum = PowerSpectrum(cells, (SIDE, SIDE), edges)
    total = step.bank.read("total", rows)[:, 0].astype(float)
    of_mean = total / total.mean((1, 2), keepdims=True)
    off = of_mean - 1
    figures: dict[str, Any] = {
        "maps": len(rows),
        "k_per_arcmin": WAVENUMBERS.tolist(),
        "total": {
            "sd_over_mean": [round(float(off.std()), 3), 0.477],
            "skewness": [round(float((off**3).mean() / off.std() ** 3), 2), 1.28],
            "percentiles": {str(p): [round(float(np.percentile(of_mean, p)), 2), x] for p, x in PERCENTILES.items()},
        },
    }
    for name in ("ha", "oiii"):
        maps = step.bank.read(name, rows)[:, 0]
        mean = float(maps.mean(dtype=float))
        own = spectrum(torch.from_numpy(maps))[:, ::2].numpy().mean(0) / mean**2
        dimensionless = WAVENUMBERS**2 * own / (2 * np.pi)
        threshold, peaks = HEIGHT * float(maps.std()), peaks_of(maps, radius)
        # Every map beside one of another realisation.
        other = np.roll(np.arange(len(rows)), ROWS)
        chance = count(peaks, [peaks[i] for i in other], radius, threshold, threshold)
        figures[name] = {
            "mean_nW_m2_sr": mean,
            "sd_over_mean": round(float(maps.std()) / mean, 3),
            "peaks_a_map": round(chance.true / len(rows), 1),
            "chance": round(chance.rates()["legacy_precision"], 3),
            "k2P_over_2pi_mean2": np.round(dimensionless, 3).tolist(),
            "over_published": np.round(dimensionless / PUBLISHED[name], 2).tolist(),
        }
        print(name, figures[name])
    print(figures["total"])
    return "separation_setting", figures


def table(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Train each kind and score every method."""
    networks: dict[str, Separator] = {}
    seconds: dict[str, float] = {}
    for kind in arguments.kinds:
        step = separation(arguments, arguments.case, kind)
        rows = step.simulate()
        networks[kind] = step.train()
        seconds[kind] = round(networks[kind].facts["seconds"])
        print(f"{kind}: {seconds[kind]} s of training by the clock", flush=True)
    parts = split(rows, step.settings.validation_fraction, step.settings.test_fraction)
    pairs = Pairs(build_survey(step.config.tables.survey, step.config.observable), step.config.observable.symmetry,
                  ["ha", "oiii"], step.spec.targets)  # fmt: skip
    chosen, scored = (
        apply(
            partial(estimates, networks),
            pairs,
            Lines(step.bank, some),
            stream_seed(SCORES_SEED, WorkStream.SEPARATION_SCORES, i),
        )
        for i, some in enumerate((parts.validation, parts.test))
    )
    figures: dict[str, Any] = {
        "case": arguments.case,
        "pixels": arguments.pixels,
        "steps": arguments.steps,
        "training_seconds": seconds,
        "maps": {"training": len(parts.training), "thresholds": len(parts.validation), "scored": len(parts.test)},
    }
    for i, name in enumerate(("ha", "oiii")):
        first, held_out = ({method: made[:, i] for method, made in some.items()} for some in (chosen, scored))
        figures[name] = line_figures(first, held_out, SIDE / arguments.pixels, ROWS, WANTED[i])
        print(printed(name, figures[name]))
    first_map = {method: made[0] for method, made in scored.items()}
    observed, true, image = first_map.pop("observed"), first_map.pop("true"), step.config.observable
    figure = separation_figure(observed, true, first_map, step.spec.lines, side=SIDE, unit=image.unit)
    write_figure(figure, arguments.out / f"{arguments.case}.png")
    return f"separation_2d_{arguments.case.replace('-', '_')}", figures


def continuum(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Score the Wiener filter with and without galaxies' continuum, of which a fit of each order is subtracted."""
    step = separation(arguments, "deep", "setting")
    parts = split(step.simulate(), step.settings.validation_fraction, step.settings.test_fraction)
    image = step.config.observable
    figures: dict[str, Any] = {}
    for name, table in {"none": None, **{f"order {n}": {"order": n} for n in (0, 1)}}.items():
        survey = build_survey(SphereX(field="deep", continuum=table), image)
        pairs = Pairs(survey, image.symmetry, ["ha", "oiii"], step.spec.targets, mix=True)
        training, generator = Lines(step.bank, parts.training), torch.Generator().manual_seed(1)
        numbers = np.arange(min(512, len(training)))
        wiener = WienerFilter(1, 2, image.cells, image.cell_size)
        wiener.fit(pairs(training.__getitems__(some.tolist())[0], generator, training=True)
                   for some in np.array_split(numbers, len(numbers) // BATCH))  # fmt: skip

        def filtered(observed: Tensor, _: int, wiener: WienerFilter = wiener) -> dict[str, Tensor]:
            return {"Wiener": wiener(observed)}

        chosen, scored = (apply(filtered, pairs, Lines(step.bank, some), 1) for some in (parts.validation, parts.test))
        left = survey(torch.zeros(BATCH, *image.shape), generator)
        figures[name] = {"rms_of_noise_and_residual": float(left.std(dim=(2, 3)).mean())}
        for i, line in enumerate(("ha", "oiii")):
            first, held_out = ({method: made[:, i] for method, made in some.items()} for some in (chosen, scored))
            figures[name][line] = line_figures(first, held_out, SIDE / arguments.pixels, ROWS, WANTED[i])
            print(name, printed(line, figures[name][line]))
    return "separation_continuum", figures


def apply(methods: Methods, pairs: Pairs, lines: Lines, seed: int) -> MapsByMethod:
    """Observe maps and apply methods to them: true lines and estimates (N, L, nx, ny) by name."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(lines), BATCH):
            (clean,) = lines.__getitems__(list(range(start, min(start + BATCH, len(lines)))))
            observed, true = pairs(clean, generator)
            parts.append({"true": true, **methods(observed, seed + start), "observed": observed.expand_as(true)})
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def estimates(networks: dict[str, Separator], observed: Tensor, seed: int) -> dict[str, Tensor]:
    """Give what each network makes of observed maps: its mean, and a draw where it makes draws; and a Wiener filter."""
    observed = observed.to("cuda" if torch.cuda.is_available() else "cpu")
    made: dict[str, Tensor] = {}
    for kind, network in networks.items():
        network.to(observed.device)
        made[NAMES[kind]] = estimate(network, observed)
        if kind != "mean":
            mean, draws = posterior(network, observed, DRAWS, seed)
            made |= {f"{kind}, a draw": draws[0]} | ({"cGAN, mean of draws": mean} if kind == "cgan" else {})
    made["Wiener"] = next(iter(networks.values())).wiener(observed)
    return {name: maps.cpu() for name, maps in made.items()}


def separation(arguments: argparse.Namespace, case: str, kind: str) -> Separation:
    """Set up a case and a kind of network; all share one bank."""
    return separation_step(
        arguments.out,
        f"{case}-{kind}",
        case,
        {
            "pixels": arguments.pixels,
            "pixel": SIDE / arguments.pixels,
            "box_length": 320.0,
            "cell": 3.0,
            "rows_per_realisation": ROWS,
        },
        {
            "kind": kind if kind in NAMES else "mean",
            "simulations": arguments.maps,
            "steps": arguments.steps,
            "batch_size": arguments.batch,
            "width": arguments.width,
            "widest": arguments.widest,
        },
        seed=1,
        workers=arguments.workers,
    )


PARTS = {"setting": setting, "table": table, "continuum": continuum}

if __name__ == "__main__":
    main()
