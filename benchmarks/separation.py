"""How well does the conditional GAN separate Halpha and [OIII], beside a Wiener filter and the absolute error alone?

    python -m benchmarks.separation --out DIR                            all parts: hours of one core
    python -m benchmarks.separation --out DIR --parts cases --cases noise-free --losses talk
    python -m benchmarks.separation --out DIR --pixels 256 --maps 30000 --steps 3500 --width 64 --widest 512   on a GPU

cases        Trains on slabs of both lines and scores on held-out realisations: without noise, with that of SPHEREx's
             deep fields, and with a tenth of it, which is what lines of ten times the luminosity (amplitude 10, as the
             published maps have it) see of the same noise. Lines are mixed: no sum of maps is seen twice.
robustness   The networks of amplitude 10 on mocks of another relation between mass and star formation, in noise 1.5
             times stronger than they were trained in, and on a map of other pixels.
speed        A training step beside a plain one of pix2pix, of the same networks, in this process.

What is there already is not made again.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch.nn import functional as F
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.progress import Advance, Lines, Silent
from eorinfer.cubes.observation import Observation
from eorinfer.networks.discriminator import Discriminator
from eorinfer.networks.unet import UNet
from eorinfer.run.config import load_config
from eorinfer.run.line_separation import Separation
from eorinfer.run.separation_scores import ScoreSettings, score_separators
from eorinfer.separation.data import split
from eorinfer.separation.model import Separator
from eorinfer.separation.precision import precision
from eorinfer.separation.regression import STAGES
from eorinfer.separation.training import train
from eorinfer.survey import build_survey
from simulators import build

#: Noise of each case over that of the deep fields.
CASES = {"noise-free": 0.0, "deep": 1.0, "amplitude-10": 0.1}
#: Settings of each loss; with one draw and nothing added before lines are judged it is the talk's to the letter.
LOSSES: dict[str, dict[str, Any]] = {
    "talk": {"loss": "talk"},
    "l1": {"loss": "l1"},
    "talk-to-the-letter": {"loss": "talk", "draws": 1, "instance_noise": 0.0},
}
#: Those that are trained when none is named.
USUAL = ("talk", "l1")
#: Realisations of the second relation.
OTHER_MAPS = 320


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(USUAL))
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--maps", type=int, default=3200)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--widest", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        PARTS[part](arguments)


def cases(arguments: argparse.Namespace) -> None:
    """Train and score each case with each loss."""
    for case in arguments.cases:
        for loss in arguments.losses:
            folder = arguments.out / f"{case}-{loss}"
            start, used = time.monotonic(), time.process_time()
            there = (folder / "separator/separator.json").exists()
            separator = Separation(load_config(config(arguments, case, loss), "separation"), folder, Lines()).train()
            if not there:
                seconds = time.process_time() - used
                print(f"{case}, {loss}: trained in {time.monotonic() - start:.0f} s, {seconds:.0f} of one core")
            for warning in separator.spec.facts["warnings"]:
                print(f"{case}, {loss}: {warning}")
        l1 = arguments.out / f"{case}-l1/separator"
        for loss in arguments.losses:
            if loss == "l1" and len(arguments.losses) > 1:
                continue
            model = arguments.out / f"{case}-{loss}/separator"
            judgement = ScoreSettings(Bank.open(arguments.out / "bank"), Separator.load(model).spec.survey)
            print(f"\n{case}, {loss}")
            print(
                score_separators(
                    model, judgement, arguments.out / f"{case}-{loss}", l1 if loss != "l1" and l1.exists() else None
                )
            )


def robustness(arguments: argparse.Namespace) -> None:
    """Score the networks of amplitude 10 where they were not trained."""
    model, l1 = (arguments.out / f"amplitude-10-{loss}/separator" for loss in USUAL)
    trained = Separator.load(model).spec
    path = config(
        arguments, "amplitude-10", "talk", name="relation", maps=OTHER_MAPS, star_formation="fonseca17", seed=2
    )
    step = Separation(load_config(path, "separation"), arguments.out / "relation", Lines())
    step.simulate()
    print("\namplitude-10, trained on the star formation of Gong et al. 2017, scored on that of Fonseca et al. 2017")
    print(score_separators(model, ScoreSettings(step.bank, trained.survey), arguments.out / "relation", l1))
    louder = load_config(config(arguments, "amplitude-10", "talk", name="louder", noise=0.15), "separation")
    print("\namplitude-10, in noise 1.5 times that of training")
    bank = Bank.open(arguments.out / "bank")
    print(score_separators(model, ScoreSettings(bank, louder.tables.survey), arguments.out / "louder", l1))
    wrong = build(simulator(arguments, pixel=0.8, box_length=400.0)).observables[0]
    try:
        Observation.from_observable(wrong, np.zeros(wrong.shape, np.float32)).check(
            trained.observable, "a map of pixels of 0.8 arcmin"
        )
    except InputError as error:
        print(f"\nrefused: {error}")


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of a step, of training as it is and of plain pix2pix."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = 40 if device == "cpu" else 200
    losses = ("talk", "talk-to-the-letter")
    trainers = {
        loss: Separation(
            load_config(config(arguments, "deep", loss, name=f"speed-{loss}"), "separation"),
            arguments.out / f"speed-{loss}",
            Lines(),
        )
        for loss in losses
    }
    first = trainers[losses[0]]
    # A machine is seldom idle: one before the others and one after them.
    plain = [plain_step(first, 2 * steps, device)]
    ours = {loss: our_step(trainer, steps) for loss, trainer in trainers.items()}
    plain.append(plain_step(first, 2 * steps, device))
    seconds = float(np.mean(plain))
    print(
        f"\nspeed: {arguments.pixels}², batch {first.settings.batch_size}, width {arguments.width} to "
        f"{arguments.widest}, {device}: a plain step (fp32, eager) {seconds:.3f} s; one of training "
        f"({precision(first.settings)}, with noise, symmetries, clipping, average, and validation after {steps} steps)"
    )
    for loss, step in ours.items():
        draws = trainers[loss].settings.draws
        print(f"{loss}, {draws} draw(s) of each map: {step:.3f} s, {seconds / step:.2f} times as fast")


def our_step(trainer: Separation, steps: int) -> float:
    """Measure the seconds of a step as `train` takes it, with validation, checkpoints and everything else."""
    parts = split(trainer.simulate(), 0.1, 0.1)
    spec = replace(trainer.spec, settings=trainer.settings.model_copy(update={"steps": STAGES * steps}), facts={})
    survey = build_survey(trainer.config.tables.survey, trainer.config.observable)
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=trainer.out) as folder, suppress(Enough):
        train(spec, trainer.bank, parts, survey, folder=Path(folder), seed=1, progress=clock)
    return float(np.median(np.diff(clock.times))) / steps


class Enough(Exception):
    """Enough stages were timed."""


class Clock(Silent):
    """Notes when each stage ends, and ends a training after the third."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Tell nothing."""
        yield self._note

    def _note(self, n: int, note: str) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == 3:
            raise Enough


