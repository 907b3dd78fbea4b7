"""`eorinfer lim` and the example, as a user would start them, on small maps."""

import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from eorinfer import Observation
from eorinfer.run.config import load_config
from tests.runs import CONFIG, call, config

SLAB = {"kind": "lim-mock", "pixels": 32, "pixel": 0.8, "mass_min": 11.5, "box_length": 210.0, "cell": 5.0}


def lim_config(folder: Path, **simulator: object) -> Path:
    return config(
        folder,
        simulator={"cells": None} | SLAB | simulator,
        prior=None,
        survey={"kind": "spherex", "sigma": None},
        observation={"theta": {"A_HA": 0.1, "A_OIII": 0.0}},
    )


def test_mocks_are_files_that_can_be_observed(tmp_path: Path) -> None:
    path = lim_config(tmp_path)
    assert call("lim", path, "--out", tmp_path / "mocks", "--n", "2", "--fits", "--plot") == 0
    names = sorted(p.name for p in (tmp_path / "mocks").iterdir())
    assert names == ["mock-000.fits", "mock-000.h5", "mock-000.png", "mock-001.fits", "mock-001.h5"]
    first = Observation.read(tmp_path / "mocks/mock-000.h5", load_config(path).observable)
    assert first.theta is not None
    np.testing.assert_allclose(first.theta, [0.1, 0.0])
    with h5py.File(tmp_path / "mocks/mock-000.h5") as a, h5py.File(tmp_path / "mocks/mock-001.h5") as b:
        np.testing.assert_allclose(a["total"][:], a["ha"][:] + a["oiii"][:], rtol=1e-6)
        noise = a["observed"][:] - a["total"][:]
        # 1.92 / 41 nW/m^2/sr in pixels of 6.2 arcsec; the beam blurs the map a little.
        assert noise.std() == pytest.approx(0.0468 * 6.2 / 48, rel=0.1)
        assert not np.array_equal(a["ha"][:], b["ha"][:])
        with fits.open(tmp_path / "mocks/mock-000.fits") as file:
            np.testing.assert_array_equal(file["HA"].data, a["ha"][0])
            wcs = WCS(file[0].header)
            across = wcs.pixel_to_world(0, 0).separation(wcs.pixel_to_world(31, 0)).arcmin
            assert across == pytest.approx(31 * 0.8, rel=1e-3)


def test_what_is_there_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lim_config(tmp_path)
    assert call("lim", path, "--out", tmp_path / "mocks") == 0
    before = (tmp_path / "mocks/mock-000.h5").stat().st_mtime_ns
    assert call("lim", path, "--out", tmp_path / "mocks", "--n", "2") == 0
    assert (tmp_path / "mocks/mock-000.h5").stat().st_mtime_ns == before
    assert (tmp_path / "mocks/mock-001.h5").exists()
    assert call("lim", path, "--out", tmp_path / "mocks", "--seed", "2") == 2
    assert "mock-000.h5: is a mock of other parameters or another seed; give another" in capsys.readouterr().err


def test_a_mock_that_another_config_made_is_not_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Theta, seed and shape are the same: the survey differs, or a key of the simulator that no axis shows."""
    small, mocks = {"pixels": 16}, tmp_path / "mocks"
    assert call("lim", lim_config(tmp_path, **small), "--out", mocks) == 0
    other = lim_config(tmp_path, **small)
    other.write_text(other.read_text().replace('"spherex"', '"spherex"\nfield = "all-sky"'))
    for path in (other, lim_config(tmp_path, **small, amplitude=2.0)):
        assert call("lim", path, "--out", mocks) == 2
        assert "mock-000.h5: is a mock of another [simulator] or [survey]; give another" in capsys.readouterr().err
    with h5py.File(mocks / "mock-000.h5", "r+") as file:
        assert file["ha"].attrs["unit"] == "nW/m^2/sr"
        del file["observed"].attrs["made_by"]  # as older versions wrote it
    assert call("lim", lim_config(tmp_path, **small), "--out", mocks) == 0


def test_fits_and_the_picture_are_made_of_mocks_that_are_there(tmp_path: Path) -> None:
    path, mocks = lim_config(tmp_path, pixels=16), tmp_path / "mocks"
    assert call("lim", path, "--out", mocks) == 0
    before = (mocks / "mock-000.h5").stat().st_mtime_ns
    assert call("lim", path, "--out", mocks, "--fits", "--plot") == 0
    assert (mocks / "mock-000.h5").stat().st_mtime_ns == before
    assert (mocks / "mock-000.png").exists()
    with fits.open(mocks / "mock-000.fits") as file, h5py.File(mocks / "mock-000.h5") as mock:
        np.testing.assert_array_equal(file[0].data, mock["observed"][0])
        assert [hdu.name for hdu in file[1:]] == ["TOTAL", "HA", "OIII"]
        np.testing.assert_array_equal(file["OIII"].data, mock["oiii"][0])


def test_a_box_smaller_than_the_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("lim", lim_config(tmp_path, box_length=40.0), "--out", tmp_path / "mocks") == 2
    errors = capsys.readouterr().err
    assert "box_length = 40 Mpc: where ha is seen the map of 25.6 arcmin" in errors
    assert not (tmp_path / "mocks").exists()


def test_the_example_is_a_config() -> None:
    example = Path(__file__).parents[2] / "examples/lim.toml"
    loaded = load_config(example)
    assert loaded.observable.shape == (1, 64, 64)
    assert tomllib.loads(example.read_text())["survey"]["kind"] == "spherex"


def test_mocks_need_no_observation_and_no_rounds(tmp_path: Path) -> None:
    """They are then draws from the prior, two that differ."""
    path = lim_config(tmp_path, pixels=16)
    bare = config(
        tmp_path,
        "bare.toml",
        simulator={"cells": None} | SLAB | {"pixels": 16},
        survey={"kind": "spherex", "sigma": None},
        **dict.fromkeys(set(CONFIG) - {"simulator", "survey"}),
    )
    assert call("lim", bare, "--out", tmp_path / "mocks", "--n", "2") == 0
    thetas = [Observation.read(tmp_path / f"mocks/mock-00{i}.h5", load_config(path).observable).theta for i in (0, 1)]
    assert thetas[0] is not None
    assert thetas[1] is not None
    assert (np.abs([*thetas[0], *thetas[1]]) <= 0.5).all()
    assert not np.array_equal(thetas[0], thetas[1])
