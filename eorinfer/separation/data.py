"""Pairs of an observed map and the lines in it, from the clean lines of a bank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import WorkError
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.data import Batches, Cubes, realisation_ranks
from simulators import Observable, Symmetry

#: Number of rows for which the sum of the lines is compared with the image before training.
CHECKED = 8


@dataclass(frozen=True)
class Target:
    """One map that a separator finds: a line in one channel of the image."""

    name: str
    channel: int


def find_targets(observables: tuple[Observable, ...], wanted: tuple[str, ...]) -> tuple[Target, ...]:
    """Find the targets that a config names.

    Parameters
    ----------
    observables
        Observables of a simulator: the image first, then the lines that add up to it.
    wanted
        ``NAME`` or ``NAME:CHANNEL``; empty for the default of ``[separation] targets``.

    Raises
    ------
    ValueError
        If there is no such line or channel; the message lists them.
    """
    image, lines = observables[0], [o.name for o in observables[1:] if o.shape == observables[0].shape]
    channels = image.shape[0]
    if not lines:
        raise ValueError(f'the simulator gives "{image.name}" alone, and no lines that it is the sum of')
    if not wanted:
        chosen = lines if channels == 1 else lines[:channels]
        return tuple(Target(name, i % channels) for i, name in enumerate(chosen))
    targets = []
    for i, text in enumerate(wanted):
        name, colon, number = text.partition(":")
        channel = int(number) if number.isdecimal() else -1 if colon else i % channels
        if name not in lines or not 0 <= channel < channels:
            raise ValueError(
                f'targets: "{text}" is not a line of this simulator: NAME or NAME:CHANNEL with NAME one of '
                f"{', '.join(lines)} and CHANNEL from 0 to {channels - 1}"
            )
        targets.append(Target(name, channel))
    if len(set(targets)) < len(targets):
        raise ValueError(f"targets: {', '.join(wanted)}: each may be given once")
    return tuple(targets)


def share_channels(image: Observable) -> bool:
    """Tell whether two cubes of an image share channels of the instrument, and so data."""
    if not image.coordinates:
        return False
    z, first = np.array(image.coordinates), np.sort(image.channels)
    last = first * (1 + z[-1]) / (1 + z[0])
    return bool((first[1:] <= last[:-1] * (1 + 1e-6)).any())


@dataclass(frozen=True)
class Split:
    """Rows of a bank, split by realisation."""

    training: Rows
    validation: Rows
    test: Rows


def split(rows: Rows, validation: float, test: float) -> Split:
    """Split rows by realisation, always in the same way.

    Parameters
    ----------
    rows
        Valid rows; rows with the same seed share initial conditions and stay together.
    validation, test
        Expected shares of the realisations in these two parts.

    Raises
    ------
    WorkError
        If there are fewer than three realisations.
    """
    unique, inverse = np.unique(rows.seed, return_inverse=True)
    if len(unique) < 3:
        raise WorkError(
            f"{len(rows)} valid simulations of {len(unique)} realisation(s): a separation needs at least three, "
            "one each for training, validation and test; raise [separation] simulations"
        )
    rank = realisation_ranks(unique)
    part = np.where(rank < test, 2, np.where(rank < test + validation, 1, 0))
    lowest = np.argsort(rank)
    # With few realisations a part may be empty.
    if not (part == 2).any():
        part[lowest[0]] = 2
    if not (part == 1).any():
        part[lowest[(part == 2).sum()]] = 1
    if not (part == 0).any():
        part[lowest[-1]] = 0
    return Split(*(rows[part[inverse] == i] for i in range(3)))


class Lines(Batches):
    """Clean lines of bank rows, in batches (B, L, C, *cells); in memory if they are small, else read when needed.

    Parameters
    ----------
    bank, rows
        Bank, and rows of status ``ok``.
    """

    def __init__(self, bank: Bank, rows: Rows) -> None:
        image = bank.observables[0]
        self.names = line_names(bank.observables)
        self._lines = [Cubes(bank, name, rows) for name in self.names]
        self._rows = len(rows)
        self.slow = any(line.slow for line in self._lines)
        checked = list(range(min(CHECKED, len(rows))))
        total = torch.from_numpy(bank.read(image.name, rows[checked]))
        if not torch.allclose(
            self.__getitems__(checked)[0].sum(1), total, rtol=1e-3, atol=1e-4 * float(total.abs().max())
        ):
            raise WorkError(f"{bank.path}: {image.name} is not the sum of {', '.join(self.names)}")

    def __len__(self) -> int:
        return self._rows

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Read the lines (B, L, C, *cells) of rows."""
        return (torch.stack([line.__getitems__(indices)[1] for line in self._lines], dim=1),)

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        return self._lines[0].row_names(indices)


def line_names(observables: Sequence[Observable]) -> list[str]:
    """List the lines that add up to the image, which is the first of the observables."""
    image, *others = observables
    return [o.name for o in others if o.shape == image.shape]


class Pairs(nn.Module):
    """Make observed maps and targets from clean lines, with fresh noise at each call.

    Parameters
    ----------
    survey
        Survey that observes the sum of the lines.
    symmetry
        Symmetry of the simulator, by which maps are augmented in training.
    names
        Names of the lines, in their order.
    targets
        Lines and channels to find.
    mix
        Whether lines from other volumes are taken from other rows of the batch, and turned independently.
    """

    def __init__(
        self, survey: Survey, symmetry: Symmetry, names: list[str], targets: tuple[Target, ...], mix: bool = False
    ) -> None:
        super().__init__()
        self.survey, self._symmetry, self._mix = survey, symmetry, mix
        self._index = [names.index(target.name) for target in targets]
        self._channel = [target.channel for target in targets]

    def forward(self, lines: Tensor, generator: torch.Generator, *, training: bool = False) -> tuple[Tensor, Tensor]:
        """Make observed maps (B, C, *cells) and targets (B, T, *cells).

        Parameters
        ----------
        lines
            (B, L, C, *cells) clean lines.
        generator
            Source of noise, symmetries and mixing.
        training
            Whether to mirror, turn and mix the lines first.
        """
        if training:
            lines = self._augmented(lines, generator)
        observed = self.survey(lines.sum(1), generator)
        return observed, lines[:, self._index, self._channel]

    def _augmented(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        n, channels = lines.shape[1:3]
        if not self._mix:
            return self._turned(lines, generator)
        if channels == 1:
            return torch.cat([self._shuffled(lines[:, i : i + 1], generator) for i in range(n)], 1)
        # Line i in cube i shows the same structure for each i: these maps stay together.
        mixed, same = self._shuffled(lines, generator), list(range(min(n, channels)))
        mixed[:, same, same] = self._turned(lines[:, same, same][:, None], generator)[:, 0]
        return mixed

    def _shuffled(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        """Take each map of the batch from another row."""
        order = torch.randperm(len(lines), generator=generator, device=generator.device)
        return self._turned(lines[order.to(lines.device)], generator)

    def _turned(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        """Mirror and turn each row (L, C, *cells) as a whole."""
        return augment(lines.flatten(1, 2), self._symmetry, generator).view_as(lines)


def seeds_of(rows: Rows) -> list[int]:
    """List the realisations of rows, in rising order."""
    unique: NDArray[np.uint64] = np.unique(rows.seed)
    return [int(seed) for seed in unique]
