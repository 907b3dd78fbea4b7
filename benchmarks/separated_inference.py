"""Does separating the lines before inference help? Posteriors of both amplitudes, by what the networks see.

    python -m benchmarks.separated_inference --out DIR --published --noise 0      half an hour of one core
    python -m benchmarks.separated_inference --out DIR                            the deep fields, pixels of 1.6 arcmin
    python -m benchmarks.separated_inference --out DIR --noise 0.1 --views 8      a tenth of that noise
    python -m benchmarks.separated_inference --out DIR --published --field all-sky --record all_sky

Maps of examples/lim.toml with two parameters, or in the setting of the papers (`--published`: smoothed and 20 times as
bright, a quarter of their field). A separator is trained on realisations that no posterior sees, with both amplitudes
free. Then every map is observed and separated once (`--views` times where there is noise), and networks of one size
are trained on the first of the simulations, as many as `--simulations` says, to see

raw      the observed map,
lines    the posterior mean of each line,
draws    a draw of the lines in place of their mean,
both     all three,
oracle   the true map of each line, without noise: what no separation can beat,
power         P(k) of the observed map,
power-lines   P(k) of the separated lines, with their cross spectrum,
labelled      the observed map, trained on the maps of the separator as well, as if they had labels.

Networks that see maps see their spectra too. Beside them are Gaussian likelihoods of both spectra on a grid
(power-likelihood, power-lines-likelihood). All are asked about the same held-out truths, each in a volume of its own.
What is there already is not made again, and what is there is recorded after each method.
"""

import argparse
import time
import tomllib
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from benchmarks.arrays import ArrayBank, repeated
from benchmarks.record import record
from benchmarks.separation_setting import SIMULATOR
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import Used, plan_round, planned_rows
from eorinfer.core.files import make_folder, read_json, whole_file, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.progress import for_terminal
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, item_seed, round_seed, stream_seed
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.trainer import Trainer
from eorinfer.run.config import load_config
from eorinfer.run.line_separation import Separation
from eorinfer.separation.apply import posterior
from eorinfer.separation.model import Separator
from eorinfer.settings.likelihood import LEAST_REALISATIONS
from eorinfer.summaries.power import build_joint_power_spectrum
from eorinfer.survey import NoSurvey, build_survey
from simulators import Observable
from simulators.base import fingerprint_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "lim.toml"
LINES = ("ha", "oiii")
#: Channels that each method sees of an observed map, the lines' means, a draw of them, and the true lines.
CHANNELS = {
    "raw": (0,),
    "lines": (1, 2),
    "draws": (3, 4),
    "both": (0, 1, 2, 3, 4),
    "oracle": (5, 6),
    "power": (0,),
    "power-lines": (1, 2),
    "power-likelihood": (0,),
    "power-lines-likelihood": (1, 2),
    "labelled": (0,),
}
LIKELIHOODS = ("power-likelihood", "power-lines-likelihood")
#: Maps of the papers, a quarter of their field.
PUBLISHED = SIMULATOR | {"box_length": 240.0, "cell": 4.0}
#: Rows that share a volume: few, so that 100 of them are many volumes.
ROWS = 4
#: Side of the maps in arcmin; of the published maps half of it.
SIDE, PUBLISHED_SIDE = 102.4, 51.2
#: Points of the power-spectrum grid along each parameter, samples of a posterior, maps at once.
POINTS, SAMPLES, BATCH = 64, 1000, 50
#: Standard deviation of SPHEREx's noise in the deep fields, in-band nW/m^2/sr in a pixel of an arcmin.
DEEP = 1.9122 / 41 * 6.2 / 60


class Stream(IntEnum):
    """Streams of the randomness of this script."""

    OBSERVED = 95
    DRAWS = 96
    EMULATOR = 97
    TRUTHS_OBSERVED = 98
    TRUTHS = 99
    LABELLED_OBSERVED = 100


