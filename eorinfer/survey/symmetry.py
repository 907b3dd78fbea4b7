"""Random symmetry transformations of clean cubes: more training data at no simulation cost."""

import torch
from torch import Tensor

from simulators import Symmetry


def augment(clean: Tensor, symmetry: Symmetry, generator: torch.Generator) -> Tensor:
    """Transform each cube by a random element of its model's symmetry group.

    To be applied before the survey: an interferometer's coverage and the removal
    of channel means are not symmetric.

    Parameters
    ----------
    clean
        (B, C, *cells); all channels of a cube get the same transformation.
    symmetry
        What the model allows.
    generator
        Source of randomness.

    Returns
    -------
    Tensor
        (B, C, *cells)
    """
    cells = clean.shape[2:]
    dimension = len(cells)
    movable = {"all": dimension, "transverse": dimension - 1, "none": 0}[symmetry.rotations]
    rolls = torch.stack(
        [
            torch.randint(n if periodic else 1, (len(clean),), generator=generator, device=generator.device)
            for n, periodic in zip(cells, symmetry.periodic, strict=True)
        ],
        dim=1,
    ).tolist()
    flips = torch.randint(2, (len(clean), max(movable, 1)), generator=generator, device=generator.device).tolist()
    # Swapping axes needs equal lengths.
    swaps = movable if len(set(cells[:movable])) <= 1 else 0
    out = torch.empty_like(clean)
    for i, cube in enumerate(clean):
        if swaps > 1:
            order = torch.randperm(swaps, generator=generator, device=generator.device).tolist()
            cube = cube.permute(0, *(1 + a for a in order), *range(1 + swaps, 1 + dimension))
        mirrored = [1 + a for a in range(movable) if flips[i][a]]
        if mirrored:
            cube = cube.flip(mirrored)
        out[i] = cube.roll(rolls[i], dims=tuple(range(1, 1 + dimension)))
    return out
