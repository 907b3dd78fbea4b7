"""How well does the image flow do on 21cm maps?

    python -m benchmarks.imageflow.maps_21cm --out DIR         an hour and more

Boxes, survey and condition of examples/image_flow.toml: 21cmFAST at z = 9, slices of 32² cells of 4 Mpc, 1 mK of noise,
conditioned on the neutral fraction of the slice; a fifth of the boxes is held out. Three flows are trained on the same
maps: the multiscale flow, a diffusion, and the isotropic flow. Printed are

bits        -log2 p(x | y) a cell on all slices of the held-out boxes; errors are those of a mean over boxes.
statistics  in bins of the neutral fraction, of maps made at the very neutral fractions of as many real ones: the
            largest and rms deviation of P(k) over 0.1 < k < 0.785 / Mpc (Nyquist), the largest difference of the
            cumulative distributions of the cells, the bispectrum (equilateral and squeezed) and the mean free path in
            ionised regions (tools21cm; below 5 mK). Beside each: its sampling error, from a bootstrap over boxes and
            over made maps. Against held-out boxes and, with a smaller error, against all boxes.
            DIR/field_21cm.png shows some.
posterior   of the neutral fraction of 200 held-out maps, spread evenly over it: rms error, how often the truth is
            in the central 68 and 95%, and ln q at the truth; beside a CNN with Gaussian errors and NPE that were
            trained on the same maps. Also on maps with half and twice the noise that training saw.
alarm       whether ln p by scale says that maps have other noise, are of another source model (21cmFAST's Park19
            template, with spin temperature and recombinations) or have a residual of foregrounds: see alarms.py.
"""

import argparse
import math
import os
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks.imageflow.alarms import alarms
from benchmarks.imageflow.neutral_fraction import posteriors
from benchmarks.imageflow.slices import Maps, observed
from eorinfer import Run
from eorinfer.core.progress import for_terminal
from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import subplots
from eorinfer.imageflow.haar import join, split
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.multiscale import MultiscaleFlow
from eorinfer.imageflow.training import ImageFlowTrainer
from eorinfer.run.config import check_config
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.power import build_power_spectrum

CONFIG = Path(__file__).parents[2] / "examples" / "image_flow.toml"
SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: Maps of each bin, bootstrap draws, and where a cell counts as ionised, in mK.
MAPS, DRAWS, IONISED = 200, 100, 5.0
#: Shells of the bispectrum in 1/Mpc: of its first wavenumber, and of the other two.
TRIANGLES = {"equilateral": ((0.2, 0.3), (0.2, 0.3)), "squeezed": ((0.04, 0.11), (0.35, 0.5))}
Array = NDArray[np.float64]


def kinds(settings: ImageFlowSettings) -> dict[str, ImageFlowSettings]:
    """List the flows to compare, by their settings."""
    isotropic = {
        "kind": "isotropic",
        "batch_size": 64,
        "convolutions": 5,
        "knots": 12,
        "learning_rate": 5e-3,
        "steps": 1500,
    }
    diffusion = ImageFlowSettings(kind="diffusion", condition=settings.condition, image=settings.image)
    return {
        "multiscale": settings,
        "diffusion": diffusion,
        "isotropic": settings.model_copy(update=isotropic),
    }


