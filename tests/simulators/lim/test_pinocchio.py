"""Real outputs of PINOCCHIO 4.1.3 and 5.1: ascii against binary, and what is wrong with files."""

import gzip
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulators.lim.pinocchio import read_catalog, read_lightcone, read_parameters, run
from simulators.lim.pinocchio_format import CatalogueError

DATA = Path(__file__).parents[2] / "data/pinocchio"
H = 0.6774
#: Ascii catalogues are rounded to 0.01 (Mpc/h, km/s), and half of that is the most that they are off.
ROUNDED = 0.0051


def unzipped(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    return path


@pytest.mark.parametrize(("ascii", "binary", "halos"), [("a128", "b128", 6517), ("v4a", "v4b", 6690)])
def test_catalogues_in_ascii_and_binary_agree(ascii: str, binary: str, halos: int) -> None:
    a, b = (read_catalog(DATA / f"pinocchio.2.0000.{name}.catalog.out") for name in (ascii, binary))
    assert len(a.mass) == len(b.mass) == halos
    np.testing.assert_allclose(a.mass, b.mass, rtol=1e-6)
    assert np.abs(a.position - b.position).max() * H < ROUNDED
    assert np.abs(a.velocity - b.velocity).max() < ROUNDED
    assert (b.position >= 0).all()
    assert b.position.max() <= 100 / H


@pytest.mark.parametrize(("ascii", "binary", "halos"), [("p128a", "p128b", 10351), ("v4a", "v4b", 2000)])
def test_light_cones_in_ascii_and_binary_agree(ascii: str, binary: str, halos: int) -> None:
    a, b = (read_lightcone(DATA / f"pinocchio.{name}.plc.out") for name in (ascii, binary))
    assert len(a.mass) == len(b.mass) == halos
    assert a.position is not None
    assert b.position is not None
    np.testing.assert_allclose(a.mass, b.mass, rtol=1e-7)
    np.testing.assert_allclose(a.position, b.position, atol=1e-5)
    np.testing.assert_allclose(a.velocity, b.velocity, atol=0.51e-2)
    np.testing.assert_allclose(a.redshift, b.redshift, atol=1e-6)
    np.testing.assert_allclose(a.observed_redshift, b.observed_redshift, atol=1e-6)
    np.testing.assert_allclose(a.offset, b.offset, atol=1e-4)


@pytest.mark.parametrize("name", ["p128a", "v4b"])
def test_the_plane_of_the_sky(name: str, tmp_path: Path) -> None:
    """Offsets by the axis and by the file's angles (theta is the latitude) agree; so do observed redshifts."""
    cone = read_lightcone(DATA / f"pinocchio.{name}.plc.out")
    alone = unzipped(f"pinocchio.{name}.plc.out", tmp_path)
    angles = read_lightcone(alone, h=H, units="h")
    radius = np.hypot(*cone.offset.T)
    assert radius.max() <= 60 * 0.4 + 0.01
    far = radius > 6
    np.testing.assert_allclose(angles.offset[far], cone.offset[far], atol=0.12)
    assert np.abs(angles.offset - cone.offset).max() < 0.6, "rounding of version 5"
    assert cone.position is not None
    assert cone.velocity is not None
    ray = cone.position / np.linalg.norm(cone.position, axis=1, keepdims=True)
    axis = np.array([1, 0.37, 0.19]) / np.linalg.norm([1, 0.37, 0.19])
    across = np.linalg.norm(np.cross(ray, axis), axis=1)
    np.testing.assert_allclose(np.rad2deg(np.arcsin(across)) * 60, radius, atol=1e-4)
    observed = cone.redshift + (cone.velocity * ray).sum(1) / 299792.458 * (1 + cone.redshift)
    np.testing.assert_allclose(observed, cone.observed_redshift, atol=2e-6)


def test_several_files_and_blocks() -> None:
    whole = read_catalog(DATA / "pinocchio.2.0000.t64.catalog.out")
    parts = [read_catalog(DATA / f"pinocchio.2.0000.t64.catalog.out.{i}") for i in range(2)]
    np.testing.assert_array_equal(whole.mass, np.concatenate([part.mass for part in parts]))
    cone = read_lightcone(DATA / "pinocchio.t64.plc.out")
    assert len(cone.mass) == 2019
    assert 1.3 <= cone.redshift.min() < cone.redshift.max() <= 2.05


def test_light_output(tmp_path: Path) -> None:
    """Written by the description of the format, from the records of whole files."""
    full = read_lightcone(DATA / "pinocchio.p128a.plc.out", h=1.0)
    r, phi = np.hypot(*full.offset.T) / 60, np.rad2deg(np.arctan2(*full.offset.T[::-1]))
    columns = [np.arange(len(r)), full.redshift, full.mass, 90 - r, phi, full.observed_redshift]
    np.savetxt(tmp_path / "pinocchio.l.plc.out", np.stack(columns, axis=1), header="mass (Msun/h)")
    names = ("id", "z", "mass", "theta", "phi", "z_obs", "pad")
    records = np.zeros(len(r), [(name, "<u8" if name == "id" else "<f4") for name in names])
    for name, column in zip(names, columns, strict=False):
        records[name] = column
    size = np.int32(len(r) * 32).tobytes()
    head = np.array([4, 32, 4, 4, len(r), 4], "<i4").tobytes()
    (tmp_path / "binary.plc.out").write_bytes(head + size + records.tobytes() + size)
    for name in ("pinocchio.l.plc.out", "binary.plc.out"):
        light = read_lightcone(tmp_path / name, h=1.0, units="h")
        assert light.position is None
        assert light.velocity is None
        np.testing.assert_allclose(light.mass, full.mass, rtol=1e-6)
        np.testing.assert_allclose(light.offset, full.offset, atol=2e-3)

    box = np.loadtxt(DATA / "pinocchio.2.0000.a128.catalog.out.gz")[:, :11]
    np.savetxt(tmp_path / "light.catalog.out", box, header="(Msun/h)")
    records = np.zeros(len(box), [("id", "<u8"), ("mass", "<f4"), *((name, "<f4", 3) for name in "xvq")])
    records["mass"], records["x"], records["v"] = box[:, 1], box[:, 5:8], box[:, 8:]
    size = np.int32(len(box) * 48).tobytes()
    head = np.array([8, 1, 48, 8, 4, len(box), 4], "<i4").tobytes()
    (tmp_path / "binary.catalog.out").write_bytes(head + size + records.tobytes() + size)
    wanted = read_catalog(DATA / "pinocchio.2.0000.a128.catalog.out")
    for name in ("light.catalog.out", "binary.catalog.out"):
        light_box = read_catalog(tmp_path / name, h=H, units="h")
        np.testing.assert_allclose(light_box.position, wanted.position, rtol=1e-6)
        np.testing.assert_allclose(light_box.velocity, wanted.velocity, rtol=1e-6)


def test_units(tmp_path: Path) -> None:
    ascii, binary = (unzipped(f"pinocchio.2.0000.{name}.catalog.out", tmp_path) for name in ("a128", "b128"))
    with pytest.raises(CatalogueError, match="it is in Mpc/h; give h, or put the run's parameter file beside it"):
        read_catalog(ascii)
    with pytest.raises(CatalogueError, match=r'its units are not known. Say units="h"'):
        read_catalog(binary, h=H)
    with pytest.raises(CatalogueError, match='units = "kpc": "h" or "physical"'):
        read_catalog(binary, h=H, units="kpc")  # type: ignore[arg-type]
    as_is, scaled = read_catalog(binary, units="physical"), read_catalog(binary, h=0.5, units="h")
    np.testing.assert_array_equal(scaled.mass, 2 * as_is.mass)
    np.testing.assert_array_equal(scaled.position, 2 * as_is.position)
    np.testing.assert_array_equal(scaled.velocity, as_is.velocity)
    shutil.copy(DATA / "param_b128", tmp_path)
    np.testing.assert_allclose(read_catalog(binary).mass, as_is.mass / H)


@pytest.mark.parametrize("name", ["pinocchio.2.0000.b128.catalog.out", "pinocchio.2.0000.v4b.catalog.out"])
@pytest.mark.parametrize("keep", [10, 300, -5])
def test_truncated_catalogues(tmp_path: Path, name: str, keep: int) -> None:
    path = unzipped(name, tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CatalogueError, match=f"{name}: truncated"):
        read_catalog(path, h=H, units="h")


@pytest.mark.parametrize("name", ["pinocchio.p128b.plc.out", "pinocchio.v4b.plc.out"])
def test_truncated_light_cones(tmp_path: Path, name: str) -> None:
    path = unzipped(name, tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CatalogueError, match=f"{name}: truncated"):
        read_lightcone(path, h=H, units="h")


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "x.catalog.out"
    with pytest.raises(CatalogueError, match=r"no such file, nor x\.catalog\.out\.0"):
        read_catalog(path)
    path.write_bytes(b"")
    with pytest.raises(CatalogueError, match="the file is empty"):
        read_catalog(path)
    path.write_text("# (Msun/h)\n")
    with pytest.raises(CatalogueError, match="there are no halos in it"):
        read_catalog(path, h=H)
    path.write_text("1 2 3\n")
    with pytest.raises(CatalogueError, match=r"it has 3 columns; those of one redshift \(.*\) have 11 or 12"):
        read_catalog(path, h=H)
    with pytest.raises(CatalogueError, match=r"12 columns, as catalogues of one redshift \(.*\) have; those of a"):
        read_lightcone(DATA / "pinocchio.2.0000.a128.catalog.out.gz")
    with pytest.raises(CatalogueError, match=r"13 columns, as catalogues of a past light-cone \(.*\) have; those of o"):
        read_catalog(DATA / "pinocchio.p128a.plc.out.gz")
    row = "1 nan 1 1 1 1 1 1 1 1 1 20\n"
    path.write_text("# (Msun/h)\n" + row + row.replace("nan", "1e12") + row.replace("nan", "-1"))
    with pytest.raises(CatalogueError, match="2 of 3 masses are not positive numbers"):
        read_catalog(path, h=H)
    path.write_text("# (Msun/h)\n" + row + "1 1e12 1\n")
    with pytest.raises(CatalogueError, match="not every line has 12 numbers; is it truncated"):
        read_catalog(path, h=H)
    path.write_bytes(b"\x01\x00\x00\x00" * 100)
    with pytest.raises(CatalogueError, match="no PINOCCHIO catalogue"):
        read_catalog(path, h=H)
    (tmp_path / "y.catalog.out.1").write_bytes(b"")
    with pytest.raises(CatalogueError, match=r"parts \[0\] of 2 are missing"):
        read_catalog(tmp_path / "y.catalog.out")


def test_run_without_pinocchio(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no-such\.x is not on the PATH: build PINOCCHIO"):
        run(tmp_path, {"RunFlag": "r"}, [2.0], executable="no-such.x")
    with pytest.raises(CatalogueError, match="lack RunFlag"):
        run(tmp_path, {}, [2.0])


@pytest.mark.job
def test_run_starts_what_is_installed(tmp_path: Path) -> None:
    """A program that does what PINOCCHIO does with its one argument: reads the file and leaves a catalogue."""
    program = tmp_path / "pinocchio.x"
    source = DATA / "pinocchio.2.0000.b128.catalog.out.gz"
    program.write_text(
        f'#!/bin/sh\ngrep -q "RunFlag r1" "$1" || {{ echo "no flag" >&2; exit 3; }}\n'
        f"gzip -dc {source} > pinocchio.2.0000.r1.catalog.out\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    wanted = {"RunFlag": "r1", "Hubble100": H, "OutputInH100": None, "GridSize": 128}
    [path] = run(tmp_path / "run", wanted, [2.0, 1.3], executable=str(program))
    assert (tmp_path / "run/outputs").read_text() == "2\n1.3\n"
    assert read_parameters(tmp_path / "run/parameters")["OutputInH100"] == ""
    expected = read_catalog(DATA / "pinocchio.2.0000.b128.catalog.out")
    np.testing.assert_array_equal(read_catalog(path).mass, expected.mass)
    program.write_text("#!/bin/sh\necho 'GridSize is odd' >&2\nexit 3\n")
    with pytest.raises(CatalogueError, match="ended with exit code 3 and said: GridSize is odd"):
        run(tmp_path / "other", wanted, [2.0], executable=str(program))


DAMAGE: list[Callable[[bytes], bytes]] = [
    lambda whole: whole[:3000],
    lambda _: b"no gzip at all",
    lambda whole: whole[:99] + b"x" * 999,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_gzip_files_are_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    name = "pinocchio.2.0000.a128.catalog.out.gz"
    (tmp_path / name).write_bytes(damage((DATA / name).read_bytes()))
    with pytest.raises(CatalogueError, match=f"{name}: is truncated or no gzip file"):
        read_catalog(tmp_path / name, h=0.7, units="h")
