"""How far are posteriors of nine parameters from the exact one, by number of simulations?

The bed: Gaussian modes of a box of 24³ cells of 8 Mpc at three redshifts in noise, seen through their power in 8 bands
each. The logarithm of the power is a smooth nonlinear function of nine parameters (`Bands`); the likelihood is exact.
Networks read the logarithms of the 24 observed powers. All else is as in `eorinfer infer`: rows of a bank, fresh noise
at each epoch, the trainer of this package.

    python -m benchmarks.nine_parameters --out DIR                   everything: an hour of one core
    python -m benchmarks.nine_parameters --out DIR --simulations 600 --branches new --seeds 1
    python -m benchmarks.nine_parameters --out DIR --table           records what is there

Truths (500) are scored alone; each training chooses by the rows that it holds out itself.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from benchmarks.record import record
from eorinfer import Architecture, Bank, EmbeddingSettings, FlowSettings, Prior, Trainer, TrainingSettings
from eorinfer.bank.rows import Plan
from eorinfer.core.files import read_json, whole_folder, write_json
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.survey import NoSurvey
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey.base import Survey
from eorinfer.training.data import split_rows
from eorinfer.validation.calibration import calibrate
from simulators.base import Observable, Parameter, SimulatorSettings, Symmetry

TRUTHS, SAMPLES = 500, 500
#: Draws from the prior by whose weights each exact posterior is known.
LIBRARY = 150_000
REDSHIFTS, BANDS = 3, 8
#: How nonlinear log P is in theta: arguments of the 14 hyperbolic tangents scatter by this much over the prior.
BEND = 0.6
#: Power of the noise in each band, in units in which the signal's is about 200 at the middle band.
NOISE = np.repeat(200 * np.exp(2.85) * np.array([1.0, 0.8, 0.65]), BANDS)


class Bands(SimulatorSettings):
    """Power of the signal's modes in each band: a chi-squared variable, since modes are Gaussian."""

    kind: str = "bands"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe nine parameters in [-1, 1]."""
        return tuple(Parameter(f"p{i}", f"p_{i}", -1.0, 1.0, 0.0) for i in range(9))

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe ``bands``, a vector for each redshift."""
        symmetry = Symmetry(periodic=(False,), rotations="none")
        return (Observable("bands", (REDSHIFTS, BANDS), "", ("redshift", "band"), (0.0,), (7.0, 8.0, 9.0), symmetry),)

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Draw the mean power of the modes of each band."""
        modes, spectrum = known_spectrum()
        power = spectrum(np.asarray(theta)[None])[0]
        clean = power * np.random.default_rng(seed).gamma(modes, 1 / modes)
        return {"bands": clean.astype(np.float32).reshape(REDSHIFTS, BANDS)}


def known_spectrum() -> tuple[NDArray[np.float64], Any]:
    """Numbers of modes (24,), and the function of theta (n, 9) to P (n, 24)."""
    spectrum = PowerSpectrum((24,) * 3, (192.0,) * 3, n_bins=BANDS)
    modes, log_k = np.tile(spectrum.counts.numpy(), REDSHIFTS), np.log(spectrum.k.numpy())
    x, z, rng = (log_k - log_k.mean())[None], np.array([-1.0, 0.0, 1.0])[:, None], np.random.default_rng(20)
    units = 14
    weight, offset = BEND * rng.normal(size=(units, 9)) / np.sqrt(3), 0.5 * BEND * rng.normal(size=units)
    one = np.ones((REDSHIFTS, BANDS))
    basis = np.stack([one, one * x, one * z, x * z, one * x**2, one * z**2])
    scale = 0.31 / BEND * np.array([1.0, 0.5, 0.6, 0.35, 0.25, 0.3])
    amplitude = np.einsum("hb,bzk->hzk", rng.normal(size=(units, 6)) * scale, basis).reshape(units, -1)
    base = (np.log(200.0) - 2.6 * x * one).ravel()

    def power(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(base + np.tanh(theta @ weight.T + offset) @ amplitude))

    return modes, power


class BandNoise(Survey):
    """Add Gaussian noise to the modes of each band, and take the logarithm of their mean power.

    Of the modes only their power is kept: with that of the signal s² and unit noise it is noncentral chi-squared, which
    is (s + a)² + b of a standard normal a and a chi-squared b.
    """

    def __init__(self) -> None:
        super().__init__()
        modes, _ = known_spectrum()
        shape = (REDSHIFTS, BANDS)
        self._freedom = torch.from_numpy(2 * modes).float().reshape(shape)
        self._noise = torch.from_numpy(NOISE).float().reshape(shape)

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe mean powers (B, 3, 8)."""
        normal = torch.randn(clean.shape, generator=generator)
        first = (torch.sqrt(self._freedom * clean) + self._noise.sqrt() * normal).square()
        shape = ((self._freedom - 1) / 2).expand(clean.shape)
        rest = 2 * torch._standard_gamma(shape, generator=generator)
        return torch.log((first + self._noise * rest) / self._freedom)


