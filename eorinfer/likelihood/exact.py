"""Known answers: exact likelihoods of Gaussian fields in Gaussian noise, and a posterior on a grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.likelihood.grid import grid_samples
from simulators import GaussianField
from simulators.fourier import half_plane, wavenumbers

#: P(k, z | theta), (n, C, M), of theta (n, P) and k (M,).
Power = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
#: Theta of which the power is asked for at once.
PIECE = 512
#: Shells of modes in an e-fold of k, and of the noise, that a likelihood of approximate power puts together.
SHELLS, NOISES = 12, 2
#: Modes near a k among which the least noise is looked for.
NEAR = 100


@dataclass(frozen=True)
class ModePower:
    """Observed power of the independent Fourier modes of one field.

    Attributes
    ----------
    k
        (M,) in 1/Mpc.
    power
        (M,) V |delta_k|^2.
    real
        (M,) whether the mode is its own conjugate, so that its power is chi^2 with
        one degree of freedom instead of an exponential.
    """

    k: NDArray[np.float64]
    power: NDArray[np.float64]
    real: NDArray[np.bool_]

    @classmethod
    def from_field(cls, field: NDArray[np.float64], box_length: float) -> "ModePower":
        """Take the power of one of each pair +k, -k of a real field (*cells).

        The zero mode, which has no signal, is left out.
        """
        keep, own = independent_modes(field.shape)
        k = wavenumbers(field.shape, box_length)
        delta = np.fft.rfftn(field.astype(np.float64)) / field.size
        power = box_length**field.ndim * np.abs(delta) ** 2
        return cls(k[keep], power[keep], own[keep])


def independent_modes(cells: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Choose one of each pair +k, -k among the modes of a real FFT, without the zero mode.

    Returns
    -------
    keep, real
        (*half plane) whether a mode is chosen, and whether it is its own conjugate.
    """
    index = np.indices(half_plane(cells))
    partner = np.stack([(-i) % n for i, n in zip(index, cells, strict=True)])
    own = (partner == index).all(0)
    # On the planes where the last index is 0 or Nyquist both of a pair are stored.
    both = (partner[-1] == index[-1]) & ~own
    flat = np.ravel_multi_index(tuple(index), cells)
    second = both & (np.ravel_multi_index(tuple(partner), cells) < flat)
    keep = ~second
    keep.flat[0] = False
    return keep, own


