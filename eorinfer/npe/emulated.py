"""Training rows that an emulator makes: as many data vectors as a network wants, where simulations are few.

A network learns p(theta | x) from pairs that are scattered over all of the prior; with many parameters a few hundred
are thin. The mean vector is a smooth function of theta that the same pairs determine better than the posterior: each of
its elements is a regression in theta alone. So an emulator learns that mean, and a new row is the mean at a new theta
and what a random simulation differs by from a mean that has not seen it: sample variance, and the emulator's own error.
Noise is the survey's, as always. Whether the rows are good enough, held-out simulations decide.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.progress import Progress
from eorinfer.npe.density import ThetaDensity
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.data import Part, Tensors, validation_rows
from eorinfer.training.fit import fit

#: Networks of the mean, each of which a fold of realisations is new to.
FOLDS = 5
#: Rows that are made, at most, and numbers in them all.
ROWS, NUMBERS = 32768, 50_000_000
#: Width of a network's two hidden layers.
HIDDEN = 64
FIT = TrainingSettings(steps=1000, epochs=1000, batch_size=256, learning_rate=1e-2, weight_decay=0.05)
#: Share of the averaged weights that a step keeps.
AVERAGE = 0.99


class Layers(nn.Module):
    """Linear layers of several networks at once.

    Parameters
    ----------
    networks, inputs, outputs
        Numbers of each.
    """

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(networks, inputs, outputs) - 1) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(networks, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """X (networks or 1, B, inputs) to (networks, B, outputs)."""
        return x @ self.weight + self.bias


class VectorEmulator(nn.Module):
    """Means of data vectors against theta, by one network for each fold, which does not learn from it.

    Vectors whose elements are all positive are seen through their logarithm.

    Parameters
    ----------
    vectors
        (n, D) of the simulations, by which elements are scaled.
    parameters
        Number P of parameters.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, vectors: Tensor, parameters: int) -> None:
        super().__init__()
        size = vectors.shape[1]
        self.positive = bool((vectors > 0).all())
        seen = vectors.log() if self.positive else vectors
        self.register_buffer("centre", seen.mean(0))
        self.register_buffer("spread", seen.std(0).clamp_min(1e-12))
        self.linear = Layers(FOLDS, parameters, size)
        self.hidden = nn.Sequential(
            *(Layers(FOLDS, parameters, HIDDEN), nn.SiLU(), Layers(FOLDS, HIDDEN, HIDDEN), nn.SiLU()),
            Layers(FOLDS, HIDDEN, size),
        )
        self.log_scatter = nn.Parameter(torch.full((size,), -1.0))

    def forward(self, v: Tensor) -> Tensor:
        """Theta in the prior's box (B, P), as networks see it, to scaled means (FOLDS, B, D)."""
        means: Tensor = self.linear(v[None]) + self.hidden(v[None])
        return means

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Gaussian losses (B,) of scaled vectors (B, D) at v (B, P), of folds (B,).

        In training they are those of the networks that learn from a row, in validation that of the one that does not.
        """
        v, scaled, fold = batch
        new = nn.functional.one_hot(fold, FOLDS).T.to(scaled)  # (FOLDS, B)
        counts = 1 - new if self.training else new
        pull = (scaled - self(v)) * torch.exp(-self.log_scatter)
        each = (0.5 * pull.square() + self.log_scatter).mean(-1)
        loss: Tensor = (each * counts).sum(0) / counts.sum(0)
        return loss

    def scaled(self, vectors: Tensor) -> Tensor:
        """Standardise vectors (n, D), or their logarithm."""
        return ((vectors.log() if self.positive else vectors) - self.centre) / self.spread

    def unscaled(self, scaled: Tensor) -> Tensor:
        """Undo `scaled`."""
        seen = scaled * self.spread + self.centre
        return seen.exp() if self.positive else seen


def emulated_rows(
    rows: Part,
    realisation: NDArray[np.uint64],
    network: ThetaDensity,
    draw: Callable[[int, np.random.Generator], NDArray[np.float64]],
    *,
    folder: Path,
    seed: int,
    title: str,
    progress: Progress | None = None,
) -> Tensors:
    """Make rows by an emulator that is trained on others.

    Parameters
    ----------
    rows
        Simulations to learn from, (B, C, n) each.
    realisation
        (n,) seeds of their realisations; rows of one share a fold.
    network
        Posterior network, for its scaling of theta.
    draw
        Gives n new theta (n, P) of the distribution that the simulations' theta are from.
    folder
        Folder of checkpoints.
    seed
        Seed of weights, order, and of what is drawn.
    title, progress
        Name of the fit, and what receives its bar.

    Returns
    -------
    Tensors
        Theta (m, P) and clean vectors (m, C, n).
    """
    theta, clean = rows.__getitems__(list(range(len(rows))))
    vectors = clean.flatten(1).float()
    fold = torch.zeros(len(theta), dtype=torch.long)
    for number in range(1, FOLDS):
        fold[torch.from_numpy(validation_rows(realisation, 1 / FOLDS, number))] = number
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        emulator = VectorEmulator(vectors, theta.shape[1])
    v, scaled = network.to_box(theta).float(), emulator.scaled(vectors)
    known = Tensors(v, scaled, fold)
    fit(emulator, known, known, FIT, folder=folder, seed=seed, title=title, progress=progress, average=AVERAGE)
    with torch.no_grad():
        left = scaled - emulator(v)[fold, torch.arange(len(fold))]
        rng = np.random.default_rng(seed)
        count = max(1, min(ROWS, NUMBERS // vectors.shape[1]))
        new = torch.from_numpy(draw(count, rng))
        means = emulator(network.to_box(new).float()).mean(0)
        made = emulator.unscaled(means + left[torch.from_numpy(rng.integers(len(left), size=count))])
    return Tensors(new, made.reshape(count, *clean.shape[1:]))
