"""Orthonormal Haar wavelets: split a map into a coarser one and details, and join them again."""

import math

import torch
from torch import Tensor

ROOT = math.sqrt(0.5)


def split(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Split a map into a coarser one and the details.

    Parameters
    ----------
    x
        (B, C, *cells) map.
    axes
        Numbers of the cell axes to halve, from 0; each has an even number of cells.

    Returns
    -------
    coarse
        (B, C, *coarse cells) sums over blocks of 2^m cells, divided by 2^(m/2): white noise stays white.
    details
        (B, 2^m - 1, C, *coarse cells) wavelet coefficients.
    """
    maps = [x]
    for axis in axes:
        halves = [block.unflatten(2 + axis, (-1, 2)).unbind(3 + axis) for block in maps]
        maps = [ROOT * (a + b) for a, b in halves] + [ROOT * (a - b) for a, b in halves]
    return maps[0], torch.stack(maps[1:], dim=1)


def join(coarse: Tensor, details: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undo `split`."""
    maps = [coarse, *details.unbind(1)]
    for axis in reversed(axes):
        half = len(maps) // 2
        pairs = zip(maps[:half], maps[half:], strict=True)
        maps = [
            torch.stack([ROOT * (s + d), ROOT * (s - d)], dim=3 + axis).flatten(2 + axis, 3 + axis) for s, d in pairs
        ]
    return maps[0]


def corners(m: int) -> Tensor:
    """Compute the matrix (2^m - 1, 2^m - 1) from details to the cells of a block, without its last cell and mean."""
    details = torch.eye(2**m - 1, dtype=torch.float64).view(2**m - 1, 2**m - 1, 1, *(1,) * m)
    blocks = join(torch.zeros_like(details[:, 0]), details, tuple(range(m)))
    return blocks.flatten(1)[:, :-1].T


def pyramid(cells: tuple[int, ...], smallest: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """List the steps that halve a grid: the axes halved, and the cells left, at each step.

    An axis is halved while its number of cells is even and half of it is at least `smallest`.
    """
    steps = []
    while axes := tuple(a for a, n in enumerate(cells) if n % 2 == 0 and n // 2 >= smallest):
        cells = tuple(n // 2 if a in axes else n for a, n in enumerate(cells))
        steps.append((axes, cells))
    return steps
