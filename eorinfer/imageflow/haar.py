"""Orthonormal Haar wavelets: a map as a coarser one and the details that it lacks."""

import math

import torch
from torch import Tensor

ROOT = math.sqrt(0.5)


def split(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A map as its coarse half and the details.

    Parameters
    ----------
    x
        (B, C, *cells)
    axes
        Cell axes that are halved, counted from 0, each of an even number of cells.

    Returns
    -------
    coarse
        (B, C, *coarse cells), sums over blocks of 2^m cells, divided by 2^(m/2): white noise stays white.
    details
        (B, 2^m - 1, C, *coarse cells)
    """
    parts = [x]
    for axis in axes:
        halves = [part.unflatten(2 + axis, (-1, 2)).unbind(3 + axis) for part in parts]
        parts = [ROOT * (a + b) for a, b in halves] + [ROOT * (a - b) for a, b in halves]
    return parts[0], torch.stack(parts[1:], dim=1)


def join(coarse: Tensor, details: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undo `split`."""
    parts = [coarse, *details.unbind(1)]
    for axis in reversed(axes):
        half = len(parts) // 2
        pairs = zip(parts[:half], parts[half:], strict=True)
        parts = [
            torch.stack([ROOT * (s + d), ROOT * (s - d)], dim=3 + axis).flatten(2 + axis, 3 + axis) for s, d in pairs
        ]
    return parts[0]


def corners(m: int) -> Tensor:
    """Matrix from details to all cells of a block but the last, less its mean: (2^m - 1, 2^m - 1) float64."""
    details = torch.eye(2**m - 1, dtype=torch.float64).view(2**m - 1, 2**m - 1, 1, *(1,) * m)
    blocks = join(torch.zeros_like(details[:, 0]), details, tuple(range(m)))
    return blocks.flatten(1)[:, :-1].T


def pyramid(cells: tuple[int, ...], smallest: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """How a grid is halved again and again: the axes that are, and the cells that are left, for each step.

    An axis is halved while it has an even number of cells and keeps at least `smallest`.
    """
    steps = []
    while axes := tuple(a for a, n in enumerate(cells) if n % 2 == 0 and n // 2 >= smallest):
        cells = tuple(n // 2 if a in axes else n for a, n in enumerate(cells))
        steps.append((axes, cells))
    return steps
