"""A separator on one observed map, of any size and as often as asked."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.seeds import item_seed
from eorinfer.separation.model import Separator

#: Tiles at once.
BATCH = 8


@dataclass(frozen=True)
class Separated:
    """Lines in an observed map.

    Attributes
    ----------
    lines
        (L, *cells): the result without dropout, or the mean of the draws.
    spread
        (L, *cells): standard deviation of the draws; None without any.
    draws
        (N, L, *cells); N may be 0.
    """

    lines: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    draws: NDArray[np.float32]


def separate(separator: Separator, observed: NDArray[np.float32], draws: int = 0, seed: int = 1) -> Separated:
    """Separate a map, in tiles where it is larger than those of training.

    Parameters
    ----------
    separator
        Trained.
    observed
        (C, *cells), in its unit and pixels.
    draws
        Number of draws; 0 for the one result without dropout.
    seed
        Seed of the draws.
    """
    source = torch.from_numpy(np.ascontiguousarray(observed, np.float32))
    if not draws:
        lines = tiled(separator, source).numpy()
        return Separated(lines, None, np.empty((0, *lines.shape), np.float32))
    made = np.stack([tiled(separator, source, item_seed(seed, i)).numpy() for i in range(draws)])
    # Of one draw the spread is not known; zero would say that it is.
    spread = made.std(0, ddof=1) if draws > 1 else np.full(made.shape[1:], np.nan, np.float32)
    return Separated(made.mean(0), spread, made)


@torch.no_grad()
def tiled(separator: Separator, observed: Tensor, seed: int | None = None) -> Tensor:
    """(C, *cells) to (L, *cells), by tiles of the size of training that overlap by half and fade into one another.

    Parameters
    ----------
    separator
        Trained.
    observed
        Observed maps, at least as large as those of training across the line of sight.
    seed
        Seed of a draw, None for no dropout. All tiles of a draw drop the same features, so that they agree
        where they overlap.
    """
    size = separator.meaning.observable.cells
    starts = [_starts(n, s) for n, s in zip(observed.shape[1:3], size[:2], strict=True)]
    weight = _weight(size)
    total = observed.new_zeros((len(separator.meaning.targets), *observed.shape[1:]))
    norm = observed.new_zeros(observed.shape[1:])
    places = list(itertools.product(*starts))
    for first in range(0, len(places), BATCH if seed is None else 1):
        some = places[first : first + (BATCH if seed is None else 1)]
        tiles = torch.stack([observed[:, x : x + size[0], y : y + size[1]] for x, y in some])
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for (x, y), made in zip(some, separator(tiles, generator), strict=True):
            total[:, x : x + size[0], y : y + size[1]] += weight * made
            norm[x : x + size[0], y : y + size[1]] += weight
    return total / norm


def _starts(n: int, tile: int) -> list[int]:
    """List where tiles begin along an axis of n cells, so that neighbours overlap by at least half."""
    count = 1 + math.ceil((n - tile) / max(1, tile // 2))
    return np.linspace(0, n - tile, count).round().astype(int).tolist() if count > 1 else [0]


def _weight(size: tuple[int, ...]) -> Tensor:
    """Weights of a tile's cells, falling smoothly towards its edges across the line of sight."""
    across = [torch.sin(torch.pi * (torch.arange(n) + 0.5) / n).square() for n in size[:2]]
    weight = across[0][:, None] * across[1]
    return weight.view(*size[:2], *(1,) * (len(size) - 2)).expand(size).contiguous()