@dataclass(frozen=True)
class Truths:
    """Test observations and what the exact posterior says of them.

    Attributes
    ----------
    theta, observed
        (T, 9) and (T, 3, 8).
    log_density
        (T,) exact log posterior density at the truth.
    std
        (T, 9) exact standard deviations.
    effective
        (T,) effective numbers of weighted draws.
    """

    theta: NDArray[np.float64]
    observed: Tensor
    log_density: NDArray[np.float64]
    std: NDArray[np.float64]
    effective: NDArray[np.float64]


def truths(folder: Path) -> Truths:
    """Make the test observations and their exact posteriors, or read them."""
    path = folder / f"truths-{TRUTHS}.npz"
    rng, simulator, survey = np.random.default_rng(77), Bands(), BandNoise()
    modes, power = known_spectrum()
    theta = rng.uniform(-1, 1, (TRUTHS, 9))
    clean = np.stack([simulator.simulate(t, i)["bands"] for i, t in enumerate(theta)])
    observed = survey(torch.from_numpy(clean), torch.Generator().manual_seed(78))
    if not path.exists():
        library = rng.uniform(-1, 1, (LIBRARY, 9))
        total = power(library) + NOISE
        constant, inverse, at = np.log(total) @ modes, 1 / total, power(theta) + NOISE
        found = []
        for i, x in enumerate(observed.flatten(1).double().exp().numpy()):
            log_l = -(constant + inverse @ (modes * x))
            log_z = logsumexp(log_l) - np.log(LIBRARY)
            weights = np.exp(log_l - logsumexp(log_l))
            mean = weights @ library
            log_q = -(np.log(at[i]) @ modes + (modes * x / at[i]).sum()) - log_z - 9 * np.log(2)
            found.append([log_q, 1 / np.square(weights).sum(), *np.sqrt(weights @ (library - mean) ** 2)])
        np.savez(path, found=np.array(found))
    with np.load(path) as kept:
        found = kept["found"]
    return Truths(theta, observed, found[:, 0], found[:, 2:], found[:, 1])


@dataclass(frozen=True)
class Branch:
    """A way to train: settings, and whether what older versions did not do is left out."""

    kind: str = "auto"
    training: dict[str, Any] | None = None
    folds: bool = True
    average: float = 0.99
    widen: bool = True


THREE = {"ensemble": 3, "emulate": "never"}
BRANCHES = {
    "old": Branch("zuko_nsf", THREE, folds=False, average=0.0, widen=False),
    "new": Branch(),
    "simulations-alone": Branch("auto", {"emulate": "never"}),
    "one-network": Branch("auto", {"ensemble": 1}),
    "nine-networks": Branch("auto", {"ensemble": 9}),
    "not-widened": Branch("none", THREE, widen=False),
    "normal": Branch("none", THREE),
    "flow": Branch("zuko_nsf", THREE),
    "mixture": Branch("mdn", THREE),
    "decay": Branch("none", THREE | {"weight_decay": 0.5}),
    "thorough": Branch("auto", {"effort": "thorough"}),
    "quick": Branch("auto", {"effort": "quick"}),
}


@contextmanager
def as_before(branch: Branch) -> Iterator[None]:
    """Leave out folds, averaged weights or widening while a branch trains."""
    with (
        patch("eorinfer.npe.trainer.AVERAGE", branch.average),
        patch("eorinfer.npe.held_out.WIDENINGS", np.geomspace(1, 3, 56) if branch.widen else np.ones(1)),
    ):
        if branch.folds:
            yield
        else:
            with (
                patch("eorinfer.npe.trainer.split_rows", lambda rows, fraction, fold: split_rows(rows, fraction)),
                patch("eorinfer.npe.trainer.choosing_rows", lambda seed, held: held),
            ):
                yield


def measure(name: str, simulations: int, seed: int, out: Path) -> dict[str, Any]:
    """Train once, on from what a stopped call left, and score the test observations."""
    branch = BRANCHES[name]
    simulator = Bands()
    prior = Prior(simulator.parameters)
    training = TrainingSettings(**(branch.training or {}))
    flow = FlowSettings(kind=branch.kind, hidden=(32, 32))
    if branch.kind == "mdn":
        flow = FlowSettings(kind="mdn", options={"num_components": 3})
    architecture = Architecture(EmbeddingSettings(), flow, PowerSpectrumSettings())
    trainer = Trainer(prior, simulator.observables[0], NoSurvey(), BandNoise(), architecture, training)
    start, folder = time.process_time(), out / f"training-{name}-{simulations}-{seed}"
    bank = _bank(out / f"bank-{simulations}-{seed}", simulations, seed)
    with as_before(branch):
        posterior = trainer.train(bank, bank.rows().ok, folder=folder, seed=seed)
    found = score(posterior, truths(out), seed) | {"cpu_seconds": time.process_time() - start}
    shutil.rmtree(folder)
    return found


