"""Make copies of images that share their power spectrum and nothing beyond it."""

import math

import numpy as np
import torch
from torch import Tensor

from eorinfer.core.arrays import white_noise
from simulators.fourier import frequencies


def phase_randomised(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the phase of every mode of images (B, C, *cells) by a random angle, and keep its power.

    The angle is the same for all channels, so that their cross spectra are kept too. The mean is unchanged.
    """
    modes = _fourier(images)
    white = _fourier(white_noise(images[:, :1], generator))
    turn = white / white.abs().clamp_min(torch.finfo(images.dtype).tiny)
    turn.flatten(2)[..., 0] = 1
    return _back(modes * turn, images)


def gaussian_copies(images: Tensor, wavenumber: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Gaussian images with the auto and cross spectra of each image, averaged over shells of k.

    Parameters
    ----------
    images
        (B, C, *cells) images; their means are kept.
    wavenumber
        (*half plane) shell of each mode of a real FFT, numbered from 0; shell 0 holds the zero mode alone.
    generator
        Source of the new modes.
    """
    b, c = images.shape[:2]
    grid = _fourier(images)
    modes = grid.flatten(2)
    shell = wavenumber.flatten()
    n = int(shell.max()) + 1
    products = torch.einsum("bcm,bdm->mbcd", modes, modes.conj()).real.double()
    sums = products.new_zeros(n, b, c, c).index_add_(0, shell, products)
    count = torch.bincount(shell, minlength=n).clamp_min(1).view(-1, 1, 1, 1)
    spectra = sums / count
    # Unlike Cholesky's, this root exists without power too, and for shells with fewer modes than channels.
    values, vectors = torch.linalg.eigh(spectra)
    factor = vectors * values.clamp_min(0).sqrt()[..., None, :]
    white = _fourier(white_noise(images, generator)).flatten(2) / math.sqrt(math.prod(images.shape[2:]))
    new = torch.einsum("mbcd,bdm->bcm", factor[shell].to(white.dtype), white)
    new[..., 0] = modes[..., 0]
    return _back(new.view(grid.shape), images)


def shells(cells: tuple[int, ...], cell_size: tuple[float, ...]) -> Tensor:
    """Number the shells of a real FFT's modes (*half plane), each as wide as the lowest k: see `gaussian_copies`."""
    axes = [torch.from_numpy(frequency) for frequency in frequencies(cells, cell_size, dtype=np.float32)]
    k = sum((axis.square() for axis in torch.meshgrid(*axes, indexing="ij")), torch.zeros(())).sqrt()
    fundamental = 1 / max(n * d for n, d in zip(cells, cell_size, strict=True))
    shell = torch.round(k / fundamental).long().clamp_min(1)
    shell.flatten()[0] = 0
    # A box that is no cube may leave shells without modes: the others are numbered anew.
    return torch.unique(shell, return_inverse=True)[1]


def _fourier(images: Tensor) -> Tensor:
    return torch.fft.rfftn(images, dim=tuple(range(2, images.ndim)))


def _back(modes: Tensor, images: Tensor) -> Tensor:
    return torch.fft.irfftn(modes, s=images.shape[2:], dim=tuple(range(2, images.ndim)))
