"""Neural likelihood estimation (NLE) of the power spectrum: a flow in place of the Gaussian of the baseline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.inference.data import Tensors, validation_rows
from eorinfer.inference.emulator import Spectra
from eorinfer.inference.flow import as_theta, build_flow
from eorinfer.inference.settings import FlowSettings, TrainingSettings
from eorinfer.inference.training import FitRecord, fit
from eorinfer.prior import Prior
from eorinfer.progress import Progress
from simulators.base import derived_seed

#: Small ones: a few hundred realisations are soon known by heart.
FLOW = FlowSettings(kind="zuko_maf", transforms=2, hidden=(32, 32))
FIT = TrainingSettings(steps=600, epochs=1000, batch_size=256, learning_rate=3e-3, weight_decay=3e-2)
MEMBERS = 3


class SpectrumFlow(nn.Module):
    """p(P(k) | theta), up to a constant of the data: asinh P, less a mean and over a width that depend on theta, is
    modelled by sbi's flow, which depends on theta too.

    Parameters
    ----------
    prior
        Its box scales theta.
    power
        (n, D) spectra that scalings are taken from.
    """

    unit: Tensor
    centre: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, prior: Prior, power: Tensor) -> None:
        super().__init__()
        p, bins = len(prior.parameters), power.shape[1]
        positive = torch.where(power > 0, power, torch.nan)
        unit = torch.nan_to_num(positive.nanmedian(dim=0).values, nan=1.0) / 10
        scaled = torch.asinh(power / unit)
        self.register_buffer("unit", unit)
        self.register_buffer("centre", scaled.mean(0))
        self.register_buffer("spread", scaled.std(0).clamp_min(1e-3))
        self.register_buffer("low", torch.tensor(prior.low))
        self.register_buffer("high", torch.tensor(prior.high))
        self.moments = nn.Sequential(nn.Linear(p, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2 * bins))
        self.flow = build_flow(FLOW, bins, p)

    def forward(self, theta: Tensor, power: Tensor) -> Tensor:
        """Log p of spectra (B, D) float64, each at its theta (B, P) float64: (B,) float32."""
        u = (2 * (theta - self.low) / (self.high - self.low) - 1).float()
        x = ((torch.asinh(power / self.unit) - self.centre) / self.spread).float()
        mean, log_width = self.moments(u).chunk(2, dim=-1)
        log_width = log_width.clamp(-6, 6)
        z = (x - mean) * torch.exp(-log_width)
        log_p: Tensor = self.flow.log_prob(z[None], condition=u)[0] - log_width.sum(-1)
        return log_p

    def losses(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        """-log p (B,) of one draw of each row: theta (B, P), power (B, draws, D)."""
        theta, power = batch
        draw = torch.randint(power.shape[1], (), generator=generator, device=power.device)
        return -self(theta, power[:, draw])


@dataclass(frozen=True)
class NeuralLikelihood:
    """The mean of an ensemble of `SpectrumFlow`, and what was learned of each fit."""

    networks: tuple[SpectrumFlow, ...]
    fits: tuple[FitRecord, ...]

    def of(self, power: Tensor) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """The log likelihood of theta (n, P), (n,), for one spectrum (D,) float64."""

        def log_likelihood(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            t = as_theta(theta)
            with torch.no_grad():
                logs = torch.stack([network(t, power.expand(len(t), -1)).double() for network in self.networks])
            return (torch.logsumexp(logs, 0) - np.log(len(logs))).numpy()

        return log_likelihood


def train_neural_likelihood(
    spectra: Spectra, prior: Prior, *, folder: Path, seed: int, progress: Progress | None = None
) -> NeuralLikelihood:
    """Fit an ensemble, each with other weights, on from the checkpoints in `folder`.

    Papamakarios, Sterratt & Murray 2019 (arXiv 1805.07226), in one round.

    Parameters
    ----------
    spectra
        Of all rows; a tenth of the realisations chooses the best weights.
    prior, folder, seed, progress
        As for `eorinfer.inference.emulator.train_emulator`.
    """
    held = validation_rows(spectra.seed, 0.1)
    networks, fits = [], []
    for member in range(MEMBERS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, member))
            network = SpectrumFlow(prior, spectra.power.flatten(0, 1))
        fits.append(
            fit(
                network,
                Tensors(spectra.theta[~held], spectra.power[~held]),
                Tensors(spectra.theta[held], spectra.power[held]),
                FIT,
                folder=folder / f"{member:02d}",
                seed=derived_seed(seed, member, 1),
                title=f"likelihood of the power spectrum, network {member + 1} of {MEMBERS}",
                progress=progress,
            )
        )
        networks.append(network)
    return NeuralLikelihood(tuple(networks), tuple(fits))