def plain_step(trainer: Separation, steps: int, device: str) -> float:
    """Seconds of a step of pix2pix as it is usually written: the same networks, one layout, fp32, Adam."""
    spec, settings = trainer.spec, trainer.settings
    size: dict[str, Any] = {"width": settings.width, "widest": settings.widest}
    inputs, outputs = spec.observable.shape[0], len(spec.targets)
    generator = UNet(inputs, outputs, spec.strides, spec.periodic, dropout=settings.dropout, **size)
    discriminator = Discriminator(inputs + outputs, spec.strides, spec.periodic, **size)
    for network in (generator, discriminator):
        network._layout = torch.contiguous_format  # as a network is that nobody has laid out
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
        network.to(device)
    optimizers = [torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    random = torch.Generator(device).manual_seed(1)
    source = torch.randn(settings.batch_size, inputs, *spec.observable.cells, device=device)
    target = torch.randn(settings.batch_size, outputs, *spec.observable.cells, device=device)
    times = []
    for _ in range(steps):
        times.append(time.perf_counter())
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


def simulator(arguments: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """The table ``[simulator]``: slabs of the published pixels."""
    return {
        "kind": "lim-mock",
        "pixels": arguments.pixels,
        "pixel": 0.4,
        "mass_min": 11.0,
        "box_length": 240.0 if arguments.pixels <= 128 else 320.0,
        "cell": 3.0,
        "rows_per_realisation": 16,
    } | changes


def config(
    arguments: argparse.Namespace,
    case: str,
    loss: str,
    *,
    name: str = "",
    noise: float | None = None,
    maps: int | None = None,
    seed: int = 1,
    **changes: Any,
) -> Path:
    """Write the config of a case; what is named shares its bank only where the simulator is the same."""
    level = CASES[case] if noise is None else noise
    content: dict[str, Any] = {
        "seed": seed,
        "simulator": simulator(arguments, **changes),
        # Fixed: the published networks know one relation. A little freedom, so that every row is a slab of its own.
        "prior": {"A_HA": [-0.01, 0.01], "A_OIII": [-0.01, 0.01]},
        "survey": {"kind": "spherex", "table": noise_table(arguments.out, level)} if level else {"kind": "none"},
        "separation": {
            "simulations": maps or arguments.maps,
            "mix": True,
            **LOSSES[loss],
            "steps": arguments.steps,
            "width": arguments.width,
            "widest": arguments.widest,
        },
        "bank": {} if changes else {"path": "bank"},
        "executor": {"workers": arguments.workers},
    }
    path = arguments.out / f"{name or f'{case}-{loss}'}.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def noise_table(out: Path, factor: float) -> str:
    """SPHEREx's noise by wavelength, multiplied."""
    path = out.resolve() / f"noise-{factor:g}.txt"
    table = np.loadtxt(str(files("eorinfer.survey") / "spherex_v28.txt"), ndmin=2)
    np.savetxt(path, table * [1, factor, factor, 1], fmt="%.6g")
    return str(path)


PARTS = {"cases": cases, "robustness": robustness, "speed": speed}

if __name__ == "__main__":
    main()
