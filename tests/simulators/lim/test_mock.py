"""Slabs and cubes: luminosity is conserved, lines fall where they should, and bad settings are refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simulators import SimulationError, build
from simulators.lim.cosmology import Cosmology
from simulators.lim.halos import Halos
from simulators.lim.lightcone import ARCMIN2, MPC, NANOWATT, Grid, intensity, on_the_sky, slab
from simulators.lim.lines import LINES
from simulators.lim.mock import LimMock
from simulators.lim.pinocchio import read_lightcone
from simulators.lim.sources import file_halos, turned
from simulators.registry import earlier_fingerprints

COSMOLOGY = Cosmology()
DATA = Path(__file__).parents[2] / "data" / "pinocchio"
#: Small: 12.8 arcmin, halos above 1e11 Msun.
SLAB = {"pixels": 32, "pixel": 0.8, "mass_min": 11.0, "box_length": 210.0, "cell": 4.2}
CUBES = SLAB | {"geometry": "cubes", "pixels": 16, "pixel": 1.0, "channels": 14, "mass_min": 11.5, "cell": 4.0}


def mock(**settings: Any) -> LimMock:
    made = build({"kind": "lim-mock", **settings})
    assert isinstance(made, LimMock)
    return made


def cone(n: int, z: tuple[float, float], seed: int = 1) -> Halos:
    rng = np.random.default_rng(seed)
    distance = rng.uniform(*COSMOLOGY.distance(np.array(z)), n)
    position = np.stack([*rng.uniform(-20, 20, (2, n)), distance], axis=1).astype(np.float32)
    velocity = rng.normal(0, 300, (n, 3)).astype(np.float32)
    return Halos(np.full(n, 1e12), position, velocity, COSMOLOGY.redshift(position[:, 2]), (40.0, 40.0, 1e4))


def test_luminosity_is_conserved() -> None:
    halos = cone(5000, (1.25, 1.35))
    grid = Grid(64, 1.0, (1.4, 1.5, 1.6))
    luminosity = np.random.default_rng(2).lognormal(95, 1, len(halos))
    cube = intensity(grid, 0.65628, luminosity, halos)
    distance = (1 + halos.redshift) * halos.position[:, 2].astype(float) * MPC
    assert cube.sum() * ARCMIN2 / NANOWATT == pytest.approx((luminosity / (4 * np.pi * distance**2)).sum(), rel=1e-12)
    assert cube.shape == (64, 64, 2)


def test_one_galaxy_is_where_it_should_be() -> None:
    """Off the axis by 3.2 and -1.2 arcmin, receding at 3,000 km/s: seen beyond its own redshift."""
    distance = float(COSMOLOGY.distance(1.3))
    at = [distance * np.tan(np.deg2rad(3.2 / 60)), distance * np.tan(np.deg2rad(-1.2 / 60)), distance]
    position = np.array([at], np.float32)
    halos = Halos(
        np.array([1e12]), position, np.array([[0, 0, 3000]], np.float32), np.array([1.3], np.float32), (1, 1, 1)
    )
    angle, z = on_the_sky(halos)
    np.testing.assert_allclose(angle, [[3.2, -1.2]], atol=1e-3)
    assert z[0] == pytest.approx(1.3 + 2.3 * 3000 / 299792.458, abs=1e-5)
    seen = 0.65628 * (1 + z[0])
    grid = Grid(8, 1.0, (seen - 0.02, seen - 0.001, seen + 0.001, seen + 0.02))
    cube = intensity(grid, 0.65628, np.array([1e42]), halos)
    assert np.argwhere(cube).tolist() == [[7, 2, 1]]


def test_a_slab_of_a_box_is_a_rigid_piece_of_it() -> None:
    rng = np.random.default_rng(3)
    box = Halos(
        np.ones(4000),
        rng.uniform(0, 200, (4000, 3)).astype(np.float32),
        np.zeros((4000, 3), np.float32),
        np.full(4000, 1.3, np.float32),
        (200.0, 200.0, 200.0),
    )
    for axis in range(3):
        piece = slab(box, COSMOLOGY, (1.28, 1.32), 120.0, axis, (30.0, 190.0, 150.0))
        near, far = COSMOLOGY.distance(1.28), COSMOLOGY.distance(1.32)
        assert len(piece) == pytest.approx(4000 * (far - near) / 200 * 0.36, rel=0.15)
        assert near - 0.01 <= piece.position[:, 2].min()
        assert piece.position[:, 2].max() <= far + 0.01
        assert np.abs(piece.position[:, :2]).max() <= 60.001
        back = np.empty_like(piece.position)
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        back[:, order] = (piece.position - [0, 0, near] + [30.0, 190.0, 150.0]) % 200
        known = {tuple(np.round(p, 1) % 200) for p in box.position}
        hits = sum(tuple(np.round(p, 1) % 200) in known for p in back)
        assert hits > 0.9 * len(piece)
    with pytest.raises(ValueError, match=r"a slab from z = 1\.000 to 1\.500 is"):
        slab(box, COSMOLOGY, (1.0, 1.5), 100.0, 0, (0, 0, 0))


def test_a_slab_mock() -> None:
    simulator = mock(**SLAB, parameters=["A_HA", "A_OIII", "SCATTER"])
    theta = np.array([0.1, -0.2, 0.3])
    made, again = (simulator.simulate(theta, 7) for _ in range(2))
    for observable in simulator.observables:
        cube = made[observable.name]
        assert cube.shape == observable.shape == (1, 32, 32)
        assert cube.dtype == np.float32
        np.testing.assert_array_equal(cube, again[observable.name])
        assert (cube >= 0).all()
        assert cube.any()
    np.testing.assert_allclose(made["total"], made["ha"] + made["oiii"], rtol=1e-6)
    assert not np.array_equal(made["ha"], simulator.simulate(theta, 8)["ha"])


@pytest.mark.job
def test_mean_intensity_is_the_analytic_integral() -> None:
    """The integral is over the mass function, the mean over many maps; scatter would not change it."""
    simulator = mock(**SLAB, parameters=["A_HA", "SCATTER"], rows_per_realisation=1)
    maps = [simulator.simulate(np.array([0.0, 0.0]), seed) for seed in range(24)]
    for line in ("ha", "oiii"):
        low, high = simulator.grid.redshifts(LINES[line].wavelength)
        z = (low + high) / 2
        m, dn_dlnm, _ = COSMOLOGY.mass_function(z)
        some = m >= 1e11
        luminosity = simulator.luminosity(line, m[some], np.full(int(some.sum()), z))
        density = np.trapezoid(luminosity * dn_dlnm[some], np.log(m[some]))
        depth = COSMOLOGY.distance(high) - COSMOLOGY.distance(low)
        # Volume x L / (4 pi dL^2) over the solid angle: chi^2 cancels.
        expected = density * depth / (4 * np.pi * (1 + z) ** 2) / MPC**2 * NANOWATT
        found = [float(made[line].mean(dtype=np.float64)) for made in maps]
        error = np.std(found) / np.sqrt(len(found))
        assert np.mean(found) == pytest.approx(expected, abs=3 * error)
        assert error < 0.12 * expected


def test_lines_are_smoothed_before_anything_else() -> None:
    theta = np.array([0.0, 0.0])
    rough, smooth = (mock(**SLAB, **more) for more in ({}, {"smoothing_sigma": 1.2, "amplitude": 20.0}))
    one, two = rough.simulate(theta, 3), smooth.simulate(theta, 3)
    for name in ("ha", "oiii"):
        # By a Gaussian of 1.5 pixels on the map mirrored at its edges, as convolution theorem has it.
        wide = np.block([[one[name][0], one[name][0][:, ::-1]], [one[name][0][::-1], one[name][0][::-1, ::-1]]])
        f = np.fft.fftfreq(64)
        gauss = np.exp(-2 * (np.pi * 1.5) ** 2 * (f[:, None] ** 2 + f**2))
        expected = 20 * np.fft.ifft2(np.fft.fft2(wide) * gauss).real[:32, :32]
        np.testing.assert_allclose(two[name][0], expected, atol=2e-3 * expected.max())
    np.testing.assert_allclose(two["total"], two["ha"] + two["oiii"], rtol=1e-5)
    assert smooth.observables[0].smoothing == 1.2


def test_banks_of_older_versions_keep_their_fingerprint() -> None:
    """As computed by the version that had neither smoothing nor amplitude."""
    assert mock(**SLAB).fingerprint() == "fbc851eb8a524f3a"
    assert mock(**SLAB, smoothing_sigma=0.0, amplitude=1.0).fingerprint() == "fbc851eb8a524f3a"
    assert mock(**SLAB, smoothing_sigma=1.2).fingerprint() != "fbc851eb8a524f3a"


def test_amplitude_slope_and_lowest_mass() -> None:
    simulator = mock(**SLAB, parameters=["A_HA", "B_HA", "LOG_MMIN"], fixed={"SCATTER": 0.0})
    # The place of the slab depends on theta, so that only one box full of halos can be compared.
    mass = simulator.halos(0, 1, 1).mass
    assert mass.min() >= 1e11
    assert simulator.parameters[2].low == 11.0
    with pytest.raises(SimulationError, match=r"LOG_MMIN = 10: the catalogues begin at mass_min = 11"):
        simulator.simulate(np.array([0.0, 0.0, 10.0]), 1)


def test_cubes_share_structure_and_channels() -> None:
    simulator = mock(**CUBES)
    made = simulator.simulate(np.array([0.0, 0.0]), 2)
    assert simulator.offset == 11
    a, b = made["total"]
    np.testing.assert_array_equal(a[..., :3], b[..., 11:], err_msg="channels that both have are the same data")
    target = np.corrcoef(made["ha"][0].ravel(), made["oiii"][1].ravel())[0, 1]
    interloper = np.corrcoef(made["ha"][0].ravel(), made["oiii"][0].ravel())[0, 1]
    assert target > 0.5, "one structure lies under both lines of one redshift"
    assert abs(interloper) < 0.3
    first = simulator.observables[0]
    assert first.channels[0] / first.channels[1] == pytest.approx(np.exp(11 / 41))
    assert first.coordinates[0] == pytest.approx(2.3 * np.exp(0.5 / 41) - 1)


def test_a_third_cube_has_the_first_line_of_the_interlopers_of_the_first_cube() -> None:
    simulator = mock(**CUBES, cubes=3)
    made = simulator.simulate(np.array([0.0, 0.0]), 2)
    a, b, c = made["total"]
    np.testing.assert_array_equal(a[..., :3], b[..., 11:])
    np.testing.assert_array_equal(c[..., :3], a[..., 11:])
    assert np.corrcoef(made["ha"][2].ravel(), made["oiii"][0].ravel())[0, 1] > 0.5
    assert abs(np.corrcoef(made["ha"][2].ravel(), made["ha"][0].ravel())[0, 1]) < 0.3
    two = mock(**CUBES)
    assert "cubes" not in two.settings()
    assert two.fingerprint() != simulator.fingerprint()


def test_the_cost_of_cubes_is_that_of_their_sky_and_halos() -> None:
    # Seconds of one core, as measured: 0.45, 2.2, 9.1, 8.3. A fixed 30 was said for all of them before.
    common: dict[str, Any] = {"geometry": "cubes", "pixel": 0.8, "channels": 11, "rows_per_realisation": 1}
    for pixels, mass_min, seconds in ((32, 11.0, 0.45), (64, 11.0, 2.2), (128, 11.0, 9.1), (64, 10.0, 8.3)):
        simulator = LimMock(pixels=pixels, mass_min=mass_min, **common)
        assert seconds / 1.6 < simulator.seconds_per_row < 1.6 * seconds


def test_a_table_of_luminosities(tmp_path: Path) -> None:
    """The table's line follows it; what is in the table counts in the fingerprint."""
    path = tmp_path / "ha.txt"

    def made(log_luminosity: float) -> LimMock:
        path.write_text("".join(f"{a} {m} {log_luminosity}\n" for a in (1, 5) for m in (8, 16)))
        return mock(**SLAB, luminosity_tables={"ha": str(path)})

    mass, z = np.array([1e11, 1e13]), np.array([1.3, 1.3])
    first = made(41.0)
    np.testing.assert_allclose(first.luminosity("ha", mass, z), 1e41)
    np.testing.assert_allclose(first.luminosity("oiii", mass, z), mock(**SLAB).luminosity("oiii", mass, z))
    before = first.fingerprint()
    assert before == made(41.0).fingerprint()
    assert before != made(41.5).fingerprint()
    assert before != mock(**SLAB).fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_length": 30.0}, "the map of 25.6 arcmin and its channel need"),
        ({"wavelength": 0.6}, "would be seen at z = -0.10 there"),
        ({"wavelength": 9.0, "box_length": 900.0}, "ha would be seen at z = 12.9"),
        ({"lines": ["ha", "ha"]}, "each may be given once"),
        ({"lines": ["ha", "hg"]}, "Input should be 'ha', 'hb', 'oiii' or 'oii'"),
        ({"parameters": ["A_HB"]}, '"A_HB" is not a parameter of these lines. They are A_HA, A_OIII'),
        ({"fixed": {"A_HA": 1.0}}, "A_HA varies"),
        ({"geometry": "cubes", "lines": ["oiii", "ha"]}, "the one of the longer wavelength first"),
        ({"star_formation": "gong18"}, "or one of gong17, fonseca17, silva15"),
        ({"luminosity_tables": {"ha": "/no/such/file"}}, "/no/such/file: no table of numbers"),
        ({"mass_function": "Wat"}, 'mass function "Wat": hmf knows'),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        mock(**(SLAB | settings))


