"""Does separating the lines before inference help? Posteriors of both amplitudes, by what the networks see.

    python -m benchmarks.separated_inference --out DIR                          the deep fields: hours of one core
    python -m benchmarks.separated_inference --out DIR --noise 0.1              a tenth of that noise
    python -m benchmarks.separated_inference --out DIR --simulations 1200 --separation-simulations 1200 --steps 1000
    python -m benchmarks.separated_inference --out DIR --published --noise 0 --simulations 300 --truths 200

Maps of examples/lim.toml with two parameters, or in the setting of the papers (`--published`: smoothed and 20 times as
bright, pixels of 0.8 arcmin). A separator is trained on realisations that no posterior sees; then
networks of the same size are trained on the same simulations, on

raw      the observed map,
lines    the separated maps,
draws    a draw of the lines in place of their mean,
both     all three,
oracle   the true map of each line, without noise: what no separation can beat,
power         P(k) of the observed map,
power-lines   P(k) of the separated lines, with their cross spectrum.

Beside them the Gaussian power-spectrum likelihood on a grid, of the observed map and of the separated lines. All are
asked about the same held-out truths, each in a volume of its own. What is there already is not made again.
"""

import argparse
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import nn

from benchmarks.record import record
from eorinfer import Observation, Run
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import plan_round, planned_rows
from eorinfer.core.files import make_folder, read_json, write_json
from eorinfer.core.progress import for_terminal
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, round_seed, stream_seed
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.trainer import Trainer
from eorinfer.run.config import Config, load_config
from eorinfer.run.line_separation import Separation
from eorinfer.separation.model import Separator
from eorinfer.separation.preprocessing import LineSeparation, LineSpectra
from eorinfer.summaries.power import build_joint_power_spectrum, build_power_spectrum
from eorinfer.survey import NoSurvey, build_survey
from simulators import Observable
from simulators.base import fingerprint_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "lim.toml"
LINES = ("ha", "oiii")
VARIANTS = ("raw", "lines", "draws", "both", "oracle", "power", "power-lines")
#: Maps of the papers, a quarter of their field.
PUBLISHED = {
    "pixel": 0.8,
    "smoothing_sigma": 1.2,
    "amplitude": 20.0,
    "fixed": {"B_HA": 0.2},
    "box_length": 240.0,
    "cell": 4.0,
}
#: Keys of ``[embedding]`` of NPE on P(k).
POWER = {"convolution": False, "summaries": ("joint-power",)}
#: Points of the power-spectrum grid along each parameter, samples of a posterior, maps at once.
POINTS, SAMPLES, BATCH = 100, 1000, 50
#: Standard deviation of SPHEREx's noise in the deep fields, in-band nW/m^2/sr in a pixel of an arcmin.
DEEP = 1.9122 / 41 * 6.2 / 60


class Stream(IntEnum):
    """Streams of the randomness of this script."""

    EMULATOR = 97
    TRUTHS_NOISE = 98
    TRUTHS = 99


def main() -> None:
    """Train what lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--simulations", type=int, default=3000)
    parser.add_argument("--separation-simulations", type=int, default=3000)
    parser.add_argument("--truths", type=int, default=300)
    parser.add_argument("--steps", type=int, default=3000, help="of each posterior network")
    parser.add_argument("--separation-steps", type=int, default=3000)
    parser.add_argument("--width", type=int, default=32, help="channels of the separator's first level")
    parser.add_argument("--ensemble", type=int, default=1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--published", action="store_true", help="maps in the setting of Moriwaki & Yoshida 2021")
    parser.add_argument("--noise", type=float, help="white noise, over that of the deep fields, in place of SPHEREx")
    arguments = parser.parse_args()
    start = time.monotonic()
    make_folder(arguments.out)
    path = arguments.out / "config.toml"
    path.write_bytes(tomli_w.dumps(content(arguments)).encode())
    separator = Separation(load_config(path, "separation"), arguments.out / "separation", for_terminal()).train()
    run = Run(load_config(path), arguments.out / "run", for_terminal())
    run.preflight()
    rows = planned_rows(run.bank, run.simulate()).ok
    truths = simulated_truths(run, arguments.truths)
    for variant in arguments.variants:
        file = arguments.out / f"{variant}.json"
        if not file.exists():
            posterior = trained(run, rows, variant, separator, arguments.out / "posteriors" / variant)
            write_json(file, asked(run, posterior, truths, variant))
        print(row(variant, read_json(file)), flush=True)
    observable, bins = run.config.observable, run.config.tables.power_spectrum
    joint = LineSpectra(LineSeparation(separator, "lines"), build_joint_power_spectrum(observable, bins))
    data: dict[str, nn.Module] = {"power-spectrum": build_power_spectrum(observable, bins), "line-spectra": joint}
    for name, module in data.items():
        file = arguments.out / f"{name}.json"
        if not file.exists():
            write_json(file, power_spectrum(run, rows, truths, module, arguments.out / f"emulator-{name}"))
        print(row(name, read_json(file)), flush=True)
    files = {name: arguments.out / f"{name}.json" for name in (*VARIANTS, *data)}
    found = {name: read_json(file) for name, file in files.items() if file.exists()}
    record("separated_inference", {"sizes": sizes(arguments), "networks see": found}, seconds=time.monotonic() - start)


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the options that a figure depends on."""
    return {name: value for name, value in vars(arguments).items() if name not in ("out", "variants")}


