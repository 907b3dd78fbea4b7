"""A network that gives the spectra of a slow emulator a hundred times as fast, and nearly right."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor, nn

from eorinfer.core.kept_rows import read_rows, write_rows
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.bundle import BundleKind
from eorinfer.training.data import Tensors
from eorinfer.training.fit import fit

#: Spectra to learn from, those of them that choose the weights, and spectra that are computed and kept at a time.
ROWS, HELD_OUT, PIECE = 131_072, 2048, 8192
#: Width and number of residual layers.
WIDTH, LAYERS = 256, 3
FIT = TrainingSettings(steps=10_000, epochs=10_000, batch_size=1024, learning_rate=2e-3, weight_decay=0.0)
#: Steps, batches and rate by which it learns more where it is used.
MORE_STEPS, MORE_BATCH, MORE_RATE = 400, 256, 5e-4


class SpectrumNetwork(nn.Module):
    """Spectra against theta: the logarithm of Δ² plus a floor, below which noise hides it.

    Parameters
    ----------
    prior
        Prior whose box scales theta.
    floor
        (C, K) in the unit of Δ²; zero where nothing is hidden.
    facts
        Notes on the training, saved with the weights.
    """

    bundle: ClassVar[BundleKind] = BundleKind("network of spectra", "spectra.json", 1)
    centre: Tensor
    spread: Tensor

    def __init__(self, prior: Prior, floor: NDArray[np.float64], facts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.prior, self.floor, self.facts = prior, floor, facts or {}
        self.register_buffer("centre", torch.zeros(floor.size))
        self.register_buffer("spread", torch.ones(floor.size))
        self.first = nn.Linear(len(prior.parameters), WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(LAYERS)
        )
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, floor.size))

    def forward(self, v: Tensor) -> Tensor:
        """Theta in the prior's box [-1, 1] (n, P) to scaled numbers (n, C K)."""
        hidden = self.first(v)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        numbers: Tensor = self.last(hidden)
        return numbers

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Squared errors (B,) of scaled numbers (B, C K) at v (B, P)."""
        v, scaled = batch
        return (self(v) - scaled).square().mean(-1)

    def numbers(self, log_delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn ln Δ² (n, C, K) into what is learned, (n, C K)."""
        return np.log(np.exp(log_delta) + self.floor).reshape(len(log_delta), -1)

    @torch.no_grad()
    def log_delta(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give ln Δ² (n, C, K) at theta (n, P)."""
        scaled = self(_box(self.prior, theta)).double().numpy()
        numbers = self.centre.double().numpy() + self.spread.double().numpy() * scaled
        found = np.exp(numbers).reshape(len(theta), *self.floor.shape) - self.floor
        return np.log(np.maximum(found, np.finfo(np.float32).tiny))

    @torch.enable_grad()
    def taught(self, theta: NDArray[np.float64], log_delta: NDArray[np.float64], seed: int) -> "SpectrumNetwork":
        """Give a network that has learned more spectra, ln Δ² (n, C, K) at theta (n, P), around an observation.

        By a loop of its own: it takes seconds, so that no checkpoint is worth its while.
        """
        network = deepcopy(self)
        v = _box(self.prior, theta)
        scaled = (torch.from_numpy(self.numbers(log_delta)).float() - self.centre) / self.spread
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=MORE_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MORE_RATE, total_steps=MORE_STEPS)
        for _ in range(MORE_STEPS):
            rows = torch.randint(len(v), (MORE_BATCH,), generator=generator)
            optimizer.zero_grad()
            network.losses((v[rows], scaled[rows]), generator).mean().backward()
            optimizer.step()
            schedule.step()
        return network

    def save(self, folder: Path) -> None:
        """Write ``spectra.json`` and ``weights.safetensors`` whole."""
        description = {"prior": self.prior.to_json(), "floor": self.floor.tolist(), "facts": self.facts}
        self.bundle.write(folder, description, self.state_dict())

    @classmethod
    def load(cls, folder: Path) -> "SpectrumNetwork":
        """Read what `save` wrote, on the CPU.

        Raises
        ------
        InputError
            If the folder has no network of this format.
        """
        with cls.bundle.reading(folder) as bundle:
            network = cls(Prior.from_json(bundle["prior"]), np.array(bundle["floor"]), bundle["facts"])
            network.load_state_dict(bundle.weights)
            return network.eval()


def train_spectrum_network(
    spectra: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    prior: Prior,
    floor: NDArray[np.float64],
    *,
    folder: Path,
    key: str,
    seed: int,
    progress: Progress,
) -> SpectrumNetwork:
    """Compute spectra all over the prior's box, and learn them.

    Parameters
    ----------
    spectra
        Gives ln Δ² (n, C, K) at theta (n, P).
    prior, floor
        See `SpectrumNetwork`.
    folder, key
        Folder of spectra and checkpoints, on from which it goes, and the hash of what they depend on.
    seed
        Seed of theta, weights and order.
    progress
        Receives the bars.
    """
    unit = qmc.Sobol(len(prior.parameters), seed=seed).random(ROWS)
    log_delta = []
    with progress.bar("spectra to learn", ROWS) as advance:
        for start in range(0, ROWS, PIECE):
            path, piece = folder / f"spectra-{start:06d}.h5", unit[start : start + PIECE]
            rows = read_rows(path, key, ("log_delta",))
            if not rows:
                rows = [{"log_delta": row} for row in spectra(prior.from_unit(piece))]
                write_rows(path, key, rows)
            log_delta.append(np.array([row["log_delta"] for row in rows]))
            advance(len(piece), "")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SpectrumNetwork(prior, floor)
    numbers = network.numbers(np.concatenate(log_delta))
    network.centre.copy_(torch.from_numpy(numbers.mean(0)))
    network.spread.copy_(torch.from_numpy(numbers.std(0).clip(min=1e-6)))
    scaled = (torch.from_numpy(numbers).float() - network.centre) / network.spread
    v = torch.from_numpy(2 * unit - 1).float()
    known, new = (Tensors(v[rows], scaled[rows]) for rows in (slice(HELD_OUT, None), slice(HELD_OUT)))
    fit(network, known, new, FIT, folder=folder, seed=seed, title="network of spectra", progress=progress)
    with torch.no_grad():
        off = ((network(v[:HELD_OUT]) - scaled[:HELD_OUT]) * network.spread).abs()
    network.facts |= {"median_error": float(off.median()), "error_99": float(torch.quantile(off.flatten(), 0.99))}
    return network


def _box(prior: Prior, theta: NDArray[np.float64]) -> Tensor:
    """Theta (n, P) in the prior's box as [-1, 1], float32."""
    return torch.from_numpy(2 * prior.unit(theta) - 1).float()