def main() -> None:
    """Train the flows that the folder does not have, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bank, the flows and the picture")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    run = Run(check_config(CONFIG, tomllib.loads(CONFIG.read_text())), out, for_terminal())
    run.simulate()
    settings = run.config.tables.image_flow
    flows = {kind: trained(run, out / kind, of_kind) for kind, of_kind in kinds(settings).items()}
    held_out, everything = (observed(run, only=only) for only in (True, False))
    bits(flows, held_out)
    for name, real, some in (("held-out", held_out, ["multiscale"]), ("all", everything, list(flows))):
        print(f"\n21cm statistics against {name} boxes: largest (rms) deviation, and in brackets its sampling error")
        statistics({kind: flows[kind] for kind in some}, real)
    redrawn_statistics(flows["multiscale"], everything)
    figure(flows["multiscale"], everything, out / "field_21cm.png")
    alarms(run, flows["multiscale"], out)
    posteriors(run, {kind: flows[kind] for kind in ("multiscale", "isotropic")}, held_out, out)


def trained(run: Run, folder: Path, settings: ImageFlowSettings) -> ImageFlow:
    """A flow on the run's first round, from its folder where it is there."""
    if (folder / "field.json").exists():
        return ImageFlow.load(folder)
    config, context = run.config, run.context
    rows = run.training_rows(run.observe())
    trainer = ImageFlowTrainer(
        config.prior,
        config.observable,
        config.tables.survey,
        context.survey,
        settings,
        config.tables.training.validation_fraction,
    )
    start = time.process_time()
    flow = trainer.train(context.bank, rows, folder=folder.with_suffix(".fit"), seed=1, progress=run.progress)
    flow = replace(flow, facts={**flow.facts, "seconds": time.process_time() - start})
    flow.save(folder)
    return flow


@torch.no_grad()
def bits(flows: dict[str, ImageFlow], maps: Maps) -> None:
    """Bits a cell, all and by scale, and the difference to the first."""
    print("\n21cm: bits a cell on held-out boxes; less those of the multiscale flow; CPU seconds of training")
    first: Array | None = None
    for kind, flow in flows.items():
        scales = torch.cat(
            [flow.network.log_prob_scales(x, y) for x, y in zip(maps.x.split(64), maps.y.split(64), strict=True)]
        )
        a_map = -(scales / math.log(2) / maps.x[0].numel()).numpy()
        of_box = np.array([a_map[maps.box == b].sum(1).mean() for b in np.unique(maps.box)])
        first = of_box if first is None else first
        parts = " + ".join(f"{part:.3f}" for part in a_map.mean(0))
        print(
            f"{kind:10s} {of_box.mean():.4f} +- {_error(of_box):.4f} ({parts}); {(of_box - first).mean():+.4f} +- "
            f"{_error(of_box - first):.4f}; {flow.facts['seconds']:.0f} s",
            flush=True,
        )


def _error(values: Array) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def figure(flow: ImageFlow, real: Maps, file: Path) -> None:
    """A row for each neutral fraction: three real maps of different boxes, three that are made, P(k) and the cells."""
    spectrum = build_power_spectrum(flow.observable, PowerSpectrumSettings(bins=10))
    drawing, axes = subplots(len(SHOWN), 8, figsize=(13.5, 8.6), width_ratios=[*(1,) * 6, 1.5, 1.5])
    for number, (row, target) in enumerate(zip(axes, SHOWN, strict=True)):
        rng = np.random.default_rng(11)
        near = np.flatnonzero(np.abs(real.y[:, 0].numpy() - target) < 0.05)
        some = real[rng.permutation(near)[:MAPS]]
        made = torch.from_numpy(flow.sample(some.y.numpy(), seed=12))
        firsts = np.sort(np.unique(some.box, return_index=True)[1])[:3]
        pictures = [("real", some.x[i, 0]) for i in firsts] + [("generated", made[i, 0]) for i in firsts]
        for axis, (name, picture) in zip(row, pictures, strict=False):
            axis.imshow(picture.T, origin="lower", vmin=-3, vmax=30)
            axis.set_xticks([])
            axis.set_yticks([])
            if number == 0:
                axis.set_title(name, fontsize=9)
        row[0].set_ylabel(rf"$\bar x_{{\rm HI}} = {target:g}$", fontsize=9)
        for name, maps, colour in (("real", some.x, "black"), ("generated", made, COLOURS[0])):
            style: dict[str, Any] = {"color": colour, "lw": 1.3, "ls": "--" if name == "real" else "-", "label": name}
            row[6].loglog(spectrum.k, spectrum(maps)[:, 0].mean(0), **style)
            row[7].stairs(*np.histogram(maps.numpy(), np.linspace(-4, 32, 60), density=True), **style)
        power = spectrum(some.x)[:, 0].numpy()
        spread = _spread(power, power, some.box, rng)
        row[6].fill_between(spectrum.k, power.mean(0) * (1 - spread), power.mean(0) * (1 + spread), color="0.85")
        for axis in row[6:]:
            axis.tick_params(labelsize=6)
            axis.minorticks_off()
    axes[0, 6].legend(frameon=False, fontsize=7)
    axes[0, 6].set_title("$P(k)$, mK² Mpc²", fontsize=9)
    axes[0, 7].set_title("cells, mK", fontsize=9)
    axes[-1, 6].set_xlabel("$k$, 1/Mpc", fontsize=8)
    drawing.tight_layout(pad=0.4)
    drawing.savefig(file, dpi=100)