def content(arguments: argparse.Namespace) -> dict[str, Any]:
    """The example's config, with two parameters and the sizes asked for."""
    tables = tomllib.loads(EXAMPLE.read_text())
    tables["simulator"] |= {"parameters": ["A_HA", "A_OIII"]} | (PUBLISHED if arguments.published else {})
    tables["observation"] = {"theta": {"A_HA": 0.0, "A_OIII": 0.0}}
    tables["inference"] = {"rounds": [arguments.simulations]}
    tables["training"] = {"ensemble": arguments.ensemble, "steps": arguments.steps}
    tables["separation"] = {
        "simulations": arguments.separation_simulations,
        "steps": arguments.separation_steps,
        "width": arguments.width,
        "widest": 8 * arguments.width,
        "mix": True,
    }
    if arguments.noise is not None:
        sigma = arguments.noise * DEEP / tables["simulator"]["pixel"]
        tables["survey"] = {"kind": "white-noise", "sigma": sigma} if sigma else {"kind": "none"}
    return tables


def simulated_truths(run: Run, n: int) -> Rows:
    """Draws from the prior, each of a realisation of its own, that nothing is trained on."""
    seed = stream_seed(run.tables.seed, Stream.TRUTHS)
    theta = run.config.prior.sample(n, np.random.default_rng(seed))
    plan = plan_round(0, fingerprint_of({"truths": n}), theta, run.config.simulator, seed, share=1)
    plans = [(run.bank.add(plan), n)]
    run.context.simulations.fill(plans, "truths")
    return planned_rows(run.bank, plans).ok


@dataclass(frozen=True)
class TrueLines:
    """A bank whose one image has the lines as channels."""

    bank: Bank

    @property
    def fingerprint(self) -> str:
        return self.bank.fingerprint

    @property
    def observables(self) -> tuple[Observable, ...]:
        return (lines_of(self.bank.observables[0]),)

    def read(self, _: str, rows: Rows) -> NDArray[np.float32]:
        """(n, 2, *cells)"""
        return np.concatenate([self.bank.read(name, rows) for name in LINES], axis=1)


def lines_of(image: Observable) -> Observable:
    """The image with a channel for each line."""
    return replace(image, shape=(len(LINES), *image.cells), channels=image.channels * len(LINES))


def trained(run: Run, rows: Rows, variant: str, separator: Separator, folder: Path) -> Posterior:
    """The posterior of a variant: loaded when it is there, else trained."""
    if (folder / "posterior.json").exists():
        return Posterior.load(folder)
    config, bank = run.config, run.bank
    oracle = variant == "oracle"
    observable = lines_of(config.observable) if oracle else config.observable
    survey = NoSurvey() if oracle else config.tables.survey
    keep = {"lines": "lines", "draws": "lines", "both": "both", "power-lines": "lines"}.get(variant)
    embedding = config.tables.embedding.model_copy(update=POWER if variant.startswith("power") else {})
    trainer = Trainer(
        config.prior,
        observable,
        survey,
        build_survey(survey, observable),
        Architecture(embedding, config.tables.flow, config.tables.power_spectrum),
        config.tables.training,
        LineSeparation(separator, keep, "draw" if variant == "draws" else "mean") if keep else None,  # type: ignore[arg-type]
    )
    posterior = trainer.train(
        TrueLines(bank) if oracle else bank,  # type: ignore[arg-type]
        rows,
        folder=folder.with_name(f"{variant}-checkpoints"),
        seed=round_seed(config.tables.seed, PRIOR_ROUND, RoundStream.TRAINING),
        title=variant,
        progress=run.progress,
    )
    posterior.save(folder)
    return posterior


