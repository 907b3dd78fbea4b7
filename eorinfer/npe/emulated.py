"""Training rows that an emulator makes: as many as a network wants, where simulations are few.

A network learns p(theta | x) from pairs that are scattered over all of the prior; with many parameters a few hundred
are thin. The mean of a data vector, or of the logarithm of a spectrum, is a smooth function of theta that the same
pairs determine better than the posterior: each of its elements is a regression in theta alone. So an emulator learns
that mean. A new row is a simulation that is moved by the difference of two means: from its own theta, by a network that
has not seen it, to a new theta. What it differs by from its mean it keeps: sample variance, the emulator's own error,
and of a cube all phases. Noise is the survey's, as always. Whether such rows are good enough, held-out simulations
decide: cubes have the right spectrum at the new theta, and beyond it the shapes of the old one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.progress import Progress
from eorinfer.npe.density import ThetaDensity
from eorinfer.settings.npe import TrainingSettings
from eorinfer.summaries.chunks import chunked, in_chunks, joined
from eorinfer.summaries.surrogates import shells
from eorinfer.training.data import Batches, Part, Tensors, validation_rows
from eorinfer.training.fit import fit
from simulators import Observable

#: Networks of the mean, each of which a fold of realisations is new to.
FOLDS = 5
#: Rows that are made at most, and simulations that are read at once.
ROWS, PIECE = 131_072, 256
#: Weight decay times the number of rows, where these are many: the more they say, the less it should.
DECAY_ROWS = 150


@dataclass(frozen=True)
class Form:
    """Width and number of a network's hidden layers, and its fit.

    Attributes
    ----------
    name
        Name of its folder of checkpoints.
    hidden, layers
        Width and number.
    steps
        Steps of the fit.
    decay
        Weight decay, where rows are few.
    """

    name: str
    hidden: int
    layers: int
    steps: int
    decay: float

    def settings(self, rows: int) -> TrainingSettings:
        """Give the settings of the fit to a number of rows."""
        decay = min(self.decay, DECAY_ROWS / rows)
        return TrainingSettings(
            steps=self.steps, epochs=self.steps, batch_size=256, learning_rate=1e-2, weight_decay=decay
        )


#: Numbers that are smooth in theta are learned best by few layers, where noise is larger than what these leave.
#: Spectra of 21cm fields are steep in some combinations of parameters: with 500 and 2,000 simulations of nine, six
#: layers leave a fifth and a quarter of the squared error. Which of the two it is, rows say that a network did not see.
FORMS = (
    Form("smooth", 64, 2, 1000, 0.05),
    Form("steep", 48, 6, 3000, 0.3),
)
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


class Movable(Protocol):
    """What an emulator learns of clean arrays, and how these are moved."""

    numbers: Tensor

    def moved(self, clean: Tensor, shift: Tensor) -> Tensor:
        """Move clean arrays (n, C, *cells) so that their numbers rise by `shift` (n, D)."""


class MovableVectors:
    """The elements of data vectors; their logarithms where all are positive.

    Parameters
    ----------
    rows
        Simulations, whose numbers (n, D) are kept.
    """

    def __init__(self, rows: Batches) -> None:
        clean = torch.cat([clean.flatten(1) for clean in _pieces(rows)])
        self._positive = bool((clean > 0).all())
        self.numbers = clean.log() if self._positive else clean

    def moved(self, clean: Tensor, shift: Tensor) -> Tensor:
        """Move vectors (n, C, m) by `shift` (n, D)."""
        shift = shift.view(clean.shape)
        return clean * shift.exp() if self._positive else clean + shift


class MovableCubes:
    """The logarithms of power in shells of k of each channel; cubes are moved mode by mode.

    Parameters
    ----------
    rows
        Simulations, whose numbers (n, D) are kept.
    observable
        What they are.
    chunks
        Number of parts of a light-cone's line of sight, each of which has a spectrum of its own, and is moved by it.
    """

    def __init__(self, rows: Batches, observable: Observable, chunks: int = 1) -> None:
        part = chunked(observable, chunks)
        self._chunks = chunks
        self._shell = shells(part.cells, part.cell_size)
        self._axes = tuple(range(2, 2 + len(observable.cells)))
        power = torch.cat([self._power(clean) for clean in _pieces(rows)])
        # Far below what a shell usually has: some cubes are empty.
        floor = 1e-4 * power.median(0).values.clamp_min(torch.finfo(torch.float32).tiny)
        self.numbers = torch.maximum(power, floor).log()

    def moved(self, clean: Tensor, shift: Tensor) -> Tensor:
        """Move cubes (n, C, *cells) by `shift` (n, D)."""
        parts = in_chunks(clean, self._chunks)
        factor = (0.5 * shift).exp().view(*parts.shape[:2], -1)[..., self._shell]
        modes = torch.fft.rfftn(parts, dim=self._axes) * factor
        moved = joined(torch.fft.irfftn(modes, s=parts.shape[2:], dim=self._axes), self._chunks)
        return torch.cat([moved, clean[..., moved.shape[-1] :]], dim=-1)

    def _power(self, clean: Tensor) -> Tensor:
        """Mean of |modes|² in each shell, (n, D)."""
        squares = torch.fft.rfftn(in_chunks(clean, self._chunks), dim=self._axes).abs().square().flatten(2)
        shell = self._shell.flatten()
        count = torch.bincount(shell)
        sums = squares.new_zeros(*squares.shape[:2], len(count)).index_add_(2, shell, squares)
        return (sums / count).flatten(1)


def _pieces(rows: Batches) -> Iterator[Tensor]:
    """Clean arrays (B, C, *cells) of all rows, some at a time."""
    for start in range(0, len(rows), PIECE):
        yield rows.__getitems__(list(range(start, min(start + PIECE, len(rows)))))[1]


class MovedRows(Batches):
    """Simulations that are moved to new theta when they are read.

    Parameters
    ----------
    rows, movable
        Simulations, and how they are moved.
    theta, old, shift
        (m, P) new theta, (m,) the simulation that each is made of, and (m, D) by how much its numbers rise.
    """

    def __init__(self, rows: Batches, movable: Movable, theta: Tensor, old: Tensor, shift: Tensor) -> None:
        self._rows, self._movable, self._theta, self._old, self._shift = rows, movable, theta, old, shift
        self.slow = rows.slow

    def __len__(self) -> int:
        return len(self._theta)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Theta (B, P) and clean arrays (B, C, *cells)."""
        clean = self._rows.__getitems__(self._old[indices].tolist())[1]
        return self._theta[indices], self._movable.moved(clean, self._shift[indices])


