"""Known answer: exact likelihood and grid posterior of a Gaussian field in white noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.likelihood.grid import grid_samples
from simulators import GaussianField
from simulators.fourier import wavenumbers


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
        shape = field.shape
        delta = np.fft.rfftn(field.astype(np.float64)) / field.size
        k = wavenumbers(shape, box_length)
        index = np.indices(delta.shape)
        partner = np.stack([(-i) % n for i, n in zip(index, shape, strict=True)])
        own = (partner == index).all(0)
        # On the planes where the last index is 0 or Nyquist both of a pair are stored.
        both = (partner[-1] == index[-1]) & ~own
        flat = np.ravel_multi_index(tuple(index), shape)
        second = both & (np.ravel_multi_index(tuple(partner), shape) < flat)
        keep = ~second & (k > 0)
        power = box_length ** len(shape) * np.abs(delta) ** 2
        return cls(k[keep], power[keep], own[keep])


def log_likelihood(
    simulator: GaussianField, sigma: float, modes: ModePower, theta: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Exact log likelihood of theta (n, 2), up to a constant: (n,).

    Each mode is a zero-mean Gaussian with power S(k) = P(k | theta) + noise, so
    ln L = -sum (ln S + p / S) over complex modes and half of it over real ones.

    Parameters
    ----------
    simulator
        Gives P(k | theta).
    sigma
        White noise per cell.
    modes
        Observed power.
    theta
        (n, 2)
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