# -- statistics of what is made --------------------------------------------------------------------


def statistics(flows: dict[str, ImageFlow], real: Maps) -> None:
    """A line for each bin of the neutral fraction and each flow."""
    spectrum = build_power_spectrum(next(iter(flows.values())).observable, PowerSpectrumSettings(bins=8, k_min=0.1))
    measures: dict[str, Callable[[torch.Tensor], Array]] = {
        "P(k)": lambda x: spectrum(x)[:, 0].numpy(),
        "bispectrum": lambda x: np.stack([bispectrum(x[:, 0].numpy(), *t) for t in TRIANGLES.values()], axis=1),
        "bubbles": lambda x: np.array([mean_free_path(one) for one in x[:, 0].numpy()])[:, None],
    }
    for low, high in pairwise(EDGES):
        rng = np.random.default_rng(11)
        inside = np.flatnonzero((real.y[:, 0] >= low) & (real.y[:, 0] < high))
        some = real[np.sort(rng.permutation(inside)[:MAPS])]
        theirs = {name: measure(some.x) for name, measure in measures.items()}
        print(f"x_HI {low:.1f}-{high:.1f}, {len(some.x)} maps of {len(np.unique(some.box))} boxes")
        for kind, flow in flows.items():
            made = torch.from_numpy(flow.sample(some.y.numpy(), seed=12))
            texts = []
            for name, measure in measures.items():
                mine = measure(made)
                off = np.nanmean(mine, 0) / np.nanmean(theirs[name], 0) - 1
                spread = _spread(mine, theirs[name], some.box, rng)
                if name == "P(k)":
                    texts.append(
                        f"P(k) {np.abs(off).max():.0%} ({_rms(off):.0%}) [{spread.max():.0%} ({_rms(spread):.0%})], at "
                        f"most {(np.abs(off) / spread).max():.1f} sigma, {np.mean(np.abs(off) < 0.1):.0%} within 10%"
                    )
                else:
                    texts.append(f"{name} {', '.join(f'{o:+.0%} [{s:.0%}]' for o, s in zip(off, spread, strict=True))}")
            cells = (x.numpy().ravel() for x in (made, some.x))
            texts.append(f"cells {ks_2samp(*cells).statistic:.3f} [{_split(some, rng):.3f}]")
            print(f"  {kind:10s} {'; '.join(texts)}", flush=True)


def redrawn_statistics(flow: ImageFlow, real: Maps) -> None:
    """P(k) of maps whose finest scales are made anew, over that of the maps themselves."""
    spectrum = build_power_spectrum(flow.observable, PowerSpectrumSettings(bins=8, k_min=0.1))
    assert isinstance(flow.network, MultiscaleFlow)
    scales = len(flow.network.steps)
    print(f"\n21cm: P(k) off by, the finest 1 to {scales} scales made anew; k = {spectrum.k.numpy().round(2)}")
    for low, high in pairwise(EDGES):
        rng = np.random.default_rng(11)
        inside = np.flatnonzero((real.y[:, 0] >= low) & (real.y[:, 0] < high))
        some = real[np.sort(rng.permutation(inside)[:MAPS])]
        theirs = spectrum(some.x)[:, 0].numpy()
        for n in range(1, scales + 1):
            mine = spectrum(redrawn(flow, some, n))[:, 0].numpy()
            off, spread = mine.mean(0) / theirs.mean(0) - 1, _paired_spread(mine, theirs, some.box, rng)
            texts = ", ".join(f"{o:+.0%} [{e:.0%}]" for o, e in zip(off, spread, strict=True))
            print(f"x_HI {low:.1f}-{high:.1f}, {n}: {texts}", flush=True)


