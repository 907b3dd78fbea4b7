"""Which kind of separator makes draws that are those of a posterior? At equal CPU time, in the setting of the papers.

    python -m benchmarks.separation_draws --out DIR                                  all: two core-hours
    python -m benchmarks.separation_draws --out DIR --kinds flow-matching --seeds 1
    python -m benchmarks.separation_draws --out DIR --parts speed

draws    Trains each kind for the same CPU time and scores it on held-out maps: P(k) of the draws over the true one
         above the beam, mean intensity, ranks of the truth, sum, and r and rmse of the posterior mean. Lines as in
         examples/separation.toml, on maps of 64 x 64 pixels of 0.8 arcmin, a quarter of the field.
speed    CPU time of a step of the mean and of the flow, validation included, beside a plain step of pix2pix.

Trained separators and scores that are there already are kept, so a stopped run goes on. Settings were chosen by the
loss on validation maps; the held-out maps are those of the split's test.
"""

import argparse
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from benchmarks.record import record
from benchmarks.separation import Clock, Enough, plain_step
from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json, write_json
from eorinfer.core.progress import Lines
from eorinfer.run.config import load_config
from eorinfer.run.line_separation import Separation
from eorinfer.run.separation_scores import ScoreSettings, score_separators
from eorinfer.separation.data import Lines as CleanLines
from eorinfer.separation.data import Pairs, split
from eorinfer.separation.model import Separator
from eorinfer.separation.regression import STAGES, Material, train_flow, train_mean
from eorinfer.separation.training import prepare
from eorinfer.survey import build_survey

#: Steps of each kind that take about as long as one step of the GAN, by earlier timings (207 ms; 72 to 95 ms).
STEPS = {"flow-matching": 2.0, "mean": 2.4, "cgan": 1.0}
#: Steps between two validations whose time is measured: those of the flow, and of the mean, in a training of 4,000.
SHARE = 50
#: Noise: none, or that of all-sky maps.
SURVEYS: dict[str, dict[str, Any]] = {
    "noise-free": {"kind": "none"},
    "all-sky": {"kind": "spherex", "field": "all-sky"},
}


def main() -> None:
    """Run the parts asked for, and record their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=("draws", "speed"), default=["draws", "speed"])
    parser.add_argument("--kinds", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=["noise-free"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--maps", type=int, default=2600, help="simulations, those for validation and test included")
    parser.add_argument("--steps", type=int, default=900, help="of the cGAN; the others take as long")
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
    step = Separation(load_config(config(arguments, survey, kind, seed), "separation"), folder, Lines())
    step.simulate()
    # What a stopped training had taken is not known.
    resumed = any(folder.glob("checkpoints-*"))
    used = time.process_time()
    separator = step.train()
    training = time.process_time() - used
    print(f"\n{folder.name}: {training:.0f} CPU seconds of training")
    for warning in separator.spec.facts["warnings"]:
        print(f"{folder.name}: {warning}")
    used = time.process_time()
    settings = ScoreSettings(Bank.open(arguments.out / "bank"), Separator.load(folder / "separator").spec.survey)
    print(score_separators(folder / "separator", settings, folder), flush=True)
    scores = read_json(folder / "scores.json")
    write_json(
        folder / "figures.json",
        {
            "training_cpu_seconds": None if resumed else round(training),
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
    path = config(arguments, "noise-free", "flow-matching", 1, name="speed")
    trainer = Separation(load_config(path, "separation"), arguments.out / "speed", Lines())
    rows = split(trainer.simulate(), 0.1, 0.1)
    training, validation = CleanLines(trainer.bank, rows.training), CleanLines(trainer.bank, rows.validation[:128])
    spec, survey = trainer.spec, build_survey(trainer.config.tables.survey, trainer.config.observable)
    pairs = Pairs(survey, spec.observable.symmetry, training.names, spec.targets, trainer.settings.mix)
    separator = Separator(spec)
    prepare(separator, training, pairs, 1)
    plain = [plain_cpu(trainer, SHARE)]
    ours = {}
    for name, train in (("mean", train_mean), ("flow", train_flow)):
        clock = CpuClock()
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder, suppress(Enough):
            train(separator, Material(training, validation, pairs, Path(folder), 1, clock), STAGES * SHARE)
        ours[name] = float(np.median(np.diff(clock.times))) / SHARE
    plain.append(plain_cpu(trainer, SHARE))
    seconds = float(np.mean(plain))
    found: dict[str, Any] = {"plain_cpu_ms": [round(1e3 * x) for x in plain]}
    for name, one_step in ours.items():
        found[name] = {"cpu_ms": round(1e3 * one_step), "times_as_fast_as_plain": round(seconds / one_step, 2)}
        print(f"{name}: {1e3 * one_step:.0f} CPU ms a step, {seconds / one_step:.2f} times as fast as plain pix2pix")
    return found


def plain_cpu(trainer: Separation, steps: int) -> float:
    """Measure the CPU seconds of a plain step of pix2pix."""
    used = time.process_time()
    plain_step(trainer, steps, "cpu")
    return (time.process_time() - used) / steps


class CpuClock(Clock):
    """Notes the CPU time at the end of each stage, with its validation, and ends a training after the third."""

    def _note(self, n: int, note: str) -> None:
        self.times.append(time.process_time())
        if len(self.times) == 3:
            raise Enough


def config(arguments: argparse.Namespace, survey: str, kind: str, seed: int, name: str = "") -> Path:
    """Write the config of one training; all share a bank."""
    content: dict[str, Any] = {
        "seed": seed,
        "simulator": {
            "kind": "lim-mock",
            "pixels": 64,
            "pixel": 0.8,
            "smoothing_sigma": 1.2,
            "amplitude": 20.0,
            "mass_min": 11.0,
            "fixed": {"B_HA": 0.2},
            "parameters": ["A_HA", "A_OIII"],
            "box_length": 240.0,
            "cell": 4.0,
            "rows_per_realisation": 12,
        },
        "prior": {"A_HA": [-0.01, 0.01], "A_OIII": [-0.01, 0.01]},
        "survey": SURVEYS[survey],
        "separation": {
            "kind": kind,
            "simulations": arguments.maps,
            "mix": True,
            "steps": round(STEPS[kind] * arguments.steps),
            "width": 16,
            "widest": 128,
            "validation_fraction": 0.1,
            "test_fraction": 0.13,
        },
        "bank": {"path": "bank"},
        "executor": {"workers": 1},
    }
    path = arguments.out / f"{name or f'{survey}-{kind}-{seed}'}.toml"
    path.write_text(tomli_w.dumps(content))
    return path


if __name__ == "__main__":
    main()