PINOCCHIO: dict[str, Any] = {
    "halo_files": [str(DATA / "pinocchio.p128a.plc.out")],
    "wavelength": 1.518,
    "resolution": 120.0,
    "mass_min": 11.9,
}


#: Fingerprints of `SLAB` with these halos before names counted alone, whose paths started at the working folder.
BEFORE = {"halos/pinocchio.p128a.plc.out": "18173f24f866af57", "two worlds": "2892942882745fb9"}


def test_halos_of_pinocchio() -> None:
    """Maps of a part of its light-cone: as bright on average as our own halos above the same mass, and each another."""
    theirs = mock(**SLAB | PINOCCHIO, fixed={"SCATTER": 0.0})
    ours = mock(**SLAB | PINOCCHIO | {"halo_files": []}, fixed={"SCATTER": 0.0})
    theta = np.zeros(2)
    maps = [[simulator.simulate(theta + 1e-6 * i, i) for i in range(12)] for simulator in (theirs, ours)]
    for line in ("ha", "oiii"):
        means = [[float(made[line].mean(dtype=float)) for made in those] for those in maps]
        error = np.hypot(*[np.std(m) / len(m) ** 0.5 for m in means])
        # Parts of one file overlap, so that its own error is larger than their scatter says.
        assert np.mean(means[0]) == pytest.approx(np.mean(means[1]), abs=4 * error)
    again = theirs.simulate(theta, 0)
    np.testing.assert_array_equal(again["total"], maps[0][0]["total"])
    assert not np.array_equal(maps[0][0]["ha"], maps[0][1]["ha"])


