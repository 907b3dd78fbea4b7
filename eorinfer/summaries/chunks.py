"""Chunks: parts of a light-cone's line of sight, each with a spectrum of its own. Loads no torch."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from eorinfer.survey.slices import slice_redshifts
from simulators import Observable

if TYPE_CHECKING:
    from torch import Tensor

#: Least number of slices in a chunk.
FEWEST_SLICES = 4


def chunked(observable: Observable, n: int) -> Observable:
    """Describe a light-cone that is cut into n chunks: channels one after the other, the chunks of each in its order.

    A channel of the result is named by the mean redshift of its slices. Slices at the end of the last axis that n
    does not divide, fewer than n, are in no chunk.

    Raises
    ------
    ValueError
        If the observable is no light-cone, or its chunks would have fewer than four slices.
    """
    if n == 1:
        return observable
    if not is_light_cone(observable):
        raise ValueError(f"chunks = {n}: only a light-cone has chunks; leave it out")
    depth = observable.cells[-1] // n
    if depth < FEWEST_SLICES:
        most = observable.cells[-1] // FEWEST_SLICES
        raise ValueError(
            f"chunks = {n}: a chunk would have {depth} of the {observable.cells[-1]} slices; take {most} chunks at most"
        )
    means = np.array(slice_redshifts(observable))[: n * depth].reshape(n, depth).mean(1).round(2)
    return replace(
        observable,
        shape=(observable.shape[0] * n, *observable.cells[:-1], depth),
        axes=("redshift", *observable.axes[1:]),
        channels=tuple(means.tolist()) * observable.shape[0],
        coordinates=(),
    )


def is_light_cone(observable: Observable) -> bool:
    """Tell whether the last axis of three is a line of sight along which the redshift changes."""
    return len(observable.cells) == 3 and observable.axes[-1] in ("frequency", "z") and bool(observable.coordinates)


def in_chunks(cubes: "Tensor", n: int) -> "Tensor":
    """Cut cubes (B, C, *cells) along the last axis: (B, C n, *cells), as `chunked` describes them."""
    if n == 1:
        return cubes
    depth = cubes.shape[-1] // n
    return cubes[..., : n * depth].unflatten(-1, (n, depth)).movedim(-2, 2).flatten(1, 2)


def joined(chunks: "Tensor", n: int) -> "Tensor":
    """Undo `in_chunks`: (B, C n, *cells) to (B, C, *cells)."""
    return chunks.unflatten(1, (-1, n)).movedim(2, -2).flatten(-2)