class MeanEmulator(nn.Module):
    """Means of numbers against theta, by one network for each fold, which does not learn from it.

    Parameters
    ----------
    numbers
        (n, D) of the simulations, by which they are scaled.
    parameters
        Number P of parameters.
    form
        Sizes of the networks.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, numbers: Tensor, parameters: int, form: Form) -> None:
        super().__init__()
        size = numbers.shape[1]
        self.register_buffer("centre", numbers.mean(0))
        self.register_buffer("spread", numbers.std(0).clamp_min(1e-12))
        self.linear = Layers(FOLDS, parameters, size)
        widths = [parameters] + form.layers * [form.hidden]
        hidden = [layer for sizes in pairwise(widths) for layer in (Layers(FOLDS, *sizes), nn.SiLU())]
        self.hidden = nn.Sequential(*hidden, Layers(FOLDS, form.hidden, size))
        self.log_scatter = nn.Parameter(torch.full((size,), -1.0))

    def forward(self, v: Tensor) -> Tensor:
        """Theta in the prior's box (B, P), as networks see it, to scaled means (FOLDS, B, D)."""
        means: Tensor = self.linear(v[None]) + self.hidden(v[None])
        return means

    def of_folds(self, v: Tensor, fold: Tensor) -> Tensor:
        """Give scaled means (n, D) at v (n, P), each by the network that has not seen this row, of folds (n,)."""
        means: Tensor = self(v)[fold, torch.arange(len(v))]
        return means

    @torch.no_grad()
    def error(self, v: Tensor, numbers: Tensor, fold: Tensor) -> float:
        """Average ln of the mean distance of each of the numbers (n, D) from means that have not seen them."""
        left = (numbers - self.centre) / self.spread - self.of_folds(v, fold)
        return float(left.abs().mean(0).clamp_min(1e-12).log().mean())

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Losses (B,) of scaled numbers (B, D) at v (B, P), of folds (B,).

        In training they are those of the networks that learn from a row: of a hyperbolic density, normal in the middle
        with exponential tails. Where a universe is nearly ionised its spectrum is far from all others, and squares of
        such errors would rule the fit. In validation they are the mean distance from the network that does not learn
        from a row. A density would judge the scatter there, too, which becomes that of rows that are learned by heart:
        it was best in the middle of a fit, long before the means were.
        """
        v, scaled, fold = batch
        new = nn.functional.one_hot(fold, FOLDS).T.to(scaled)  # (FOLDS, B)
        counts = 1 - new if self.training else new
        left = scaled - self(v)
        pull = left * torch.exp(-self.log_scatter)
        each = (1 + pull.square()).sqrt() + self.log_scatter if self.training else left.abs()
        loss: Tensor = (each.mean(-1) * counts).sum(0) / counts.sum(0)
        return loss


def row_count(training: TrainingSettings) -> int:
    """Number of rows for a training: `ROWS`, or as many as it sees."""
    return min(ROWS, training.steps * training.batch_size)


def emulated_rows(
    rows: Part,
    realisation: NDArray[np.uint64],
    moves: NDArray[np.bool_],
    observable: Observable,
    network: ThetaDensity,
    draw: Callable[[int, np.random.Generator], NDArray[np.float64]],
    count: int,
    *,
    folder: Path,
    seed: int,
    title: str,
    chunks: int = 1,
    progress: Progress | None = None,
) -> MovedRows:
    """Make rows by an emulator that is trained on others: theta (B, P) and clean arrays (B, C, *cells).

    Parameters
    ----------
    rows, realisation
        Simulations to learn from, vectors or cubes, and the seeds (n,) of their realisations, which share a fold.
    moves
        (n,) which of them are moved: those of the distribution of new theta, as the emulator errs there. All, if none.
    observable
        What they are.
    network
        Posterior network, for its scaling of theta.
    draw
        Gives n new theta (n, P) of the distribution that the simulations' theta are from.
    count
        Number of rows.
    folder, seed
        Folder of checkpoints; seed of weights, order, and of what is drawn.
    title, progress
        Name of the fit, and what receives its bar.
    chunks
        Number of parts of a light-cone's line of sight, each of which has a spectrum of its own.
    """
    vectors = len(observable.cells) == 1
    movable: Movable = MovableVectors(rows) if vectors else MovableCubes(rows, observable, chunks)
    numbers = movable.numbers
    fold = torch.zeros(len(rows), dtype=torch.long)
    for number in range(1, FOLDS):
        fold[torch.from_numpy(validation_rows(realisation, 1 / FOLDS, number))] = number
    v = network.to_box(rows.theta).float()
    tried = [
        fitted_emulator(form, v, numbers, fold, folder / form.name, seed, f"{title}, {form.name}", progress)
        for form in FORMS
    ]
    emulator = min(tried, key=lambda one: one.error(v, numbers, fold))
    rng = np.random.default_rng(seed)
    movers = np.flatnonzero(moves if moves.any() else ~moves)
    new, old = torch.from_numpy(draw(count, rng)), torch.from_numpy(movers[rng.integers(len(movers), size=count)])
    with torch.no_grad():
        own = emulator.of_folds(v, fold)
        shift = (emulator(network.to_box(new).float()).mean(0) - own[old]) * emulator.spread
    return MovedRows(rows, movable, new, old, shift)


def fitted_emulator(
    form: Form,
    v: Tensor,
    numbers: Tensor,
    fold: Tensor,
    folder: Path,
    seed: int,
    title: str = "emulator",
    progress: Progress | None = None,
) -> MeanEmulator:
    """Fit an emulator of one form to numbers (n, D) at v (n, P), of folds (n,); the rest as for `emulated_rows`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        emulator = MeanEmulator(numbers, v.shape[1], form)
    known = Tensors(v, (numbers - emulator.centre) / emulator.spread, fold)
    settings = form.settings(len(v))
    fit(emulator, known, known, settings, folder=folder, seed=seed, title=title, progress=progress, average=AVERAGE)
    return emulator