def _bank(path: Path, simulations: int, seed: int) -> Bank:
    """Simulate, or open what is there."""
    if path.exists():
        return Bank.open(path)
    simulator, rng = Bands(), np.random.default_rng([1, seed])
    prior = Prior(simulator.parameters)
    with whole_folder(path) as temporary:
        bank = Bank.create(temporary, simulator)
        theta, seeds = prior.sample(simulations, rng), rng.integers(0, 2**32, simulations, dtype=np.uint64)
        plan = bank.add(Plan("01-abc", 1, prior.hash(), simulations, theta, seeds))
        rows = np.stack([simulator.simulate(t, int(s))["bands"] for t, s in zip(theta, seeds, strict=True)])
        status, message, seconds = (["ok"] * simulations, [""] * simulations, [0.001] * simulations)
        bank.write_shard(plan, 0, status=status, message=message, seconds=seconds, arrays={"bands": rows})
    return Bank.open(path)


def score(posterior: Posterior, known: Truths, seed: int) -> dict[str, Any]:
    """Nats below the exact posterior, calibration and widths on the test observations."""
    read = posterior.read(known.observed)
    at = log_density(posterior.networks, known.theta[:, None], read)[:, 0]
    draws = draw(posterior, read, SAMPLES, seed).values
    log_q = log_density(posterior.networks, draws, read)
    found = calibrate(posterior.prior.names, (known.theta + 1) / 2, (draws + 1) / 2, at, log_q, seed)
    inside = (log_q > at[:, None]).mean(1)
    below, log_ratio = known.log_density - at, np.log(draws.std(1) / known.std)[known.effective > 50]
    return {
        "nats_below_exact": float(below.mean()),
        "error": float(below.std(ddof=1) / len(below) ** 0.5),
        "inside_50_68_95": [float((inside <= level).mean()) for level in (0.5, 0.68, 0.95)],
        "p": found.worst.p_holm,
        "worst": found.worst.quantity,
        "width_over_exact": float(np.exp(log_ratio.mean())),
        "widening": posterior.networks[0].widening,
        "flow": posterior.architecture.flow.kind,
        "emulated": posterior.facts["emulated"],
        "gains": posterior.facts["gains"],
        "out_of_fold_loss": float(np.mean([fit["validation_loss"] for fit in posterior.facts["fits"]])),
    }


def main() -> None:
    """Fill the folder with results, or record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--simulations", type=int, nargs="+", default=[600, 2000, 6000])
    parser.add_argument("--branches", nargs="+", choices=list(BRANCHES), default=list(BRANCHES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--table", action="store_true", help="compute nothing, record what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.table:
        write_table(arguments.out)
        return
    for simulations in arguments.simulations:
        for seed in arguments.seeds:
            for name in arguments.branches:
                path = arguments.out / f"{name}.{simulations}.{seed}.json"
                if not path.exists():
                    found = measure(name, simulations, seed, arguments.out)
                    write_json(path, found)
                    print(path.stem, found, flush=True)


def write_table(out: Path) -> None:
    """Average over seeds, print, and record."""
    known, figures, seconds = truths(out), [], 0.0
    for simulations in (600, 2000, 6000):
        for name in BRANCHES:
            found = [read_json(path) for path in sorted(out.glob(f"{name}.{simulations}.*.json"))]
            if not found:
                continue
            nats = np.array([one["nats_below_exact"] for one in found])
            seconds += sum(one["cpu_seconds"] for one in found)
            figures.append(
                {
                    "simulations": simulations,
                    "branch": name,
                    "seeds": len(found),
                    "nats_below_exact": round(float(nats.mean()), 3),
                    "error_of_seeds": round(float(nats.std(ddof=1) / len(nats) ** 0.5), 3) if len(nats) > 1 else None,
                    "p": [float(f"{one['p']:.2g}") for one in found],
                    "inside_50_68_95": np.mean([one["inside_50_68_95"] for one in found], axis=0).round(3).tolist(),
                    "width_over_exact": round(float(np.mean([one["width_over_exact"] for one in found])), 3),
                    "widening": [round(one["widening"], 2) for one in found],
                    "flow": [one["flow"] for one in found],
                    "emulated": [one.get("emulated", False) for one in found],
                    "cpu_seconds": round(float(np.mean([one["cpu_seconds"] for one in found]))),
                }
            )
            print(figures[-1])
    exact = {"gain": round(float((known.log_density + 9 * np.log(2)).mean()), 2), "truths": TRUTHS}
    record("nine_parameters", {"exact": exact, "rows": figures}, seconds=seconds)


if __name__ == "__main__":
    main()
