"""Sources of a mock's light-cone of halos: a piece of a box, a cone of our own, or a file of PINOCCHIO."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulators.lim.cosmology import LIGHT, Cosmology
from simulators.lim.halos import Halos, box_halos, cone_halos
from simulators.lim.lightcone import slab
from simulators.lim.pinocchio import Cone, from_axis, parameters_beside, read_lightcone
from simulators.lim.pinocchio_format import CatalogueError

#: Width of a light-cone over that of the map at its far end.
WIDER = 1.1
#: Redshift by which a file may begin late or end early, since its halos are discrete.
SLACK = 0.005
#: Relative difference at which a cosmology is another one.
SAME = 0.01

# Rows of one realisation come one after the other; a slab has one box for each line.
_box, _cone = lru_cache(maxsize=4)(box_halos), lru_cache(maxsize=1)(cone_halos)


def slab_halos(
    cosmology: Cosmology,
    z: tuple[float, float],
    side: float,
    box_length: float,
    cell: float,
    mass: tuple[float, float],
    seed: int,
    place: int,
    model: str,
) -> Halos:
    """Cut a piece of a periodic box at the middle redshift, at a random place and along a random axis.

    Parameters
    ----------
    cosmology
        Flat LCDM.
    z
        Redshifts of the near and the far side.
    side
        Side of the map, arcmin.
    box_length, cell
        Side of the box, and about that of its cells, Mpc.
    mass
        Lowest and highest mass, Msun.
    seed
        Seed of the box.
    place
        Seed of place and axis.
    model
        Mass function, by its name in `hmf`.
    """
    cells = fft.next_fast_len(int(np.ceil(box_length / cell)), real=True)
    box = _box(cosmology, (z[0] + z[1]) / 2, box_length, cells, mass, seed, model)
    rng = np.random.default_rng(place)
    origin = tuple(rng.uniform(0, box_length, 3).tolist())
    return slab(box, cosmology, z, width(cosmology, side, z[1]), int(rng.integers(3)), origin)


def own_cone(
    cosmology: Cosmology,
    z: tuple[float, float],
    side: float,
    cell: float,
    mass: tuple[float, float],
    seed: int,
    model: str,
) -> Halos:
    """Simulate a light-cone around the whole map; parameters are those of `slab_halos`."""
    return _cone(cosmology, z, WIDER * width(cosmology, side, z[1]), cell, mass, seed, model)


def width(cosmology: Cosmology, side: float, z: float) -> float:
    """Compute the width in Mpc of a map of `side` arcmin at a redshift."""
    return float(cosmology.distance(z) * np.deg2rad(side / 60))


def file_halos(
    path: str, cosmology: Cosmology, z: list[tuple[float, float]], side: float, lowest: float, place: int
) -> Halos:
    """Cut a part of a light-cone of PINOCCHIO as large as the map, at a random place and angle.

    Parameters
    ----------
    path
        Path for `pinocchio.read_lightcone`.
    cosmology
        Cosmology of the file.
    z
        Ranges of redshift that the file must cover.
    side
        Side of the map, arcmin.
    lowest
        Lowest mass that the file must include, Msun.
    place
        Seed of place and angle.

    Raises
    ------
    CatalogueError
        If the file does not cover the redshifts, the map or the masses, or is of another cosmology.
    """
    cone = _read(path, cosmology)
    low, high = float(cone.redshift.min()), float(cone.redshift.max())
    if any(near < low - SLACK or far > high + SLACK for near, far in z):
        wanted = ", ".join(f"{near:.3f} to {far:.3f}" for near, far in z)
        raise CatalogueError(
            f"{path}: its halos are at z = {low:.3f} to {high:.3f}, and the lines are seen at {wanted}; "
            "choose another wavelength or a longer light-cone"
        )
    radius = float(np.hypot(*cone.offset.T).max())
    room = radius - side / np.sqrt(2)
    if room < 0:
        raise CatalogueError(
            f"{path}: its radius is {radius:.1f} arcmin, and the map of {side:g} arcmin needs {side / np.sqrt(2):.1f}"
        )
    if cone.mass.min() > 1.5 * lowest:
        raise CatalogueError(
            f"{path}: its lowest mass is 10^{np.log10(cone.mass.min()):.2f} Msun; set mass_min to at least that"
        )
    rng = np.random.default_rng(place)
    towards, turn = rng.uniform(0, 2 * np.pi, 2)
    # Uniform on the sphere: cos r is.
    r = 2 * np.arcsin(np.sin(np.deg2rad(room / 60) / 2) * np.sqrt(rng.random()))
    offset = turned(cone.offset, r, towards)
    offset = offset @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inside = (np.abs(offset).max(1) < side / 2) & (cone.mass >= lowest)
    return _on_a_flat_sky(cone, offset, inside, cosmology)


def turned(offset: NDArray[np.float64], r: float, towards: float) -> NDArray[np.float64]:
    """Compute offsets (N, 2) in arcmin from another axis than that of `offset` (N, 2), on the sphere.

    Offsets are r (cos phi, sin phi) with the angle r from an axis, which keeps areas near the axis alone: so the sky is
    turned, not shifted. The new axis is `r` radians away from the old one, where phi is `towards`; directions stay.
    """
    angle, phi = np.deg2rad(np.linalg.norm(offset, axis=1) / 60), np.arctan2(*offset.T[::-1]) - towards
    away, aside, along = np.sin(angle) * np.cos(phi), np.sin(angle) * np.sin(phi), np.cos(angle)
    across = np.stack([away * np.cos(r) - along * np.sin(r), aside], axis=1)
    back = np.array([[np.cos(towards), np.sin(towards)], [-np.sin(towards), np.cos(towards)]])
    return from_axis(across, away * np.sin(r) + along * np.cos(r)) @ back


def _on_a_flat_sky(cone: Cone, offset: NDArray[np.float64], inside: NDArray[np.bool_], cosmology: Cosmology) -> Halos:
    """Place halos at the distance of their redshift; velocities across the line of sight are not observed."""
    redshift = cone.redshift[inside]
    distance = cosmology.distance(redshift)
    angle = np.deg2rad(offset[inside] / 60)
    position = distance[:, None] * np.concatenate([angle, np.ones((len(redshift), 1))], axis=1)
    away = (cone.observed_redshift[inside] - redshift) / (1 + redshift) * LIGHT
    velocity = position / np.linalg.norm(position, axis=1, keepdims=True) * away[:, None]
    deep = float(distance.max() - distance.min()) if len(distance) else 0.0
    across = float(2 * np.abs(position[:, :2]).max()) if len(distance) else 0.0
    return Halos(
        cone.mass[inside],
        position.astype(np.float32),
        velocity.astype(np.float32),
        redshift.astype(np.float32),
        (across, across, deep),
    )


@lru_cache(maxsize=2)
def _read(path: str, cosmology: Cosmology) -> Cone:
    beside = parameters_beside(path) or {}
    wanted = {"Hubble100": ("h", cosmology.h), "Omega0": ("omega_m", cosmology.omega_m)}
    wanted |= {"OmegaLambda": ("1 - omega_m", 1 - cosmology.omega_m), "DEw0": ("w", -1.0)}
    for key, (name, ours) in wanted.items():
        try:
            theirs = float(beside.get(key, ours))
        except ValueError as error:
            raise CatalogueError(f"{path}: {key} is {beside[key]!r} in its parameter file, no number") from error
        if not np.isclose(theirs, ours, rtol=SAME, atol=SAME / 10):
            raise CatalogueError(
                f"{path}: {key} = {theirs:g} in its parameter file, {name} = {ours:g} in [simulator.cosmology]"
            )
    cone = read_lightcone(path, h=cosmology.h)
    if cone.position is not None:
        ratio = float(np.median(np.linalg.norm(cone.position, axis=1) / cosmology.distance(cone.redshift)))
        if abs(ratio - 1) > SAME:
            raise CatalogueError(
                f"{path}: its halos are {ratio:.3f} times as far away as their redshifts are with h = {cosmology.h:g} "
                f"and omega_m = {cosmology.omega_m:g} in [simulator.cosmology]; give the cosmology of the file"
            )
    return cone
