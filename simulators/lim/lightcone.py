"""Line intensity of halos on the pixels and channels of a spectral imager."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.lim.cosmology import LIGHT, Cosmology
from simulators.lim.halos import Halos

#: Mpc in cm.
MPC = 3.0856775814913673e24
#: Square arcmin in steradian.
ARCMIN2 = (np.pi / 180 / 60) ** 2
#: erg/s/cm^2/sr in nW/m^2/sr.
NANOWATT = 1e6


@dataclass(frozen=True)
class Grid:
    """Pixels and channels of a spectral imager.

    Attributes
    ----------
    pixels
        Number of pixels along each side of the map.
    pixel
        Side of a pixel, arcmin.
    edges
        (C + 1,) wavelengths between the channels in micrometres, rising.
    """

    pixels: int
    pixel: float
    edges: tuple[float, ...]

    @property
    def side(self) -> float:
        """Return the side of the map in arcmin."""
        return self.pixels * self.pixel

    def redshifts(self, rest: float) -> tuple[float, float]:
        """Compute the redshifts between which a line of rest wavelength `rest` falls on the channels.

        Raises
        ------
        ValueError
            If the lowest redshift is not positive.
        """
        low, high = self.edges[0] / rest - 1, self.edges[-1] / rest - 1
        if low <= 0:
            raise ValueError(
                f"channels from {self.edges[0]:g} um: a line of {rest:g} um would be seen at z = {low:.2f} there; "
                "take longer wavelengths or leave the line out"
            )
        return low, high


def on_the_sky(halos: Halos) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute offsets (N, 2) in arcmin from the field's middle, and observed redshifts (N,), of a cone's halos."""
    distance = halos.position[:, 2].astype(np.float64)
    angle = np.rad2deg(halos.position[:, :2] / distance[:, None]) * 60
    outwards = halos.position / np.linalg.norm(halos.position, axis=1, keepdims=True)
    radial = (halos.velocity * outwards).sum(1)
    return angle, halos.redshift + radial / LIGHT * (1 + halos.redshift)


def intensity(grid: Grid, rest: float, luminosity: NDArray[np.float64], halos: Halos) -> NDArray[np.float64]:
    """Compute the in-band intensity (pixels, pixels, C) in nW/m^2/sr of one line.

    I = sum of L / (4 pi d_L^2 Omega) over the halos seen in a voxel: flux is conserved.

    Parameters
    ----------
    grid
        Pixels and channels.
    rest
        Rest wavelength of the line, micrometres.
    luminosity
        (N,) luminosities in erg/s.
    halos
        N halos of a light-cone.
    """
    angle, z = on_the_sky(halos)
    cell = np.floor(angle / grid.pixel + grid.pixels / 2).astype(np.int64)
    edges = np.asarray(grid.edges)
    channel = np.searchsorted(edges, rest * (1 + z), side="right") - 1
    n, c = grid.pixels, len(edges) - 1
    inside = ((cell >= 0) & (cell < n)).all(1) & (channel >= 0) & (channel < c)
    flux = luminosity / (4 * np.pi * ((1 + halos.redshift) * halos.position[:, 2].astype(np.float64) * MPC) ** 2)
    flat = (cell[inside, 0] * n + cell[inside, 1]) * c + channel[inside]
    total = np.bincount(flat, flux[inside], minlength=n * n * c).reshape(n, n, c)
    return np.asarray(total * NANOWATT / (grid.pixel**2 * ARCMIN2))


def slab(
    halos: Halos,
    cosmology: Cosmology,
    z: tuple[float, float],
    side: float,
    axis: int,
    origin: tuple[float, float, float],
) -> Halos:
    """Cut a piece of a periodic box, seen along one of its axes as a light-cone between two redshifts.

    Parameters
    ----------
    halos
        Halos of a box.
    cosmology
        Flat LCDM.
    z
        Cosmological redshifts of the near and the far side.
    side
        Transverse side in Mpc; halos beyond are left out.
    axis
        Number of the axis along the line of sight.
    origin
        Middle across and near side along the line of sight, Mpc; axes in cyclic order, `axis` last.

    Raises
    ------
    ValueError
        If the box is not as deep and wide as the slab.
    """
    near, far = (float(cosmology.distance(v)) for v in z)
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    box = [halos.box[i] for i in order]
    if far - near > box[2] or side > min(box[:2]):
        raise ValueError(
            f"box of {min(box):.0f} Mpc: a slab from z = {z[0]:.3f} to {z[1]:.3f} is {far - near:.0f} Mpc deep and "
            f"{side:.0f} Mpc wide; give a larger box"
        )

    def offset(i: int, start: float, chosen: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        distance: NDArray[np.float32] = halos.position[chosen, order[i]] - np.float32(start % box[i])
        distance[distance < 0] += np.float32(box[i])
        return distance

    along = offset(2, origin[2], slice(None))
    inside = np.flatnonzero(along < far - near)
    edges = [middle - side / 2 for middle in origin[:2]]
    for i, edge in enumerate(edges):
        inside = inside[offset(i, edge, inside) < side]
    across = [offset(i, edge, inside) - np.float32(side / 2) for i, edge in enumerate(edges)]
    position = np.stack([*across, along[inside] + np.float32(near)], axis=1)
    redshift = cosmology.redshift(position[:, 2]).astype(np.float32)
    return Halos(halos.mass[inside], position, halos.velocity[inside][:, order], redshift, halos.box)