def test_halos_of_pinocchio_keep_their_places_and_redshifts() -> None:
    """Offsets among the halos of a part are those in the file, turned; so are redshifts with peculiar velocity."""
    path = PINOCCHIO["halo_files"][0]
    cone = read_lightcone(path, h=COSMOLOGY.h)
    part = file_halos(path, COSMOLOGY, [(1.32, 1.9)], 25.6, 10**11.9, 3)
    angle, z = on_the_sky(part)
    assert np.abs(angle).max() <= 12.81
    found = zip(part.mass, part.redshift, strict=True)
    index = [int(np.argmin(np.abs(cone.mass - m) / m + np.abs(cone.redshift - r))) for m, r in found]
    np.testing.assert_allclose(z, cone.observed_redshift[index], atol=2e-5)
    first, second = angle[:-1] - angle[1:], cone.offset[index][:-1] - cone.offset[index][1:]
    np.testing.assert_allclose(np.hypot(*first.T), np.hypot(*second.T), atol=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wavelength": 1.6}, r"its halos are at z = 1\.3.. to 2\.0.., and the lines are seen at 1\.4"),
        ({"pixel": 3.0}, r"its radius is 24\.. arcmin, and the map of 96 arcmin needs 67\.9"),
        ({"mass_min": 11.0}, r"its lowest mass is 10\^11\... Msun; set mass_min to at least that"),
        ({"cosmology": {"h": 0.7}}, r"Hubble100 = 0\.6774 in its parameter file, h = 0\.7 in"),
        ({"cosmology": {"omega_m": 0.2}}, r"Omega0 = 0\.3089 in its parameter file, omega_m = 0\.2 in"),
        ({"halo_files": ["nowhere.plc.out"]}, r"nowhere\.plc\.out: no such file"),
    ],
)
def test_files_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mock(**SLAB | PINOCCHIO | settings)


