"""Random symmetry transformations of clean cubes: more training data at no simulation cost."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simulators import Symmetry

#: Number of cells above which cubes are moved one by one, whose overhead is then small.
SMALL = 2**14


def augment(clean: Tensor, symmetry: Symmetry, generator: torch.Generator) -> Tensor:
    """Transform each cube by a random element of its model's symmetry group.

    Apply it before the survey: an interferometer's coverage and the removal of channel means are not symmetric.

    Parameters
    ----------
    clean
        (B, C, *cells); all channels of a cube get the same transformation.
    symmetry
        Symmetry of the model behind the cubes.
    generator
        Source of randomness.

    Returns
    -------
    Tensor
        (B, C, *cells)
    """
    moves = Moves.draw(len(clean), tuple(clean.shape[2:]), symmetry, generator)
    return moves.together(clean) if math.prod(clean.shape[2:]) <= SMALL else moves.one_by_one(clean)


@dataclass(frozen=True)
class Moves:
    """Element of the symmetry group for each of B cubes of d axes: swaps, then flips, then rolls.

    Attributes
    ----------
    order
        (B, d): axis a of the result is axis order[a] of the cube.
    flips
        (B, d): 1 where axis a is mirrored.
    rolls
        (B, d): cells by which axis a is rolled, towards higher indices.
    """

    order: Tensor
    flips: Tensor
    rolls: Tensor

    @classmethod
    def draw(cls, n: int, cells: tuple[int, ...], symmetry: Symmetry, generator: torch.Generator) -> "Moves":
        """Draw uniformly from the group, for n cubes, on the generator's device."""
        dimension, device = len(cells), generator.device
        movable = {"all": dimension, "transverse": dimension - 1, "none": 0}[symmetry.rotations]
        rolls = [
            torch.randint(c if periodic else 1, (n,), generator=generator, device=device)
            for c, periodic in zip(cells, symmetry.periodic, strict=True)
        ]
        flips = torch.zeros(n, dimension, dtype=torch.int64, device=device)
        flips[:, :movable] = torch.randint(2, (n, movable), generator=generator, device=device)
        order = torch.arange(dimension, device=device).repeat(n, 1)
        # Swapping axes needs equal lengths.
        if movable > 1 and len(set(cells[:movable])) == 1:
            order[:, :movable] = torch.rand(n, movable, generator=generator, device=device).argsort(dim=1)
        return cls(order, flips, torch.stack(rolls, dim=1))

    def together(self, clean: Tensor) -> Tensor:
        """Move cubes (B, C, *cells) all at once, by an index of the cell that each value comes from."""
        order, flips, rolls = (t.to(clean.device) for t in (self.order, self.flips, self.rolls))
        cells = clean.shape[2:]
        strides = torch.tensor([math.prod(cells[a + 1 :]) for a in range(len(cells))], device=clean.device)[order]
        source = torch.zeros((len(clean), *(1,) * len(cells)), dtype=torch.int64, device=clean.device)
        for axis, n in enumerate(cells):
            # Axes that are swapped have the same length.
            i = (torch.arange(n, device=clean.device) - rolls[:, axis, None]) % n
            i = torch.where(flips[:, axis, None] == 1, n - 1 - i, i) * strides[:, axis, None]
            source = source + i.view(len(clean), *(n if a == axis else 1 for a in range(len(cells))))
        source = source.flatten(1)[:, None].expand(-1, clean.shape[1], -1)
        return clean.flatten(2).gather(2, source).view(clean.shape)

    def one_by_one(self, clean: Tensor) -> Tensor:
        """Move cubes (B, C, *cells) one after the other, without an index of the size of a batch."""
        out = torch.empty_like(clean)
        axes = tuple(range(1, clean.ndim - 1))
        moves = zip(self.order.tolist(), self.flips.tolist(), self.rolls.tolist(), strict=True)
        for i, (order, flips, rolls) in enumerate(moves):
            cube = clean[i].permute(0, *(1 + a for a in order))
            mirrored = [a for a, flip in zip(axes, flips, strict=True) if flip]
            out[i] = (cube.flip(mirrored) if mirrored else cube).roll(rolls, dims=axes)
        return out
