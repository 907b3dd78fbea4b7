"""Pad a cube beyond its edges: by its other side where it is periodic, else by a mirror image."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pad(x: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """Add one cell on all sides of a cube.

    Parameters
    ----------
    x
        (B, C, *cells), in two or three dimensions.
    periodic
        Whether each cell axis wraps around, or is mirrored about its outermost cell. An axis of one cell repeats it.
    """
    cells = x.shape[2:]
    mirrored = [n > 1 and not wrap for n, wrap in zip(cells, periodic, strict=True)]
    if any(mirrored):
        # F.pad counts from the last axis, and keeps the layout when it mirrors.
        x = F.pad(x, [width for mirror in reversed(mirrored) for width in (int(mirror),) * 2], mode="reflect")
    return wrap(x, tuple(not mirror for mirror in mirrored))


def wrap(x: Tensor, axes: tuple[bool, ...]) -> Tensor:
    """Add one cell of the other side at both ends of some cell axes of a cube (B, C, *cells)."""
    for axis, wraps in enumerate(axes, start=2):
        if wraps:
            n = x.shape[axis]
            # Faster than `F.pad`, which loses the layout when it wraps, above all in the backward pass.
            x = torch.cat([x.narrow(axis, n - 1, 1), x, x.narrow(axis, 0, 1)], dim=axis)
    return x
