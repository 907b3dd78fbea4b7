"""Pairs of an observed map and the lines in it, from the clean lines of a bank."""

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

#: Rows whose lines must add up to the image before anything is trained on them.
CHECKED = 8


@dataclass(frozen=True)
class Target:
    """One map that is to be found: a line, in one channel of the image."""

    name: str
    channel: int


def find_targets(observables: tuple[Observable, ...], wanted: tuple[str, ...]) -> tuple[Target, ...]:
    """Targets as the config asks for them.

    Parameters
    ----------
    observables
        Observables of a simulator: the image first, then the lines that it is the sum of.
    wanted
        ``NAME`` or ``NAME:CHANNEL``; empty for the default of ``[separation] targets``.

    Raises
    ------
    ValueError
        If there is no such line or channel; says which there are.
    """
    image, lines = observables[0], [o.name for o in observables[1:] if o.shape == observables[0].shape]
    channels = image.shape[0]
    if not lines:
        raise ValueError(f'the simulator gives "{image.name}" alone, and no lines that it is the sum of')
    if not wanted:
        chosen = lines if channels == 1 else lines[:channels]
        return tuple(Target(name, i % channels) for i, name in enumerate(chosen))
    found = []
    for i, text in enumerate(wanted):
        name, colon, number = text.partition(":")
        channel = int(number) if number.isdecimal() else -1 if colon else i % channels
        if name not in lines or not 0 <= channel < channels:
            raise ValueError(
                f'targets: "{text}" is not a line of this simulator: NAME or NAME:CHANNEL with NAME one of '
                f"{', '.join(lines)} and CHANNEL from 0 to {channels - 1}"
            )
        found.append(Target(name, channel))
    if len(set(found)) < len(found):
        raise ValueError(f"targets: {', '.join(wanted)}: each may be given once")
    return tuple(found)


def share_channels(image: Observable) -> bool:
    """Whether two cubes of an image hold the same channels of the instrument, and so the same data."""
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
        Valid rows; those of one seed share initial conditions and stay together.
    validation, test
        Expected shares of the realisations.

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
    # So few that one part has none.
    if not (part == 2).any():
        part[lowest[0]] = 2
    if not (part == 1).any():
        part[lowest[(part == 2).sum()]] = 1
    if not (part == 0).any():
        part[lowest[-1]] = 0
    return Split(*(rows[part[inverse] == i] for i in range(3)))


class Lines(Batches):
    """Clean lines of bank rows, as batches (B, L, C, *cells); in memory when they are small, else read as asked.

    Parameters
    ----------
    bank, rows
        Bank and rows, all ``ok``.
    """

    def __init__(self, bank: Bank, rows: Rows) -> None:
        image = bank.observables[0]
        self.names = line_names(bank)
        self._parts = [Cubes(bank, name, rows) for name in self.names]
        self._rows = len(rows)
        self.slow = any(part.slow for part in self._parts)
        some = list(range(min(CHECKED, len(rows))))
        total = torch.from_numpy(bank.read(image.name, rows[some]))
        if not torch.allclose(
            self.__getitems__(some)[0].sum(1), total, rtol=1e-3, atol=1e-4 * float(total.abs().max())
        ):
            raise WorkError(f"{bank.path}: {image.name} is not the sum of {', '.join(self.names)}")

    def __len__(self) -> int:
        return self._rows

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Lines (B, L, C, *cells)."""
        return (torch.stack([part.__getitems__(indices)[1] for part in self._parts], dim=1),)


def line_names(bank: Bank) -> list[str]:
    """The lines that the image of a bank is the sum of."""
    image = bank.observables[0]
    return [o.name for o in bank.observables[1:] if o.shape == image.shape]


class Pairs(nn.Module):
    """Lines to observed maps and targets, with fresh noise at each call.

    Parameters
    ----------
    survey
        Survey that observes the maps.
    symmetry
        Symmetry of the simulator's maps, for changes in training.
    names
        Names of the lines, in their order.
    targets
        Lines to find.
    mix
        Whether what comes from other volumes is taken from other rows of the batch, and turned by itself.
    """

    def __init__(
        self, survey: Survey, symmetry: Symmetry, names: list[str], targets: tuple[Target, ...], mix: bool = False
    ) -> None:
        super().__init__()
        self.survey, self._symmetry, self._mix = survey, symmetry, mix
        self._index = [names.index(target.name) for target in targets]
        self._channel = [target.channel for target in targets]

    def forward(self, lines: Tensor, generator: torch.Generator, *, training: bool = False) -> tuple[Tensor, Tensor]:
        """Observed maps (B, C, *cells) and targets (B, T, *cells) of lines (B, L, C, *cells).

        Parameters
        ----------
        lines
            Clean.
        generator
            Generator of noise, symmetries and mixing.
        training
            Mirror, turn and mix them first.
        """
        if training:
            lines = self._moved(lines, generator)
        observed = self.survey(lines.sum(1), generator)
        return observed, lines[:, self._index, self._channel]

    def _moved(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        n, channels = lines.shape[1:3]
        if not self._mix:
            return self._turned(lines, generator)
        if channels == 1:
            return torch.cat([self._of_others(lines[:, i : i + 1], generator) for i in range(n)], 1)
        # Of several cubes the first line in the first, the second in the second and so on are one structure.
        mixed, same = self._of_others(lines, generator), list(range(min(n, channels)))
        mixed[:, same, same] = self._turned(lines[:, same, same][:, None], generator)[:, 0]
        return mixed

    def _of_others(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        """Each map of the batch from another row."""
        order = torch.randperm(len(lines), generator=generator, device=generator.device)
        return self._turned(lines[order.to(lines.device)], generator)

    def _turned(self, lines: Tensor, generator: torch.Generator) -> Tensor:
        """Each row mirrored and turned as a whole: (B, L, C, *cells)."""
        return augment(lines.flatten(1, 2), self._symmetry, generator).view_as(lines)


def seeds_of(rows: Rows) -> list[int]:
    """Realisations of rows, in rising order."""
    unique: NDArray[np.uint64] = np.unique(rows.seed)
    return [int(seed) for seed in unique]
