"""Line intensity of a periodic box."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.cosmology import Planck18

from simulators.lim.coeval import box_intensity


def test_the_mean_is_that_of_the_luminosity_density() -> None:
    rng = np.random.default_rng(1)
    box, z, resolution = 160.0, 7.5, 110
    position, luminosity = rng.uniform(0, box, (1000, 3)), rng.lognormal(95.0, 1.0, 1000)
    # nu I_nu = c rho_L / (4 pi H (1 + z)), and in the band of a channel that over R.
    density = luminosity.sum() * u.erg / u.s / (box * u.Mpc) ** 3
    nu_i_nu = constants.c * density / (4 * np.pi * u.sr * Planck18.H(z) * (1 + z))
    depth = (constants.c * (1 + z) / Planck18.H(z) / resolution).to_value("Mpc")
    found = box_intensity(position, luminosity, (16, 20, 8), box, z)
    assert found.shape == (16, 20, 8)
    expected = (nu_i_nu / resolution).to_value("nW / (m2 sr)") * (box / 8) / depth
    assert found.mean() == pytest.approx(expected, rel=1e-6)


def test_a_galaxy_is_in_its_cell_and_slices_add_up() -> None:
    position = np.array([[0.0, 9.99, 5.0], [3.1, 0.1, 10.0]], np.float32)  # the last lies on the box's end, which is 0
    fine = box_intensity(position, np.array([1e42, 2e42]), (10, 10, 20), 10.0, 7.0)
    assert sorted(map(tuple, np.argwhere(fine))) == [(0, 9, 10), (3, 0, 0)]
    assert fine[3, 0, 0] == pytest.approx(2 * fine[0, 9, 10])
    coarse = box_intensity(position, np.array([1e42, 2e42]), (10, 10, 4), 10.0, 7.0)
    np.testing.assert_allclose(fine.reshape(10, 10, 4, 5).sum(-1), coarse)


@pytest.mark.parametrize("value", [-0.1, 10.2, np.nan])
def test_galaxies_outside_are_refused(value: float) -> None:
    position = np.array([[1.0, 2.0, 3.0], [4.0, value, 6.0]])
    with pytest.raises(ValueError, match=r"galaxies from .* in a box of 10 Mpc"):
        box_intensity(position, np.ones(2), (4, 4, 4), 10.0, 7.0)
