"""Noise realisations of the user's own, from an HDF5 file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eorinfer.survey.noise_files import open_noise
from eorinfer.survey.symmetry import Moves
from simulators import Observable


class NoiseCubes:
    """Draws one of N cubes for each cube of a batch, moved at random as the noise of an interferometer allows.

    Parameters
    ----------
    path
        File with the dataset ``noise`` (N, C, *cells) and its attribute ``unit``.
    observable
        Cubes that are observed.

    Notes
    -----
    Noise is moved around the sky where the cubes are periodic there, and along the line of sight where all slices
    are at one redshift. It is turned by 180 degrees: the uv plane is symmetric under that alone.

    Raises
    ------
    ValueError
        If the file cannot be read, or is of other cubes.
    """

    def __init__(self, path: Path, observable: Observable) -> None:
        with open_noise(path, observable) as dataset:
            self.cubes = torch.from_numpy(np.asarray(dataset[()], dtype=np.float32))
        if not self.cubes.isfinite().all():
            raise ValueError(f"noise: {path}: some numbers are not finite")
        coeval = not observable.coordinates
        self._periodic = (*observable.symmetry.periodic[:2], coeval and observable.symmetry.periodic[2])

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise (B, C, *cells) for cubes of that shape."""
        n, device, cells = len(like), generator.device, tuple(like.shape[2:])
        which = torch.randint(len(self.cubes), (n,), generator=generator, device=device)
        rolls = [
            torch.randint(c if periodic else 1, (n,), generator=generator, device=device)
            for c, periodic in zip(cells, self._periodic, strict=True)
        ]
        turned = torch.randint(2, (n,), generator=generator, device=device)
        flips = torch.stack([turned, turned, torch.zeros_like(turned)], dim=1)
        moves = Moves(torch.arange(3, device=device).repeat(n, 1), flips, torch.stack(rolls, dim=1))
        return moves.one_by_one(self.cubes[which.cpu()].to(like))