def observations(run: Run, truths: Rows) -> Iterator[tuple[slice, torch.Tensor]]:
    """The truths as they are observed, always with the same noise."""
    survey = build_survey(run.tables.survey, run.config.observable)
    generator = torch.Generator().manual_seed(stream_seed(run.tables.seed, Stream.TRUTHS_NOISE))
    for start in range(0, len(truths), BATCH):
        part = slice(start, start + BATCH)
        clean = torch.from_numpy(run.bank.read(run.config.observable.name, truths[part]))
        yield part, survey(clean, generator)


def asked(run: Run, posterior: Posterior, truths: Rows, variant: str) -> dict[str, Any]:
    """Samples of all truths, and the densities there."""
    samples, densities = [], []
    for part, observed in observations(run, truths):
        if variant == "oracle":
            observed = torch.from_numpy(TrueLines(run.bank).read("", truths[part]))
        read = posterior.read(observed)
        samples.append(draw(posterior, read, SAMPLES, 1).values)
        densities.append(log_density(posterior.networks, truths.theta[part][:, None], read)[:, 0])
    return scored(run.config, truths.theta, np.concatenate(samples), np.concatenate(densities))


def power_spectrum(run: Run, rows: Rows, truths: Rows, spectrum: nn.Module, folder: Path) -> dict[str, Any]:
    """The same for the Gaussian likelihood of a power spectrum, on a grid over the prior."""
    config = run.config
    likelihood = PowerSpectrumLikelihood.from_bank(
        run.bank,
        rows,
        config.prior,
        config.observable,
        build_survey(config.tables.survey, config.observable),
        spectrum,
        draws=config.tables.mcmc.draws,
        folder=folder,
        seed=stream_seed(config.tables.seed, Stream.EMULATOR),
        key="benchmark",
        progress=run.progress,
    )
    low, high = config.prior.low, config.prior.high
    step = (high - low) / POINTS
    axes = [a + s * (np.arange(POINTS) + 0.5) for a, s in zip(low, step, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(1)
    samples, densities = [], []
    for part, observed in observations(run, truths):
        for theta, map_ in zip(truths.theta[part], observed.numpy(), strict=True):
            log_l = likelihood.for_observation(Observation.from_observable(config.observable, map_))
            values = log_l(grid)
            total = logsumexp(values) + np.log(step).sum()
            densities.append(float(log_l(theta[None])[0] - total))
            chosen = grid[rng.choice(len(grid), SAMPLES, p=np.exp(values - logsumexp(values)))]
            samples.append(chosen + step * (rng.random(chosen.shape) - 0.5))
    return scored(config, truths.theta, np.array(samples), np.array(densities))


def scored(
    config: Config, theta: NDArray[np.float64], samples: NDArray[np.float64], densities: NDArray[np.float64]
) -> dict[str, Any]:
    """Widths, bias, coverage and gain of posteriors (T, n, P) of truths (T, P) with densities (T,) there."""
    mean, std = samples.mean(1), samples.std(1)
    pull = (mean - theta) / std
    found: dict[str, Any] = {"truths": len(theta)}
    for i, name in enumerate(config.prior.names):
        one: dict[str, Any] = {"std": float(np.median(std[:, i])), "bias": mean_error(pull[:, i])}
        one["rms_error"] = float(np.sqrt(np.mean((mean - theta)[:, i] ** 2)))
        for level in (0.68, 0.95):
            low, high = np.quantile(samples[:, :, i], [0.5 - level / 2, 0.5 + level / 2], axis=1)
            one[f"inside_{level}"] = float(np.mean((theta[:, i] >= low) & (theta[:, i] <= high)))
        found[name] = one
    areas = [np.sqrt(np.linalg.det(np.cov(one, rowvar=False))) for one in samples]
    return found | {"area": float(np.median(areas)), "gain": mean_error(densities - config.prior.log_density)}


def mean_error(values: NDArray[np.float64]) -> list[float]:
    """Mean, and its standard error."""
    return [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)]


def row(label: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    parts = [f"{label:10s} gain {found['gain'][0]:+.2f} +- {found['gain'][1]:.2f} nats, area {found['area']:.4f}"]
    for name in ("A_HA", "A_OIII"):
        one = found[name]
        parts.append(
            f"{name}: std {one['std']:.3f}, rms error {one['rms_error']:.3f}, bias {one['bias'][0]:+.2f} +- "
            f"{one['bias'][1]:.2f}, inside {one['inside_0.68']:.2f} of 0.68, {one['inside_0.95']:.2f} of 0.95"
        )
    return "; ".join(parts)


if __name__ == "__main__":
    main()