def log_likelihood(
    simulator: GaussianField, sigma: float, modes: ModePower, theta: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Exact log likelihood of theta (n, 2), up to a constant: (n,).

    Each mode is a zero-mean Gaussian with power S(k) = P(k | theta) + noise, which is white with `sigma` per cell, so
    ln L = -sum (ln S + p / S) over complex modes and half of it over real ones.
    """
    noise = sigma**2 * simulator.box_length**simulator.dimension / simulator.cells**simulator.dimension
    weight = np.where(modes.real, 0.5, 1.0)
    # Modes of equal |k| enter through their sum only.
    k, where = np.unique(np.round(modes.k, 12), return_inverse=True)
    count = np.bincount(where, weight)
    total = np.bincount(where, weight * modes.power)
    out = []
    for part in np.array_split(np.atleast_2d(theta), max(1, len(theta) // 4096)):
        s = simulator.power(part, k) + noise
        out.append(-(np.log(s) @ count + (1 / s) @ total))
    return np.concatenate(out)


def grid_posterior(
    simulator: GaussianField,
    sigma: float,
    field: NDArray[np.float64],
    prior: Prior,
    n: int,
    seed: int,
    points: int = 400,
) -> Samples:
    """Samples of the exact posterior, from a grid refined around its mass.

    Parameters
    ----------
    simulator, sigma
        The model: field and white noise per cell.
    field
        (*cells) observed.
    prior
        Prior of the two parameters.
    n
        Number of samples; each is drawn uniformly inside its grid cell.
    seed
        Seed of the draw.
    points
        Grid points along each parameter.
    """
    modes = ModePower.from_field(field, simulator.box_length)

    def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_likelihood(simulator, sigma, modes, theta)

    return grid_samples(log_l, prior, n, seed, "exact", points)


def emulated_log_likelihood(
    power: Power, box_length: float, noise: NDArray[np.float64], cube: NDArray[np.float64], *, exact: bool = True
) -> LogLikelihood:
    """Log likelihood of theta (n, P), up to a constant, given one observed cube (C, *cells).

    Each measured mode of each redshift is a zero-mean Gaussian of power P(k, z | theta) + noise, as in
    `log_likelihood`.

    Parameters
    ----------
    power
        Gives P(k, z | theta).
    box_length
        Side of the cube in Mpc.
    noise
        (C, *half plane) power of the noise in mK² Mpc³; inf where a mode is not measured.
    cube
        (C, *cells) in mK.
    exact
        If not, modes in a shell of k and with like noise are taken to be the same: hundreds of numbers in place of ten
        thousand, for power that is approximate itself.
    """
    cells = cube.shape[1:]
    keep, real = independent_modes(cells)
    length = wavenumbers(cells, box_length)[keep]
    keys = length.round(10) if exact else (SHELLS * np.log(length)).round()
    _, of_k = np.unique(keys, return_inverse=True)
    k = np.exp(np.bincount(of_k, np.log(length)) / np.bincount(of_k))
    groups = []
    for field, own in zip(cube, noise, strict=True):
        seen = box_length**3 * np.abs(np.fft.rfftn(field.astype(np.float64)) / field.size)[keep] ** 2
        sigma = own[keep]
        measured = np.isfinite(sigma)
        weight, sigma = np.where(real[keep], 0.5, 1.0)[measured], sigma[measured]
        # Modes of equal |k| and equal noise enter through their sum only.
        like = sigma.round(10) if exact else _classes(sigma)
        (where, _), place = np.unique(np.stack([of_k[measured], like]), axis=1, return_inverse=True)
        count = np.bincount(place, weight)
        sums = np.bincount(place, weight * sigma) / count, count, np.bincount(place, weight * seen[measured])
        groups.append((where.astype(int), *sums))

    def log_l(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        out = []
        for part in np.array_split(np.atleast_2d(theta), max(1, len(theta) // PIECE)):
            spectra = power(part, k)
            total = np.zeros(len(part))
            for channel, (where, sigma, count, sums) in enumerate(groups):
                s = spectra[:, channel, where] + sigma
                total -= np.log(s) @ count + (1 / s) @ sums
            out.append(total)
        return np.concatenate(out)

    return log_l


def _classes(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number the class of noise that each mode belongs to, (M,); modes without noise have one of their own."""
    with np.errstate(divide="ignore"):
        return np.maximum((NOISES * np.log(sigma)).round(), -1e6)


def least_noise(noise: NDArray[np.float64], box_length: float, log_k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find Δ² of the least noise of the modes near some k: what is far below it, an observation does not show.

    Parameters
    ----------
    noise
        (C, *half plane) power of cubes; inf where a mode is not measured.
    box_length
        Side of the cubes.
    log_k
        (K,) ln k.

    Returns
    -------
    NDArray
        (C, K) in the unit of the noise per volume.
    """
    cells = (noise.shape[1],) * (noise.ndim - 1)
    keep, _ = independent_modes(cells)
    k = wavenumbers(cells, box_length)[keep]
    delta = noise[:, keep] * k**3 / (2 * np.pi**2)
    near = np.argsort(np.abs(np.log(k) - log_k[:, None]), axis=1)[:, :NEAR]  # (K, NEAR)
    least = delta[:, near].min(-1)
    # Where none of them is measured, all that there is may as well be hidden.
    return np.where(np.isfinite(least), least, delta[np.isfinite(delta)].max(initial=0.0))