def test_halos_of_another_cosmology_are_known_by_their_places(tmp_path: Path) -> None:
    """Without the parameter file, by the distance of each halo."""
    file = Path(PINOCCHIO["halo_files"][0])
    there = shutil.copy(next(file.parent.glob(f"{file.name}*")), tmp_path)
    mock(**SLAB | PINOCCHIO | {"halo_files": [there]})
    with pytest.raises(ValueError, match=r"its halos are 0\.9.. times as far away as their redshifts are with h"):
        mock(**SLAB | PINOCCHIO | {"halo_files": [there], "cosmology": {"omega_m": 0.2}})


def test_where_files_lie_makes_no_other_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Banks of older versions, whose fingerprint has the path, are known from the folder that they were made in."""
    file = next(DATA.glob("pinocchio.p128a.plc.out*"))
    theirs = SLAB | PINOCCHIO | {"halo_files": ["halos/pinocchio.p128a.plc.out"]}
    made = []
    for place in ("one", "two"):
        (tmp_path / place / "halos").mkdir(parents=True)
        shutil.copy(file, tmp_path / place / "halos")
        made.append(build({"kind": "lim-mock", **theirs}, tmp_path / place))
    assert made[0].fingerprint() == made[1].fingerprint() != mock(**SLAB | PINOCCHIO | {"halo_files": []}).fingerprint()
    monkeypatch.chdir(tmp_path / "two")
    older = BEFORE["halos/pinocchio.p128a.plc.out"]
    assert older in earlier_fingerprints(made[1])
    assert older not in (made[0].fingerprint(), *earlier_fingerprints(made[0]))
    worlds = [{"mass_min": 11.9}, {"mass_min": 12.0}]
    both = build({"kind": "lim-mock", **theirs, "worlds": worlds}, tmp_path / "two")
    assert BEFORE["two worlds"] in earlier_fingerprints(both)


def test_a_part_of_a_wide_cone_has_as_many_halos_as_any() -> None:
    """Offsets from an axis far away keep neither areas nor shapes: at 50 degrees a shift lost 12% of the halos."""
    rng = np.random.default_rng(1)
    cosine, phi = rng.uniform(0.5, 1, 4_000_000), rng.uniform(0, 2 * np.pi, 4_000_000)  # a cap of 60 degrees
    r = 60 * np.rad2deg(np.arccos(cosine))
    sky = np.stack([r * np.cos(phi), r * np.sin(phi)], axis=1)
    expected = len(sky) / np.pi * np.deg2rad(2) ** 2
    for away, towards in ((0.0, 0.0), (20.0, 1.0), (50.0, 4.0)):
        offset = turned(sky, np.deg2rad(away), towards)
        near = np.abs(offset).max(1) < 60
        assert near.sum() == pytest.approx(expected, abs=4 * expected**0.5 + 1e-3 * expected)
        assert np.abs(offset[near].mean(0)).max() < 4 * 60 / (3 * expected) ** 0.5


def test_a_part_of_a_narrow_cone_is_shifted() -> None:
    offset = np.random.default_rng(1).uniform(-20, 20, (50, 2))
    shifted = offset - 12 * np.array([np.cos(2.0), np.sin(2.0)])
    np.testing.assert_allclose(turned(offset, np.deg2rad(12 / 60), 2.0), shifted, atol=1e-3)