def main() -> None:
    """Train what lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--simulations", type=int, nargs="+", default=[100, 300, 900], help="with known parameters")
    parser.add_argument("--separation-simulations", type=int, default=1200)
    parser.add_argument("--truths", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1000, help="of each posterior network")
    parser.add_argument("--separation-steps", type=int, default=3000)
    parser.add_argument("--width", type=int, default=16, help="channels of the separator's first level")
    parser.add_argument("--ensemble", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=CHANNELS, default=list(CHANNELS))
    parser.add_argument("--published", action="store_true", help="maps in the setting of Moriwaki & Yoshida 2021")
    parser.add_argument("--pixels", type=int, default=64, help="along each side of a map, which stays as large")
    parser.add_argument("--field", choices=("deep", "all-sky"), default="deep", help="whose noise SPHEREx has")
    parser.add_argument("--noise", type=float, help="white noise, over that of the deep fields, in place of SPHEREx")
    parser.add_argument("--views", type=int, default=1, help="draws of the noise of each simulation")
    parser.add_argument("--record", default="", help="what the name of the results ends with")
    arguments = parser.parse_args()
    if min(arguments.simulations) < (least := LEAST_REALISATIONS * ROWS):
        parser.error(f"--simulations {min(arguments.simulations)}: the emulator of P(k) needs {least} or more")
    start = time.monotonic()
    make_folder(arguments.out)
    path = arguments.out / "config.toml"
    path.write_bytes(tomli_w.dumps(content(arguments)).encode())
    step = Separation(load_config(path, "separation"), arguments.out / "separation", for_terminal())
    run = Run(load_config(path), arguments.out / "run", for_terminal())
    separator = step.train()
    run.preflight()
    rows, truths = planned_rows(run.bank, run.simulate()).ok, simulated_truths(run, arguments.truths)
    asked = observed_maps(run, run.bank, truths, separator, Stream.TRUTHS_OBSERVED)
    maps = observed_maps(run, run.bank, rows, separator, Stream.OBSERVED, arguments.views)
    cases = [(method, rows[:n], maps[: n * arguments.views]) for n in sorted(arguments.simulations)
             for method in arguments.methods if method != "labelled"]  # fmt: skip
    if "labelled" in arguments.methods:
        cheap = step.simulate()
        more = observed_maps(run, step.bank, cheap, None, Stream.LABELLED_OBSERVED, arguments.views)
        cases.append(("labelled", Rows.concatenate([rows, cheap]), np.concatenate([maps[:, :1], more])))
    found: dict[str, dict[str, Any]] = {}
    for method, some, seen in cases:
        case = f"{method}-{len(some)}"
        file = arguments.out / f"{case}.json"
        if not file.exists():
            material = Material.of(run, method, some, seen)
            ask = power_likelihood if method in LIKELIHOODS else neural_posterior
            samples, densities = ask(run, method, material, truths, asked[:, CHANNELS[method]], arguments.out / case)
            write_json(file, scored(run.config.prior, truths.theta, samples, densities))
        one = read_json(file)
        found.setdefault(method, {})[str(len(some))] = one
        print(row(case, one), flush=True)
        densities = np.array(one.pop("densities"))
        raw = arguments.out / f"raw-{min(len(some), len(rows))}.json"
        if raw.exists():
            one["gain_over_raw"] = mean_error(densities - np.array(read_json(raw)["densities"]))
        figures = {"sizes": sizes(arguments), "sureness": separator.facts["sureness"], "methods": found}
        name = "_".join(filter(None, ("separated_inference", arguments.record)))
        record(name, figures, seconds=time.monotonic() - start)


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the options that a figure depends on."""
    return {name: value for name, value in vars(arguments).items() if name not in ("out", "methods", "record")}


