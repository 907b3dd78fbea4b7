"""Mean and covariance of the observed power spectrum at any theta, learned from the bank.

Folds of realisations keep residuals honest: the covariance is fitted to how far each row
is from a mean that has not seen its realisation, so that sample variance, noise and
the emulator's own error are all in it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from eorinfer.core.arrays import to_symmetric
from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import item_seed, second_item_seed
from eorinfer.likelihood.trust import DRAWS, distrust, information
from eorinfer.settings.likelihood import FOLDS, LEAST_REALISATIONS
from eorinfer.settings.npe import TrainingSettings
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.bundle import BundleKind
from eorinfer.training.data import NAMED, Cubes, Tensors, validation_rows
from eorinfer.training.fit import fit
from simulators import Symmetry

#: A standard deviation is never below this share of the bin's median power: empty boxes have none.
FLOOR = 1e-3
MEAN_FIT = TrainingSettings(steps=800, epochs=1000, batch_size=1024, learning_rate=5e-3, weight_decay=1e-3)
COVARIANCE_FIT = TrainingSettings(steps=600, epochs=1000, batch_size=1024, learning_rate=5e-3, weight_decay=3e-2)


@dataclass(frozen=True)
class Spectra:
    """Observed power spectra of bank rows.

    Attributes
    ----------
    theta
        (n, P) float64.
    seed
        (n,) of the realisations.
    power
        (n, draws, D) float64: each row through several draws of the survey, all bins of all channels.
    """

    theta: Tensor
    seed: np.ndarray
    power: Tensor

    def rows(self, chosen: np.ndarray) -> Tensors:
        """Give the theta and power of some rows, to train on."""
        return Tensors(self.theta[chosen], self.power[chosen], seeds=self.seed[chosen])


@torch.no_grad()
def observe_spectra(
    cubes: Cubes,
    seed: np.ndarray,
    survey: Survey,
    symmetry: Symmetry,
    power_spectrum: nn.Module,
    draws: int,
    noise_seed: int,
) -> Spectra:
    """Send bank rows through the survey, several times each.

    Parameters
    ----------
    cubes
        The rows.
    seed
        (n,) seeds of their realisations.
    survey, symmetry
        Survey and symmetry, as in training the posterior.
    power_spectrum
        (B, C, *cells) to (B, C, K).
    draws
        Number of noise draws of each row.
    noise_seed
        Seed of the survey's noise.
    """
    generator = torch.Generator().manual_seed(noise_seed)
    power = []
    for rows in np.array_split(np.arange(len(cubes)), max(1, len(cubes) // 64)):
        clean = cubes.__getitems__(rows.tolist())[1]
        several = [
            power_spectrum(survey(augment(clean, symmetry, generator), generator)).flatten(1) for _ in range(draws)
        ]
        power.append(torch.stack(several, dim=1).double())
    return Spectra(cubes.theta, seed, torch.cat(power))


class MeanNetwork(nn.Module):
    """Mean and standard deviation of each bin against theta.

    Works on asinh(P / unit), which is linear where power is zero and logarithmic
    where it is large; its loss is the Gaussian one in P itself, so that the mean
    is the mean of P.
    """

    unit: Tensor
    centre: Tensor
    spread: Tensor
    floor: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, parameters: int, bins: int) -> None:
        super().__init__()
        for name in ("unit", "centre", "spread", "floor"):
            self.register_buffer(name, torch.ones(bins, dtype=torch.float64))
        self.register_buffer("low", torch.zeros(parameters, dtype=torch.float64))
        self.register_buffer("high", torch.ones(parameters, dtype=torch.float64))
        self.logarithmic: tuple[int, ...] = ()
        self.layers = nn.Sequential(
            nn.Linear(parameters, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2 * bins)
        )

    def fit_scaling(self, prior: Prior, power: Tensor) -> None:
        """Take constants from the prior and from power (n, D)."""
        positive = torch.where(power > 0, power, torch.nan)
        median = torch.nan_to_num(positive.nanmedian(dim=0).values, nan=1.0)
        self.unit.copy_(median / 10)
        self.floor.copy_(FLOOR * median)
        scaled = torch.asinh(power / self.unit)
        self.centre.copy_(scaled.mean(0))
        self.spread.copy_(scaled.std(0).clamp_min(1e-3))
        low, high = prior.box
        self.low.copy_(torch.as_tensor(low))
        self.high.copy_(torch.as_tensor(high))
        self.logarithmic = tuple(np.flatnonzero(prior.logarithmic).tolist())

    def forward(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Theta (n, P) float64 to mean and standard deviation of P, (n, D) float64 each."""
        mean, log_share = self.layers(self.scaled(theta).float()).double().chunk(2, dim=-1)
        mean = (self.unit * torch.sinh(self.centre + self.spread * mean)).clamp_min(0.0)
        # Sample variance is a share of the power; the share starts at 10%.
        std = self.floor + 0.1 * torch.exp(log_share.clamp(-6, 6)) * (mean + self.unit)
        return mean, std

    def scaled(self, theta: Tensor) -> Tensor:
        """Theta (n, P) with the prior's box as [-1, 1]."""
        return to_symmetric(theta, self.low, self.high, self.logarithmic)

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Gaussian loss (B,) of one draw of each row: theta (B, P), power (B, draws, D)."""
        theta, power = batch
        draw = torch.randint(power.shape[1], (), generator=generator, device=power.device)
        mean, std = self(theta)
        loss: Tensor = (0.5 * ((power[:, draw] - mean) / std).square() + torch.log(std / self.floor)).mean(-1)
        return loss


class CorrelationNetwork(nn.Module):
    """Inverse Cholesky factor of the covariance of standardised residuals, against theta.

    z ~ N(0, (A^T A)^-1) with A lower triangular and its diagonal positive: positive
    definite for every theta. A is constant plus linear in theta.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(self, parameters: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        rows, columns = torch.tril_indices(bins, bins, offset=-1)
        self.register_buffer("_rows", rows)
        self.register_buffer("_columns", columns)
        self.diagonal = nn.Linear(parameters, bins)
        self.below = nn.Linear(parameters, len(rows))
        for layer in (self.diagonal, self.below):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """X (n, P), theta in [-1, 1], to A (n, D, D) float64."""
        a = torch.diag_embed(torch.exp(self.diagonal(x).clamp(-5, 5)).double())
        a[:, self._rows, self._columns] = self.below(x).double()
        return a

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Gaussian loss (B,) of one draw of each row: x (B, P), z (B, draws, D)."""
        x, z = batch
        draw = torch.randint(z.shape[1], (), generator=generator, device=z.device)
        a = self(x)
        white = torch.einsum("nij,nj->ni", a, z[:, draw])
        log_det = torch.log(torch.diagonal(a, dim1=1, dim2=2)).sum(-1)
        return (0.5 * white.square().sum(-1) - log_det) / self.bins


class Emulator(nn.Module):
    """Mean and full covariance of the power spectrum at theta.

    Parameters
    ----------
    parameters, bins
        Numbers of parameters P and of bins D.
    facts
        Notes on the training, saved with the weights.
    """

    bundle: ClassVar[BundleKind] = BundleKind("emulator", "emulator.json", 1)

    def __init__(self, parameters: int, bins: int, facts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.parameters_count, self.bins, self.facts = parameters, bins, facts or {}
        means = [MeanNetwork(parameters, bins) for _ in range(FOLDS)]
        for mean in means:
            mean.logarithmic = tuple(self.facts.get("logarithmic", ()))
        self.means = nn.ModuleList(means)
        self.correlation = CorrelationNetwork(parameters, bins)

    def forward(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Theta (n, P) float64 to the mean (n, D) and W (n, D, D): C = (W^T W)^-1, W lower triangular."""
        means, stds = zip(*(network(theta) for network in self.means), strict=True)
        mean = torch.stack(means).mean(0)
        std = torch.stack(stds).log().mean(0).exp()
        first: MeanNetwork = self.means[0]  # type: ignore[assignment]
        return mean, self.correlation(first.scaled(theta).float()) / std[:, None, :]

    def by_mean(self, network: MeanNetwork, theta: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the mean and standard deviation of one fold's network."""
        mean, std = network(theta)
        return mean, self.correlation(network.scaled(theta).float()) / std[:, None, :]

    def log_likelihood(self, power: Tensor, theta: Tensor) -> Tensor:
        """Ln N(power | mean(theta), C(theta)), ln det C included: (n,) for power (D,) or (n, D)."""
        mean, w = self(theta)
        white = torch.einsum("nij,nj->ni", w, power - mean)
        log_det = torch.log(torch.diagonal(w, dim1=1, dim2=2)).sum(-1)
        return -0.5 * (white.square().sum(-1) + self.bins * np.log(2 * np.pi)) + log_det

    def covariance(self, theta: Tensor) -> Tensor:
        """C(theta), (n, D, D)."""
        _, w = self(theta)
        return torch.linalg.inv(w.mT @ w)

    def own_error(self, theta: Tensor) -> Tensor:
        """Spread of the folds' means in units of the standard deviation, (n, D)."""
        means, stds = zip(*(network(theta) for network in self.means), strict=True)
        return torch.stack(means).std(0) / torch.stack(stds).mean(0)

    def save(self, folder: Path) -> None:
        """Write ``emulator.json`` and ``weights.safetensors`` whole."""
        description = {"parameters": self.parameters_count, "bins": self.bins, "facts": self.facts}
        self.bundle.write(folder, description, self.state_dict())

    @classmethod
    def load(cls, folder: Path) -> "Emulator":
        """Read what `save` wrote, on the CPU.

        Raises
        ------
        InputError
            If the folder has no emulator of this format.
        """
        with cls.bundle.reading(folder) as bundle:
            emulator = cls(bundle["parameters"], bundle["bins"], bundle["facts"])
            emulator.load_state_dict(bundle.weights)
            return emulator.eval()


def train_emulator(
    spectra: Spectra,
    prior: Prior,
    *,
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> Emulator:
    """Fit means fold by fold, then the covariance to the residuals that no mean has seen.

    Parameters
    ----------
    spectra
        Spectra of all rows of the run.
    prior
        Prior whose box scales theta.
    folder
        Folder for checkpoints; the caller deletes it.
    seed
        Seed of folds, weights and draws.
    progress
        Receives lines and bars.
    """
    progress = progress or Silent()
    _, _, bins = spectra.power.shape
    finite = torch.isfinite(spectra.power).flatten(1).all(1).numpy()
    if not finite.all():
        seeds = ", ".join(str(seed) for seed in np.unique(spectra.seed[~finite])[:NAMED])
        raise WorkError(
            f"the power spectrum of {int((~finite).sum())} of {len(finite)} rows is not a number (seeds {seeds}); "
            "look at their cubes (`eorinfer bank export`) and at [survey]"
        )
    realisations = len(np.unique(spectra.seed))
    if realisations < LEAST_REALISATIONS:
        raise WorkError(
            f"the power-spectrum emulator needs at least {LEAST_REALISATIONS} valid realisations, there are "
            f"{realisations} in {len(spectra.seed)} simulations; raise [inference] rounds"
        )
    logarithmic = np.flatnonzero(prior.logarithmic).tolist()
    emulator = Emulator(len(prior.parameters), bins, {"logarithmic": logarithmic} if logarithmic else None)
    fold = _folds(spectra.seed, seed)
    z, networks = torch.empty_like(spectra.power), []
    for k in range(FOLDS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(item_seed(seed, k))
            network = MeanNetwork(len(prior.parameters), bins)
        network.fit_scaling(prior, spectra.power.flatten(0, 1))
        rows = np.flatnonzero(fold != k)
        validate = validation_rows(spectra.seed[rows], 0.1)
        fit(
            network,
            spectra.rows(rows[~validate]),
            spectra.rows(rows[validate]),
            MEAN_FIT,
            folder=folder / f"mean-{k}",
            seed=second_item_seed(seed, k),
            title=f"emulator, mean {k + 1} of {FOLDS}",
            progress=progress,
        )
        emulator.means[k] = network
        networks.append(network)
        out = np.flatnonzero(fold == k)
        with torch.no_grad():
            mean, std = network(spectra.theta[out])
        z[out] = (spectra.power[out] - mean[:, None]) / std[:, None]
    x = network.scaled(spectra.theta).float()
    held = torch.from_numpy(validation_rows(spectra.seed, 0.15))
    fit(
        emulator.correlation,
        Tensors(x[~held], z[~held], seeds=spectra.seed[~held.numpy()]),
        Tensors(x[held], z[held], seeds=spectra.seed[held.numpy()]),
        COVARIANCE_FIT,
        folder=folder / "covariance",
        seed=item_seed(seed, FOLDS),
        title="emulator, covariance",
        progress=progress,
    )
    rms = float(z.square().mean().sqrt())
    error = float(emulator.own_error(spectra.theta).detach().square().mean().sqrt())
    progress.line(f"emulator: residuals {rms:.2f} sigma rms, its own error {error:.2f} sigma of them")
    draws = torch.from_numpy(prior.sample(DRAWS, np.random.default_rng(item_seed(seed, FOLDS + 1))))
    gains = torch.zeros(len(spectra.seed), dtype=torch.float64)
    for k, network in enumerate(networks):
        new = np.flatnonzero((fold == k) & held.numpy())
        gains[new] = information(partial(emulator.by_mean, network), spectra.theta[new], spectra.power[new, 0], draws)
    if doubt := distrust(gains[held], spectra.seed[held.numpy()]):
        progress.line(f"WARNING: {doubt}")
    return emulator.eval()


@torch.no_grad()
def whitened(emulator: Emulator, spectra: Spectra, seed: int) -> Tensor:
    """Residuals (n, draws, D) of spectra, each from the mean that has not seen its realisation, made white.

    The emulator was trained on these spectra, with this seed.
    """
    fold, z = _folds(spectra.seed, seed), torch.empty_like(spectra.power)
    for k, network in enumerate(emulator.means):
        out = np.flatnonzero(fold == k)
        mean, _ = network(spectra.theta[out])
        _, w = emulator(spectra.theta[out])
        z[out] = torch.einsum("nij,ndj->ndi", w, spectra.power[out] - mean[:, None])
    return z


def _folds(seed: np.ndarray, salt: int) -> np.ndarray:
    """Fold (n,) of each row; rows of one realisation are in one fold, folds are of equal size."""
    unique, inverse = np.unique(seed, return_inverse=True)
    order = np.random.default_rng(salt).permutation(len(unique))
    return (order % FOLDS)[inverse]
