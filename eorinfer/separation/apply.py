"""Apply a separator to one observed map of any size, with any number of draws."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.seeds import item_seed
from eorinfer.separation.model import Separator

#: Number of tiles separated at once.
BATCH = 8


@dataclass(frozen=True)
class Separated:
    """Lines in an observed map.

    Attributes
    ----------
    lines
        (L, *cells) result without dropout, or the mean of the draws.
    spread
        (L, *cells) standard deviation of the draws; None without draws.
    draws
        (N, L, *cells) draws; N may be 0.
    """

    lines: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    draws: NDArray[np.float32]


def separate(separator: Separator, observed: NDArray[np.float32], draws: int = 0, seed: int = 1) -> Separated:
    """Separate a map, in tiles where it is larger than the maps of training.

    Parameters
    ----------
    separator
        Trained separator.
    observed
        (C, *cells) map in the unit and pixels of training.
    draws
        Number of draws; 0 for the result without dropout.
    seed
        Seed of the draws.
    """
    source = torch.from_numpy(np.ascontiguousarray(observed, np.float32))
    if not draws:
        lines = tiled(separator, source).numpy()
        return Separated(lines, None, np.empty((0, *lines.shape), np.float32))
    made = np.stack([tiled(separator, source, item_seed(seed, i)).numpy() for i in range(draws)])
    # The spread of one draw is unknown, not zero.
    spread = made.std(0, ddof=1) if draws > 1 else np.full(made.shape[1:], np.nan, np.float32)
    return Separated(made.mean(0), spread, made)


@torch.no_grad()
def tiled(separator: Separator, observed: Tensor, seed: int | None = None) -> Tensor:
    """Separate a map (C, *cells) into (L, *cells), by tiles of the size of training that overlap by half and fade.

    Parameters
    ----------
    separator
        Trained separator.
    observed
        (C, *cells) map, at least as large as in training across the line of sight.
    seed
        Seed of a draw; None for the result without dropout. All tiles of a draw drop the same features, so that they
        agree where they overlap.
    """
    size = separator.spec.observable.cells
    starts = [_starts(n, s) for n, s in zip(observed.shape[1:3], size[:2], strict=True)]
    weight = _weight(size)
    total = observed.new_zeros((len(separator.spec.targets), *observed.shape[1:]))
    norm = observed.new_zeros(observed.shape[1:])
    places = list(itertools.product(*starts))
    for first in range(0, len(places), BATCH if seed is None else 1):
        batch = places[first : first + (BATCH if seed is None else 1)]
        tiles = torch.stack([observed[:, x : x + size[0], y : y + size[1]] for x, y in batch])
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for (x, y), made in zip(batch, separator(tiles, generator), strict=True):
            total[:, x : x + size[0], y : y + size[1]] += weight * made
            norm[x : x + size[0], y : y + size[1]] += weight
    return total / norm


def _starts(n: int, tile: int) -> list[int]:
    """List the first cells of tiles along an axis of n cells, so that neighbours overlap by at least half."""
    count = 1 + math.ceil((n - tile) / max(1, tile // 2))
    return np.linspace(0, n - tile, count).round().astype(int).tolist() if count > 1 else [0]


def _weight(size: tuple[int, ...]) -> Tensor:
    """Compute weights of a tile's cells that fall smoothly towards its edges across the line of sight."""
    across = [torch.sin(torch.pi * (torch.arange(n) + 0.5) / n).square() for n in size[:2]]
    weight = across[0][:, None] * across[1]
    return weight.view(*size[:2], *(1,) * (len(size) - 2)).expand(size).contiguous()
