"""Apply a separator to observed maps of any size: the posterior mean of the lines, and draws beside it."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.errors import InputError
from eorinfer.core.seeds import WorkStream, item_seed, stream_seed
from eorinfer.separation.model import Separator

#: Number of draws of a GAN whose mean is its posterior mean, at least.
FEWEST = 8


@dataclass(frozen=True)
class Separated:
    """Lines in an observed map.

    Attributes
    ----------
    lines
        (L, *cells) posterior mean; for a GAN without draws its result without dropout.
    spread
        (L, *cells) standard deviation of the draws; None without draws.
    draws
        (N, L, *cells) draws, which with the noise add up to the observed map; N may be 0.
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
        Number of draws.
    seed
        Seed of the draws.

    Raises
    ------
    InputError
        If the separator makes no draws.
    """
    source = torch.from_numpy(np.ascontiguousarray(observed, np.float32))[None]
    if not draws:
        lines = estimate(separator, source)[0].numpy()
        return Separated(lines, None, np.empty((0, *lines.shape), np.float32))
    mean, several = posterior(separator, source, draws, seed)
    made = several[:, 0].numpy()
    # The spread of one draw is unknown, not zero.
    spread = made.std(0, ddof=1) if draws > 1 else np.full(made.shape[1:], np.nan, np.float32)
    return Separated(mean[0].numpy(), spread, made)


@torch.no_grad()
def estimate(separator: Separator, observed: Tensor) -> Tensor:
    """Estimate lines (B, L, *cells) in one pass of the network: the posterior mean, or a GAN without dropout."""
    lines = tiled(separator, observed, separator.spec.observable.cells)
    return lines if separator.spec.settings.kind == "cgan" else separator.correction.of_mean(observed, lines)


@torch.no_grad()
def posterior(separator: Separator, observed: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Compute posterior means (B, L, *cells) and draws (N, B, L, *cells) of lines in observed maps.

    Parameters
    ----------
    separator
        Trained separator.
    observed
        (B, C, *cells) maps, at least as large as in training across the line of sight.
    draws
        Number N of draws of each map.
    seed
        Seed of the draws; draw i does not depend on their number.

    Raises
    ------
    InputError
        If the separator makes no draws.
    """
    seeds = _seeds(seed, draws)
    if separator.spec.settings.kind == "cgan":
        more = [item_seed(seed, i) for i in range(draws, FEWEST)]
        raw = [gan_draw(separator, observed, one) for one in (*seeds, *more)]
        mean = separator.correction.of_mean(observed, torch.stack(raw).mean(0))
    else:
        mean = estimate(separator, observed)
        raw = [flow_draw(separator, observed, mean, one) for one in seeds]
    made = [
        separator.correction.of_draw(
            observed, mean, draw, _generator(observed, stream_seed(one, WorkStream.DRAW_CORRECTION))
        )
        for draw, one in zip(raw, seeds, strict=False)
    ]
    return mean, torch.stack(made)


@torch.no_grad()
def draw_each(separator: Separator, observed: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute means and one draw (B, L, *cells) of observed maps, by seeds (B,) of their own.

    The draw of a map is that of `posterior` of this map alone: the same, whatever is beside it.

    Raises
    ------
    InputError
        If the separator makes no draws.
    """
    if separator.spec.settings.kind == "cgan":  # features of a batch are dropped together
        made = [posterior(separator, x[None], 1, seed) for x, seed in zip(observed, seeds, strict=True)]
        return torch.cat([mean for mean, _ in made]), torch.cat([draws[0] for _, draws in made])
    own, mean = [_seeds(seed, 1)[0] for seed in seeds], estimate(separator, observed)
    generators = [_generator(observed, stream_seed(seed, WorkStream.DRAW_CORRECTION)) for seed in own]
    return mean, separator.correction.of_draw(observed, mean, flow_draw(separator, observed, mean, own), generators)


@torch.no_grad()
def gan_draw(separator: Separator, observed: Tensor, seed: int) -> Tensor:
    """Make one draw (B, L, *cells) by dropout, without correction; parameters as for `posterior`."""

    def drawn(tiles: Tensor) -> Tensor:
        # All tiles drop the same features, so that they agree where they overlap.
        made: Tensor = separator(tiles, _generator(observed, seed))
        return made

    return tiled(drawn, observed, separator.spec.observable.cells)


@torch.no_grad()
def flow_draw(separator: Separator, observed: Tensor, mean: Tensor, seed: int | Sequence[int]) -> Tensor:
    """Make one draw (B, L, *cells) by the flow about means (B, L, *cells), without correction.

    Of a map larger than those of training the noise is drawn at once, and the velocities of its tiles are blended at
    every step. With seeds (B,) each map has noise of its own.

    Raises
    ------
    InputError
        If the separator makes no draws.
    """
    flow = separator.flow
    if flow is None:
        raise InputError('a separator of [separation] kind = "mean" makes no draws; kind = "flow-matching" does')
    context = separator.context(observed, mean)
    channels = context.shape[1]

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        return tiled(
            lambda tiles: flow.velocity(tiles[:, :channels], tiles[:, channels:], time),
            torch.cat([context, z], dim=1),
            separator.spec.observable.cells,
        )

    generator = _generator(observed, seed) if isinstance(seed, int) else [_generator(observed, one) for one in seed]
    white = flow.integrated(velocity, flow.noise(tuple(mean.shape), generator))
    return mean + flow.residuals(white)


def tiled(function: Callable[[Tensor], Tensor], maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Apply a function to maps (B, C, *cells), by tiles that overlap by half and fade where they are larger.

    Parameters
    ----------
    function
        Turns tiles (B, C, *size) into (B, L, *size).
    maps
        Maps at least as large as a tile across the line of sight.
    size
        Cells of a tile.
    """
    if tuple(maps.shape[2:]) == size:
        return function(maps)
    starts = [_starts(n, s) for n, s in zip(maps.shape[2:4], size[:2], strict=True)]
    weight = _weight(size).to(maps)
    norm = maps.new_zeros(maps.shape[2:])
    total: Tensor | None = None
    for x, y in itertools.product(*starts):
        made = function(maps[:, :, x : x + size[0], y : y + size[1]])
        if total is None:
            total = maps.new_zeros((*made.shape[:2], *maps.shape[2:]))
        total[:, :, x : x + size[0], y : y + size[1]] += weight * made
        norm[x : x + size[0], y : y + size[1]] += weight
    assert total is not None
    return total / norm


def _seeds(seed: int, draws: int) -> list[int]:
    return [item_seed(seed, i) for i in range(draws)]


def _generator(like: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed)


def _starts(n: int, tile: int) -> list[int]:
    """List the first cells of tiles along an axis of n cells, so that neighbours overlap by at least half."""
    count = 1 + math.ceil((n - tile) / max(1, tile // 2))
    return np.linspace(0, n - tile, count).round().astype(int).tolist() if count > 1 else [0]


def _weight(size: tuple[int, ...]) -> Tensor:
    """Compute weights of a tile's cells that fall smoothly towards its edges across the line of sight."""
    across = [torch.sin(torch.pi * (torch.arange(n) + 0.5) / n).square() for n in size[:2]]
    weight = across[0][:, None] * across[1]
    return weight.view(*size[:2], *(1,) * (len(size) - 2)).expand(size).contiguous()
