"""Which kind of separator makes draws that are those of a posterior? At equal CPU time, in the setting of the papers.

    python -m benchmarks.separation_draws --out DIR                                  all: two core-hours
    python -m benchmarks.separation_draws --out DIR --kinds flow-matching --seeds 1
    python -m benchmarks.separation_draws --out DIR --parts speed

draws    Trains each kind for about the same CPU time, see STEPS, and scores it on held-out maps: P(k) of the draws over
         the true one above the beam, mean intensity, ranks of the truth, sum, and r and rmse of the posterior mean.
         Lines as in examples/separation.toml, on maps of 64 x 64 pixels of 0.8 arcmin, a quarter of the field, which
         are those of the first seed that a folder was given.
speed    CPU time of a step of each network, validation included, beside a plain step of pix2pix.

Trained separators and scores that are there already are kept, so a stopped run goes on. Settings were chosen by the
loss on validation maps; the held-out maps are those of the split's test.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.record import record
from benchmarks.separation_setting import SURVEYS, separation_step
from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import Advance, Silent
from eorinfer.networks.discriminator import Discriminator
from eorinfer.networks.unet import UNet
from eorinfer.run.line_separation import Separation
from eorinfer.run.separation_scores import ScoreSettings, score_separators
from eorinfer.separation.data import Lines, Pairs, split
from eorinfer.separation.model import Separator
from eorinfer.separation.regression import STAGES, Material, train_flow, train_mean
from eorinfer.separation.training import prepare, train
from eorinfer.survey import build_survey

#: Steps of each kind for one of the GAN. They took as long by earlier timings (207 ms; 72 to 95 ms). By those of the
#: records 1.6 steps of the flow do, 2.3 of the mean: `separation_draws` was made with `--steps 2000` for the flow, and
#: 2500 for the GAN.
STEPS = {"flow-matching": 2.0, "mean": 2.4, "cgan": 1.0}
#: Steps of a stage that is timed: as of the flow, and of the mean, in a training of 4,000.
SHARE = 50


def main() -> None:
    """Run the parts asked for, and record their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=("draws", "speed"), default=["draws", "speed"])
    parser.add_argument("--kinds", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=["noise-free"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--maps", type=int, default=2600, help="simulations, those for validation and test included")
    parser.add_argument("--steps", type=int, default=900, help="of the cGAN; the others have STEPS times as many")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if "draws" in arguments.parts:
        draws(arguments)
    if "speed" in arguments.parts:
        start = time.monotonic()
        record("separation_speed", speed(arguments), seconds=time.monotonic() - start)


def draws(arguments: argparse.Namespace) -> None:
    """Train and score every kind, and record all that is there after each."""
    start = time.monotonic()
    for survey in arguments.surveys:
        for seed in arguments.seeds:
            for kind in arguments.kinds:
                one(arguments, survey, kind, seed)
                runs = {path.parent.name: read_json(path) for path in sorted(arguments.out.glob("*/figures.json"))}
                figures = {"pixels": 64, "pixel_arcmin": 0.8, "simulations": arguments.maps, "runs": runs}
                record("separation_draws", figures, seconds=time.monotonic() - start)


def one(arguments: argparse.Namespace, survey: str, kind: str, seed: int) -> None:
    """Train and score one kind with one seed."""
    folder = arguments.out / f"{survey}-{kind}-{seed}"
    if (folder / "figures.json").exists():
        return
    step = training(arguments, survey, kind, seed)
    step.simulate()
    # What a stopped training had taken is not known.
    resumed = any(folder.glob("checkpoints-*"))
    used = time.process_time()
    separator = step.train()
    taken = time.process_time() - used
    print(f"\n{folder.name}: {taken:.0f} CPU seconds of training")
    for warning in separator.spec.facts["warnings"]:
        print(f"{folder.name}: {warning}")
    used = time.process_time()
    settings = ScoreSettings(Bank.open(arguments.out / "bank"), Separator.load(folder / "separator").spec.survey)
    print(score_separators(folder / "separator", settings, folder), flush=True)
    scores = read_json(folder / "scores.json")
    write_json(
        folder / "figures.json",
        {
            "training_cpu_seconds": None if resumed else round(taken),
            "scoring_cpu_seconds": round(time.process_time() - used),
            "steps": separator.spec.settings.steps,
            "sureness": separator.spec.facts["sureness"],
            "maps": scores["maps"],
            "k_per_mpc": scores["k"],
            "of_draws": scores.get("of_draws"),
            "mean_r": {line: found["spectra"]["network"]["correlation"] for line, found in scores["lines"].items()},
            "mean_rmse": {line: found["rmse"]["network"] for line, found in scores["lines"].items()},
            "legacy_peaks_3_sigma": {
                line: {
                    method: [round(p["legacy_precision"], 3), round(p["legacy_recall"], 3)]
                    for method, peaks in found["peaks"].items()
                    for p in peaks
                    if p["of"] == "map" and p["sigmas"] == 3.0
                }
                for line, found in scores["lines"].items()
            },
        },
    )


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure CPU seconds of a step of each network, beside a plain step of pix2pix before and after."""
    step = training(arguments, "noise-free", "flow-matching", 1)
    rows = split(step.simulate(), 0.1, 0.1)
    lines, validation = Lines(step.bank, rows.training), Lines(step.bank, rows.validation[:128])
    survey = build_survey(step.config.tables.survey, step.config.observable)
    pairs = Pairs(survey, step.spec.observable.symmetry, lines.names, step.spec.targets, step.settings.mix)
    separator = Separator(step.spec)
    prepare(separator, lines, pairs, 1)
    of_gan = step.settings.model_copy(update={"kind": "cgan", "steps": STAGES * SHARE})
    ours: dict[str, float] = {}
    plain = [plain_step(step, SHARE)]
    for name in ("mean", "flow", "cgan"):
        clock = Clock()
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder, suppress(Enough):
            if name == "cgan":
                spec = replace(step.spec, settings=of_gan, facts={})
                train(spec, step.bank, rows, survey, folder=Path(folder), seed=1, progress=clock)
            else:
                material = Material(lines, validation, pairs, Path(folder), 1, clock)
                (train_mean if name == "mean" else train_flow)(separator, material, STAGES * SHARE)
        ours[name] = float(np.mean(np.diff(clock.times))) / SHARE
    plain.append(plain_step(step, SHARE))
    seconds = float(np.mean(plain))
    found: dict[str, Any] = {"plain_cpu_ms": [round(1e3 * x) for x in plain]}
    for name, one_step in ours.items():
        found[name] = {"cpu_ms": round(1e3 * one_step), "times_as_fast_as_plain": round(seconds / one_step, 2)}
        print(f"{name}: {1e3 * one_step:.0f} CPU ms a step, {seconds / one_step:.2f} times as fast as plain pix2pix")
    return found


class Enough(Exception):
    """Enough stages were timed."""


class Clock(Silent):
    """Notes the CPU time at the end of each stage, and ends a training after five: one in four has a validation."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Tell nothing."""
        yield self._note

    def _note(self, n: int, note: str) -> None:
        self.times.append(time.process_time())
        if len(self.times) == 5:
            raise Enough


def plain_step(trainer: Separation, steps: int) -> float:
    """Measure the CPU seconds of a step of pix2pix as it is usually written: our networks, one layout, fp32, Adam."""
    spec, settings = trainer.spec, trainer.settings
    size: dict[str, Any] = {"width": settings.width, "widest": settings.widest}
    inputs, outputs = spec.observable.shape[0], len(spec.targets)
    generator = UNet(inputs, outputs, spec.strides, spec.periodic, dropout=settings.dropout, **size)
    discriminator = Discriminator(inputs + outputs, spec.strides, spec.periodic, **size)
    for network in (generator, discriminator):
        network._layout = torch.contiguous_format  # as a network is that nobody has laid out
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
    optimizers = [torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    random = torch.Generator().manual_seed(1)
    source = torch.randn(settings.batch_size, inputs, *spec.observable.cells)
    target = torch.randn(settings.batch_size, outputs, *spec.observable.cells)
    times = []
    for _ in range(steps):
        times.append(time.process_time())
        made = generator(source, random)
        real, fake = discriminator(source, target), discriminator(source, made.detach())
        loss = (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))) / 2
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        discriminator.requires_grad_(False)
        logits = discriminator(source, made)
        loss = bce(logits, torch.ones_like(logits)) + 100 * F.l1_loss(made, target)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        loss.item()
    return float(np.median(np.diff(times)))


def training(arguments: argparse.Namespace, survey: str, kind: str, seed: int) -> Separation:
    """Set up one training; all share a bank."""
    return separation_step(
        arguments.out,
        f"{survey}-{kind}-{seed}",
        survey,
        {"pixels": 64, "pixel": 0.8, "box_length": 240.0, "cell": 4.0, "rows_per_realisation": 12},
        {
            "kind": kind,
            "simulations": arguments.maps,
            "steps": round(STEPS[kind] * arguments.steps),
            "width": 16,
            "widest": 128,
            "validation_fraction": 0.1,
            "test_fraction": 0.13,
        },
        seed=seed,
        workers=1,
    )


if __name__ == "__main__":
    main()
