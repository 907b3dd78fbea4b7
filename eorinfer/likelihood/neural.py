"""Neural likelihood estimation (NLE) of the power spectrum: a flow for what the baseline's Gaussian leaves."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.arrays import as_theta, to_symmetric
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import item_seed, second_item_seed
from eorinfer.likelihood.emulator import Emulator, Spectra, whitened
from eorinfer.networks.density import build_flow
from eorinfer.settings.npe import FlowSettings, TrainingSettings
from eorinfer.training.bundle import BundleKind, weights_of_members
from eorinfer.training.data import Tensors, validation_rows
from eorinfer.training.fit import FitRecord, fit

#: Small ones: a few hundred realisations are soon known by heart.
FLOW = FlowSettings(kind="zuko_maf", transforms=2, hidden=(32, 32))
FIT = TrainingSettings(steps=600, epochs=1000, batch_size=256, learning_rate=3e-3, weight_decay=3e-2)
MEMBERS = 3


class SpectrumFlow(nn.Module):
    """q(z | theta) of spectra that the emulator has whitened: a standard normal where its Gaussian is right.

    Parameters
    ----------
    prior
        Prior whose box scales theta.
    bins
        D, of P(k).
    """

    low: Tensor
    high: Tensor

    def __init__(self, prior: Prior, bins: int) -> None:
        super().__init__()
        low, high = prior.box
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self._logarithmic = np.flatnonzero(prior.logarithmic).tolist()
        self.flow = build_flow(FLOW, bins, len(prior.parameters))

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """Log q of z (B, D), each at its theta (B, P) float64: (B,) float32."""
        u = to_symmetric(theta, self.low, self.high, self._logarithmic).float()
        log_q: Tensor = self.flow.log_prob(z.float()[None], condition=u)[0]
        return log_q

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """-log q (B,) of one draw of each row: theta (B, P), z (B, draws, D)."""
        theta, z = batch
        draw = torch.randint(z.shape[1], (), generator=generator, device=z.device)
        return -self(theta, z[:, draw])


@dataclass(frozen=True)
class NeuralLikelihood:
    """ln p(P | theta): the emulator whitens P, the mean of an ensemble of `SpectrumFlow` is its density.

    Attributes
    ----------
    emulator
        Emulator, which is saved by itself.
    networks, fits
        The ensemble, and the losses of each.
    facts
        Notes on the training.
    """

    bundle: ClassVar[BundleKind] = BundleKind("neural likelihood", "likelihood.json", 1)

    emulator: Emulator
    networks: tuple[SpectrumFlow, ...]
    fits: tuple[FitRecord, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``likelihood.json`` and ``weights.safetensors`` whole."""
        description = {"members": len(self.networks), "bins": self.emulator.bins, "facts": self.facts}
        description["fits"] = [asdict(fit) for fit in self.fits]
        self.bundle.write(folder, description, weights_of_members(self.networks))

    @classmethod
    def load(cls, folder: Path, emulator: Emulator, prior: Prior) -> "NeuralLikelihood":
        """Read what `save` wrote, on the CPU, for the emulator and the prior of its training.

        Raises
        ------
        InputError
            If the folder has no neural likelihood of this format.
        """
        with cls.bundle.reading(folder) as bundle:
            networks = []
            for member in range(bundle["members"]):
                with torch.random.fork_rng(devices=[]):
                    network = SpectrumFlow(prior, bundle["bins"])
                network.load_state_dict(bundle.member(member))
                networks.append(network.eval())
            return cls(emulator, tuple(networks), tuple(FitRecord(**fit) for fit in bundle["fits"]), bundle["facts"])

    def for_spectrum(self, power: Tensor) -> LogLikelihood:
        """Log likelihood of one spectrum (D,) float64."""

        def log_likelihood(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            t = as_theta(theta)
            with torch.no_grad():
                mean, w = self.emulator(t)
                z = torch.einsum("nij,nj->ni", w, power - mean)
                log_det = torch.log(torch.diagonal(w, dim1=1, dim2=2)).sum(-1)
                logs = torch.stack([network(t, z).double() for network in self.networks])
            return (torch.logsumexp(logs, 0) - np.log(len(logs)) + log_det).numpy()

        return log_likelihood


def train_neural_likelihood(
    emulator: Emulator,
    spectra: Spectra,
    prior: Prior,
    *,
    emulator_seed: int,
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> NeuralLikelihood:
    """Fit an ensemble, each with other weights, on from the checkpoints in `folder`.

    Papamakarios, Sterratt & Murray 2019 (arXiv 1805.07226), in one round.

    Parameters
    ----------
    emulator
        Trained on the same rows.
    spectra
        Spectra of all rows; a tenth of the realisations chooses the best weights.
    emulator_seed
        Seed of the emulator's training: each row is whitened by the mean that has not seen its realisation.
    prior, folder, seed, progress
        See `eorinfer.likelihood.emulator.train_emulator`.
    """
    held, z = validation_rows(spectra.seed, 0.1), whitened(emulator, spectra, emulator_seed)
    networks, fits = [], []
    for member in range(MEMBERS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(item_seed(seed, member))
            network = SpectrumFlow(prior, z.shape[-1])
        fits.append(
            fit(
                network,
                Tensors(spectra.theta[~held], z[~held], seeds=spectra.seed[~held]),
                Tensors(spectra.theta[held], z[held], seeds=spectra.seed[held]),
                FIT,
                folder=folder / f"{member:02d}",
                seed=second_item_seed(seed, member),
                title=f"likelihood of the power spectrum, network {member + 1} of {MEMBERS}",
                progress=progress,
            )
        )
        networks.append(network)
    return NeuralLikelihood(emulator, tuple(networks), tuple(fits))