def content(arguments: argparse.Namespace) -> dict[str, Any]:
    """The example's config, with two parameters and the sizes asked for."""
    tables = tomllib.loads(EXAMPLE.read_text())
    side = PUBLISHED_SIDE if arguments.published else SIDE
    tables["simulator"] |= {"pixels": arguments.pixels, "pixel": side / arguments.pixels, "rows_per_realisation": ROWS}
    tables["simulator"] |= {"parameters": ["A_HA", "A_OIII"]} | (PUBLISHED if arguments.published else {})
    tables["observation"] = {"theta": {"A_HA": 0.0, "A_OIII": 0.0}}
    tables["inference"] = {"rounds": [max(arguments.simulations)], "predictive": 0}
    tables["training"] = {"ensemble": arguments.ensemble, "steps": arguments.steps}
    tables["executor"] = {"workers": 1}
    tables["separation"] = {
        "simulations": arguments.separation_simulations,
        "steps": arguments.separation_steps,
        "width": arguments.width,
        "widest": 8 * arguments.width,
        "mix": True,
    }
    tables["survey"]["field"] = arguments.field
    if arguments.noise is not None:
        sigma = arguments.noise * DEEP / tables["simulator"]["pixel"]
        tables["survey"] = {"kind": "white-noise", "sigma": sigma} if sigma else {"kind": "none"}
    return tables


def simulated_truths(run: Run, n: int) -> Rows:
    """Draws from the prior, each of a realisation of its own, that nothing is trained on."""
    seed = stream_seed(run.tables.seed, Stream.TRUTHS)
    theta = run.config.prior.sample(n, np.random.default_rng(seed))
    plan = plan_round(0, fingerprint_of({"truths": n}), theta, run.config.simulator, seed, share=1)
    plans = [Used(run.bank.add(plan), n)]
    run.context.simulations.fill(plans, "truths")
    return planned_rows(run.bank, plans).ok


def observed_maps(
    run: Run, bank: Bank, rows: Rows, separator: Separator | None, stream: Stream, views: int = 1
) -> NDArray[np.float32]:
    """Observe rows of a bank and separate what is observed, and keep it: (n * views, 7, nx, ny), see `CHANNELS`.

    The views of a row follow each other. Without a separator there is the observed map alone.
    """
    file = run.out.parent / f"{stream.name.lower()}.npy"
    if not file.exists():
        seed = stream_seed(run.tables.seed, stream)
        survey = build_survey(run.tables.survey, run.config.observable)
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for start in range(0, len(rows), BATCH):
            lines = np.concatenate([bank.read(name, rows[start : start + BATCH]) for name in LINES], axis=1)
            true = torch.from_numpy(lines).repeat_interleave(views, 0)
            made = [observed := survey(true.sum(1, keepdim=True), generator)]
            if separator is not None:
                mean, draws = posterior(separator, observed, 1, item_seed(seed, start))
                made += [mean, draws[0], true]
            parts.append(torch.cat(made, 1).numpy())
        with whole_file(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, np.concatenate(parts))
    kept: NDArray[np.float32] = np.load(file)
    return kept