@torch.no_grad()
def redrawn(flow: ImageFlow, maps: Maps, scales: int) -> torch.Tensor:
    """Make the details of the finest scales of maps anew."""
    assert isinstance(flow.network, MultiscaleFlow)
    generator, steps = torch.Generator().manual_seed(12), flow.network.steps[:scales]
    parts = []
    for x, y in zip(maps.x.split(64), maps.y.split(64), strict=True):
        z, details = flow.network(x, y)[0].to(x.dtype), []
        for axes, _ in steps:
            z, old = split(z, axes)
            details.append(torch.randn(old.shape, generator=generator, dtype=old.dtype))
        for (axes, _), new in zip(reversed(steps), reversed(details), strict=True):
            z = join(z, new, axes)
        parts.append(flow.network.inverse(z, y))
    return torch.cat(parts)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _spread(made: Array, real: Array, box: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Standard deviation of the ratio of means under a bootstrap over made maps, and over boxes of real ones."""
    names = np.unique(box)
    ratios = []
    for _ in range(DRAWS):
        a = made[rng.integers(len(made), size=len(made))]
        b = np.concatenate([real[box == name] for name in rng.choice(names, len(names))])
        ratios.append(np.nanmean(a, 0) / np.nanmean(b, 0))
    return np.array(ratios).std(0)


def _paired_spread(made: Array, real: Array, box: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """The same where made maps belong to real ones, under a bootstrap over boxes."""
    names, ratios = np.unique(box), []
    for _ in range(DRAWS):
        some = np.concatenate([np.flatnonzero(box == name) for name in rng.choice(names, len(names))])
        ratios.append(made[some].mean(0) / real[some].mean(0))
    return np.array(ratios).std(0)


def _split(maps: Maps, rng: np.random.Generator) -> float:
    """How far the cells of one half of the boxes are from those of the other, the median of ten splits."""
    names, found = np.unique(maps.box), []
    for _ in range(10):
        half = np.isin(maps.box, rng.permutation(names)[: len(names) // 2])
        found.append(ks_2samp(*(maps.x[w].numpy().ravel()[::7] for w in (half, ~half))).statistic)
    return float(np.median(found))


def bispectrum(maps: Array, first: tuple[float, float], others: tuple[float, float], cell: float = 4.0) -> Array:
    """Mean over triangles of modes of Re(a b c), one in the first shell and two in the other, for maps (n, N, N)."""
    k = 2 * np.pi * np.fft.fftfreq(maps.shape[-1], cell)
    length = np.hypot(k[:, None], k[None])
    modes = np.fft.fft2(maps - maps.mean((1, 2), keepdims=True))
    a, b = (np.fft.ifft2(modes * ((length >= low) & (length < high))).real for low, high in (first, others))
    return (a * b * b).mean((1, 2))


def mean_free_path(image: Array, iterations: int = 1000) -> float:
    """Mean length in Mpc of lines from random ionised cells to the next neutral ones; NaN where there are none."""
    with np.errstate():  # importing tools21cm switches numpy's warnings off for everyone
        import tools21cm

    if not (image < IONISED).any():
        return math.nan
    np.random.seed(13)  # noqa: NPY002 - it draws from numpy's global state
    settings = {"boxsize": 128.0, "iterations": iterations, "verbose": False}
    length, density = tools21cm.mfp(image, xth=IONISED, upper_lim=True, **settings)
    # What it calls the density is length times density, and its first length is zero.
    return float(density[1:].sum() / (density[1:] / length[1:]).sum())


if __name__ == "__main__":
    main()
