"""Halo catalogues without an N-body run: 2LPT, and halos sampled in Lagrangian space.

Halos of a mass bin are drawn from the cells of the initial conditions with probability

    Phi((delta_R - u w) / s),  s = 0.25 sigma,  w^2 = sigma^2 + s^2,

where delta_R is the linear density smoothed on R(M), sigma its standard deviation, and u makes the linear
Lagrangian bias the wanted one exactly: phi(u) / Phi(-u) = b_L w. The law saturates in the densest cells. An
exponential law, exp(b_L delta_R), fits P(k) as well and doubles the skewness of the maps.
R = 1.3 (M / 1e12 Msun/h)^0.25 Mpc/h and s / sigma were tuned on PINOCCHIO runs of 128 Mpc/h at z = 1.3 and 2, for
M > 5e11 Msun/h.
Halos are then moved by second-order Lagrangian perturbation theory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import brentq
from scipy.special import log_ndtr

from simulators.base import SimulationError
from simulators.fourier import frequencies
from simulators.lim.cosmology import Cosmology, tinker_bias

#: Width of the bias law in units of sigma.
WIDTH = 0.25
#: Margin in Mpc around a light-cone, simulated and then cut, against periodicity along the line of sight.
MARGIN = 30.0
#: Length in Mpc over which the mass function and bias of a light-cone are taken as constant.
STEP = 60.0
#: Width of a mass bin in ln M, in which all halos follow one field.
BIN = 1.2
#: Number of points of the mass function in a bin.
FINE = 40
#: Expected number of halos below which a mass bin is skipped.
RAREST = 1e-6
#: Number of cells drawn at once, at most.
MOST_TRIES = 10**6
#: Rounds of tries after which the halos of a bin of mass find no place.
MOST_ROUNDS = 10**4
#: Highest mass that is drawn, Msun.
HIGHEST = 2e15
#: Function from positions (n, 3) in Mpc to redshifts (n,).
Redshifts = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@dataclass(frozen=True)
class Halos:
    """A halo catalogue.

    Attributes
    ----------
    mass
        (N,) masses in Msun.
    position
        (N, 3) positions in comoving Mpc. In a box they are in [0, box). In a light-cone the first two count from the
        middle of the field, and the third is the distance from the observer.
    velocity
        (N, 3) peculiar velocities, km/s.
    redshift
        (N,) cosmological redshifts.
    box
        (3,) side lengths, Mpc.
    """

    mass: NDArray[np.float64]
    position: NDArray[np.float32]
    velocity: NDArray[np.float32]
    redshift: NDArray[np.float32]
    box: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.mass)

    def __getitem__(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Halos":
        return Halos(self.mass[index], self.position[index], self.velocity[index], self.redshift[index], self.box)


def box_halos(
    cosmology: Cosmology,
    z: float,
    box: float,
    cells: int,
    mass: tuple[float, float],
    seed: int,
    model: str = "Watson_FoF",
) -> Halos:
    """Simulate the halos of a periodic box at one redshift.

    Parameters
    ----------
    cosmology
        Flat LCDM.
    z
        Redshift.
    box, cells
        Side in Mpc, and number of cells along it.
    mass
        Lowest and highest mass, Msun.
    seed
        Seed of the initial conditions and of the halos.
    model
        Mass function, by its name in `hmf`.
    """
    rng = np.random.default_rng(seed)
    field = _Field(cosmology, (cells,) * 3, box / cells, rng)
    return _moved(field, *_sampled(field, [(slice(None), z)], mass, model, rng), lambda q: np.full(len(q), z), rng)


def cone_halos(
    cosmology: Cosmology,
    z: tuple[float, float],
    side: float,
    cell: float,
    mass: tuple[float, float],
    seed: int,
    model: str = "Watson_FoF",
) -> Halos:
    """Simulate the halos of a light-cone; growth, mass function and bias vary with distance along the last axis.

    Parameters
    ----------
    cosmology
        Flat LCDM.
    z
        Lowest and highest cosmological redshift.
    side
        Transverse size in Mpc; periodic.
    cell
        Side of a cell, Mpc.
    mass, seed, model
        See `box_halos`.
    """
    near, far = (float(cosmology.distance(v)) for v in z)
    start = near - MARGIN
    rng = np.random.default_rng(seed)
    across = fft.next_fast_len(int(np.ceil(side / cell)), real=True)
    along = fft.next_fast_len(int(np.ceil((far + MARGIN - start) / cell)), real=True)
    field = _Field(cosmology, (across, across, along), side / across, rng)
    per_step = max(1, round(STEP / field.cell))
    steps = []
    for first in range(0, along, per_step):
        last = min(along, first + per_step)
        steps.append((slice(first, last), float(cosmology.redshift(start + field.cell * (first + last) / 2))))
    halos = _moved(field, *_sampled(field, steps, mass, model, rng), lambda q: cosmology.redshift(start + q[:, 2]), rng)
    position = halos.position
    position[:, :2] -= np.float32(side / 2)
    position[:, 2] += np.float32(start)
    redshift = cosmology.redshift(position[:, 2]).astype(np.float32)
    halos = Halos(halos.mass, position, halos.velocity, redshift, halos.box)
    return halos[(position[:, 2] >= near) & (position[:, 2] < far)]


class _Field:
    """Linear density at z = 0 on a grid, in Fourier space."""

    def __init__(
        self, cosmology: Cosmology, cells: tuple[int, int, int], cell: float, rng: np.random.Generator
    ) -> None:
        self.cosmology, self.cells, self.cell = cosmology, cells, cell
        self.box = tuple(n * cell for n in cells)
        axes = frequencies(cells, (cell,) * 3)
        self.k = [np.float32(2 * np.pi * f) for f in np.meshgrid(*axes, indexing="ij", sparse=True)]
        self.k2: NDArray[np.float32] = np.asarray(self.k[0] ** 2 + self.k[1] ** 2 + self.k[2] ** 2)
        self.k2[0, 0, 0] = 1.0
        # One table for all modes: P(k) is smooth, and there are millions of them.
        table = np.geomspace(2 * np.pi / max(self.box) / 2, 4 * np.pi / cell, 4000)
        amplitude = np.sqrt(cosmology.power(table) / cell**3)
        white = fft.rfftn(rng.standard_normal(cells, dtype=np.float32))
        self.delta = white * np.interp(0.5 * np.log(self.k2), np.log(table), amplitude).astype(np.float32)
        self.delta[0, 0, 0] = 0

    def smoothed(self, radius: float) -> NDArray[np.float32]:
        """Smooth the density at z = 0 (*cells) by a Gaussian of `radius` Mpc."""
        kernel = np.exp(np.float32(-0.5 * radius**2) * self.k2)
        return np.asarray(fft.irfftn(self.delta * kernel, s=self.cells, overwrite_x=True))

    def displacements(self) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
        """Yield each axis with the first- and second-order displacements along it at z = 0 (*cells), in Mpc."""
        potential = self.delta / self.k2
        second = fft.rfftn(self._second_order_source(potential))
        second *= np.float32(3 / 7) / self.k2
        for axis in range(3):
            yield axis, self._gradient(potential, axis), self._gradient(second, axis)

    def _second_order_source(self, potential: NDArray[np.complex64]) -> NDArray[np.float32]:
        shear = {(i, j): self._shear(potential, i, j) for i, j in ((0, 0), (1, 1), (2, 2))}
        source = shear[0, 0] * shear[1, 1] + shear[0, 0] * shear[2, 2] + shear[1, 1] * shear[2, 2]
        shear.clear()
        for i, j in ((0, 1), (0, 2), (1, 2)):
            source -= self._shear(potential, i, j) ** 2
        return source

    def _shear(self, potential: NDArray[np.complex64], i: int, j: int) -> NDArray[np.float32]:
        return np.asarray(fft.irfftn(self.k[i] * self.k[j] * potential, s=self.cells, overwrite_x=True))

    def _gradient(self, potential: NDArray[np.complex64], axis: int) -> NDArray[np.float32]:
        return np.asarray(fft.irfftn(1j * self.k[axis] * potential, s=self.cells, overwrite_x=True))


def _sampled(
    field: _Field, steps: list[tuple[slice, float]], mass: tuple[float, float], model: str, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw masses (n,) and flat cells (n,) of halos in sections of the last axis, each at its own redshift."""
    cosmology = field.cosmology
    low, high = np.log(mass[0]), np.log(min(mass[1], HIGHEST))
    bins = int(np.ceil((high - low) / BIN))
    fine = np.linspace(low, high, FINE * bins + 1)
    tables = [_table(cosmology, z, fine, model) for _, z in steps]
    masses, cells = [np.zeros(0)], [np.zeros(0, np.int64)]
    for inside in (slice(FINE * i, FINE * (i + 1) + 1) for i in range(bins)):
        # Within a bin the mass function is exact; bias and smoothing are those of its mean halo.
        density, _, _ = tables[len(tables) // 2]
        mean_mass = np.average(np.exp(fine[inside]), weights=density[inside])
        linear = field.smoothed(1.3 * (mean_mass * cosmology.h / 1e12) ** 0.25 / cosmology.h)
        sigma = float(np.sqrt(np.mean(np.square(linear), dtype=np.float64)))
        for (part, z), (density, bias, cumulative) in zip(steps, tables, strict=True):
            growth = float(cosmology.growth(z))
            law = _BiasLaw(float(np.average(bias[inside], weights=density[inside])) - 1, growth * sigma)
            first, last = cumulative[inside][[0, -1]]
            here = linear[:, :, part]
            expected = (last - first) * here.size * field.cell**3
            if expected < RAREST:
                continue
            extremes = np.float32(growth) * np.array([here.min(), here.max()])
            highest = float(law.log_chance(extremes).max())
            # Number of tries per halo, for a Gaussian field on average.
            tries = np.exp(highest - law.log_mean)
            if len(steps) == 1:  # a box has the mean density
                accepted = [np.zeros(0, np.int64)]
                missing = n = rng.poisson(expected)
                while missing > 0:
                    if len(accepted) > MOST_ROUNDS:
                        raise SimulationError(
                            f"halos of {mean_mass:.2g} Msun find no place: {missing} of {n} are left after "
                            f"{MOST_ROUNDS} rounds; raise mass_min, or take smaller cells"
                        )
                    at_once = min(int(missing * tries) + 8, MOST_TRIES)
                    accepted.append(_accepted(linear, part, growth, law, highest, at_once, rng)[:missing])
                    missing -= len(accepted[-1])
            else:  # a part of a light-cone has more halos where it is denser
                accepted = [_accepted(linear, part, growth, law, highest, rng.poisson(expected * tries), rng)]
                n = len(accepted[0])
            cells += accepted
            masses.append(np.exp(np.interp(rng.uniform(first, last, n), cumulative[inside], fine[inside])))
    return np.concatenate(masses), np.concatenate(cells)


def _accepted(
    linear: NDArray[np.float32],
    part: slice,
    growth: float,
    law: "_BiasLaw",
    highest: float,
    tries: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw `tries` cells of a section at random, and return the flat indices (n,) of those that get a halo.

    `highest` is the log chance in the likeliest cell, where every try is accepted.
    """
    along = linear.shape[2]
    first, last, _ = part.indices(along)
    row, column = np.divmod(rng.integers(0, linear.size // along * (last - first), tries), last - first)
    cell = row * along + first + column
    return cell[-rng.standard_exponential(tries) < law.log_chance(np.float32(growth) * linear.ravel()[cell]) - highest]


def _table(cosmology: Cosmology, z: float, log_mass: NDArray[np.float64], model: str) -> NDArray[np.float64]:
    """Tabulate dn/dlnM in Mpc^-3, linear bias and the number of lighter halos in Mpc^-3, (3, n), at ln M (n,)."""
    m, dn_dlnm, sigma = cosmology.mass_function(z, model)
    density = np.exp(np.interp(log_mass, np.log(m), np.log(np.maximum(dn_dlnm, 1e-300))))
    bias = np.interp(log_mass, np.log(m), tinker_bias(sigma))
    steps = np.diff(log_mass) * (density[1:] + density[:-1]) / 2
    return np.stack([density, bias, np.concatenate([[0.0], np.cumsum(steps)])])


class _BiasLaw:
    """Chance of a halo in a cell of given linear density, and its mean over Gaussian fields.

    Both are logarithms, up to the same constant.
    """

    def __init__(self, lagrangian: float, sigma: float) -> None:
        self.lagrangian, self.s = lagrangian, WIDTH * sigma
        if lagrangian > 0:
            w = float(np.hypot(sigma, self.s))
            log_w = np.log(lagrangian * w) + 0.5 * np.log(2 * np.pi)
            u = brentq(lambda x: -0.5 * x * x - log_ndtr(-x) - log_w, -20, 40)
            self.middle = u * w
            self.log_mean = float(log_ndtr(-u))
        else:
            self.log_mean = (lagrangian * sigma) ** 2 / 2

    def log_chance(self, delta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the log chance (n,) of a halo in cells of linear density `delta` (n,)."""
        if self.lagrangian > 0:
            return np.asarray(log_ndtr((delta - np.float32(self.middle)) / np.float32(self.s)))
        # The law above cannot avoid dense cells; at so small a bias the choice of law hardly matters.
        return np.float32(self.lagrangian) * delta


def _moved(
    field: _Field, mass: NDArray[np.float64], cell: NDArray[np.int64], redshift: Redshifts, rng: np.random.Generator
) -> Halos:
    """Move halos from their cells by second-order perturbation theory."""
    cosmology = field.cosmology
    # Columns are contiguous in memory, since each is processed alone.
    position = np.empty((len(mass), 3), np.float32, order="F")
    for axis, index in enumerate(np.unravel_index(cell, field.cells)):
        position[:, axis] = np.float32(field.cell) * (index + rng.random(len(mass), dtype=np.float32))
    z = redshift(position)
    growth = np.float32(cosmology.growth(z))
    speed = np.float32(cosmology.hubble(z) / (1 + z) * cosmology.growth_rate(z))
    velocity = np.empty_like(position)
    for axis, first, second in field.displacements():
        linear, quadratic = growth * first.ravel()[cell], growth**2 * second.ravel()[cell]
        position[:, axis] = (position[:, axis] + linear + quadratic) % np.float32(field.box[axis])
        velocity[:, axis] = speed * (linear + 2 * quadratic)
    return Halos(mass, position, velocity, np.float32(z), field.box)  # type: ignore[arg-type]