@dataclass(frozen=True)
class Material:
    """What a method is trained on: a bank of the maps that it sees, and its rows."""

    bank: ArrayBank
    rows: Rows

    @classmethod
    def of(cls, run: Run, method: str, rows: Rows, maps: NDArray[np.float32]) -> "Material":
        """Take a method's channels of maps (n * views, 7, nx, ny) of rows."""
        image, channels = run.config.observable, CHANNELS[method]
        image = replace(image, shape=(len(channels), *image.cells), channels=image.channels * len(channels))
        bank = ArrayBank(run.bank.path, run.bank.fingerprint, (image,), {image.name: maps[:, channels]})
        return cls(bank, repeated(rows, len(maps) // len(rows)))

    @property
    def image(self) -> Observable:
        """Description of the maps."""
        return self.bank.observables[0]


def neural_posterior(
    run: Run, method: str, material: Material, truths: Rows, asked: NDArray[np.float32], folder: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train a posterior; its samples (T, n, P) of maps of truths (T, C, nx, ny), and its densities (T,) there."""
    config, survey = run.config, NoSurvey()
    embedding = config.tables.embedding.model_copy(
        update={"convolution": not method.startswith("power"), "summaries": ("joint-power",)}
    )
    architecture = Architecture(embedding, config.tables.flow, config.tables.power_spectrum)
    trainer = Trainer(
        config.prior, material.image, survey, build_survey(survey, material.image), architecture, config.tables.training
    )
    trained = trainer.train(
        material.bank,  # type: ignore[arg-type]
        material.rows,
        folder=folder,
        seed=round_seed(config.tables.seed, PRIOR_ROUND, RoundStream.TRAINING),
        title=folder.name,
        progress=run.progress,
    )
    samples, densities = [], []
    for start in range(0, len(truths), BATCH):
        read = trained.read(torch.from_numpy(asked[start : start + BATCH]))
        samples.append(draw(trained, read, SAMPLES, 1).values)
        theta = truths.theta[start : start + BATCH, None]
        densities.append(log_density(trained.networks, theta, read)[:, 0])
    return np.concatenate(samples), np.concatenate(densities)


def power_likelihood(
    run: Run, _: str, material: Material, truths: Rows, asked: NDArray[np.float32], folder: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same for the Gaussian likelihood of the spectra of maps, on a grid over the prior."""
    config = run.config
    spectra = build_joint_power_spectrum(material.image, config.tables.power_spectrum)
    likelihood = PowerSpectrumLikelihood.from_bank(
        material.bank,  # type: ignore[arg-type]
        material.rows,
        config.prior,
        material.image,
        build_survey(NoSurvey(), material.image),
        spectra,
        draws=1,
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
    for theta, power in zip(truths.theta, spectra(torch.from_numpy(asked)).flatten(1).double(), strict=True):
        log_l = likelihood.for_spectrum(power)
        values = log_l(grid)
        total = logsumexp(values) + np.log(step).sum()
        densities.append(float(log_l(theta[None])[0] - total))
        chosen = grid[rng.choice(len(grid), SAMPLES, p=np.exp(values - logsumexp(values)))]
        samples.append(chosen + step * (rng.random(chosen.shape) - 0.5))
    return np.array(samples), np.array(densities)


def scored(
    prior: Prior, theta: NDArray[np.float64], samples: NDArray[np.float64], densities: NDArray[np.float64]
) -> dict[str, Any]:
    """Widths, bias, coverage and gain of posteriors (T, n, P) of truths (T, P) with densities (T,) there."""
    mean, std = samples.mean(1), samples.std(1)
    pull = (mean - theta) / std
    found: dict[str, Any] = {"truths": len(theta)}
    for i, name in enumerate(prior.names):
        one: dict[str, Any] = {"std": float(np.median(std[:, i])), "bias": mean_error(pull[:, i])}
        one["rms_error"] = float(np.sqrt(np.mean((mean - theta)[:, i] ** 2)))
        for level in (0.68, 0.95):
            low, high = np.quantile(samples[:, :, i], [0.5 - level / 2, 0.5 + level / 2], axis=1)
            one[f"inside_{level}"] = float(np.mean((theta[:, i] >= low) & (theta[:, i] <= high)))
        found[name] = one
    areas = [np.sqrt(np.linalg.det(np.cov(one, rowvar=False))) for one in samples]
    found |= {"area": float(np.median(areas)), "gain": mean_error(densities - prior.log_density)}
    return found | {"densities": densities.tolist()}


def mean_error(values: NDArray[np.float64]) -> list[float]:
    """Mean, and its standard error."""
    return [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)]


def row(label: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    parts = [f"{label:28s} gain {found['gain'][0]:+.2f} +- {found['gain'][1]:.2f} nats, area {found['area']:.4f}"]
    for name in ("A_HA", "A_OIII"):
        one = found[name]
        parts.append(
            f"{name}: std {one['std']:.3f}, rms error {one['rms_error']:.3f}, bias {one['bias'][0]:+.2f} +- "
            f"{one['bias'][1]:.2f}, inside {one['inside_0.68']:.2f} of 0.68, {one['inside_0.95']:.2f} of 0.95"
        )
    return "; ".join(parts)


if __name__ == "__main__":
    main()
