"""FITS: axes are found by their type, put in order and compared; what cannot be meant is refused."""

import warnings
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.cubes.fits import sky_header_of, write_images
from eorinfer.cubes.mask import read_mask
from eorinfer.cubes.observation import Observation
from simulators import Coeval, LightCone, Observable
from simulators.lim.mock import LimMock

CONE = LightCone(
    cells=8, box_length=64.0, frequency_range=(150.0, 160.0), channels=10, transverse="angular"
).observables[0]
BOX = Coeval(redshifts=(7.0, 8.5), cells=8, box_length=40.0).observables[0]
PIXEL = CONE.field_of_view / 8
#: Cards of each axis, without the number of the axis.
AXES: dict[str, dict[str, Any]] = {
    "ra": {"CTYPE": "RA---SIN", "CDELT": -PIXEL, "CUNIT": "deg", "CRPIX": 4.5, "CRVAL": 10.0},
    "dec": {"CTYPE": "DEC--SIN", "CDELT": PIXEL, "CUNIT": "deg", "CRPIX": 4.5, "CRVAL": -30.0},
    "frequency": {"CTYPE": "FREQ", "CDELT": 1e6, "CUNIT": "Hz", "CRPIX": 1.0, "CRVAL": 150.5e6},
    "stokes": {"CTYPE": "STOKES", "CDELT": 1.0, "CUNIT": "", "CRPIX": 1.0, "CRVAL": 1.0},
}
REST = 1420.40575e6


def cone_values() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(CONE.shape).astype(np.float32)


def write(path: Path, order: tuple[str, ...], axes: dict[str, dict[str, Any]] = AXES, **cards: Any) -> Path:
    """Write the light-cone with its FITS axes in this order; ``order[0]`` is axis 1."""
    places = {"ra": 1, "dec": 2, "frequency": 3, "stokes": 0}
    header = fits.Header({"BUNIT": "mK"})
    for i, name in enumerate(order, start=1):
        for key, value in axes[name].items():
            header[f"{key}{i}"] = value
    header.update(cards)
    values = cone_values().transpose([places[name] for name in reversed(order)] + [0] * ("stokes" not in order))
    fits.PrimaryHDU(values[..., 0] if "stokes" not in order else values, header).writeto(path)
    return path


@pytest.mark.parametrize("order", list(permutations(("ra", "dec", "frequency"))), ids="-".join)
def test_axes_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    back = Observation.read(write(tmp_path / "o.fits", order), CONE)
    np.testing.assert_array_equal(back.values, cone_values())
    np.testing.assert_allclose(back.coordinates, CONE.coordinates, rtol=1e-12)
    np.testing.assert_allclose(back.field_of_view, CONE.field_of_view, rtol=1e-12)


@pytest.mark.parametrize("order", [("ra", "dec"), ("dec", "ra")], ids="-".join)
@pytest.mark.parametrize("unit", [None, ""])
def test_a_map_masks_all_slices_of_a_light_cone(tmp_path: Path, order: tuple[str, ...], unit: str | None) -> None:
    masked = np.zeros(CONE.cells[:2])
    masked[2, 5] = 1
    cards = {f"{key}{i}": value for i, name in enumerate(order, start=1) for key, value in AXES[name].items()}
    header = fits.Header(cards if unit is None else {"BUNIT": unit} | cards)
    fits.PrimaryHDU(masked.T if order == ("ra", "dec") else masked, header).writeto(tmp_path / "mask.fits")
    mask = read_mask(tmp_path / "mask.fits", CONE)
    assert mask[0, 2, 5].all()
    assert mask.sum() == CONE.cells[2]


@pytest.mark.parametrize("order", [("ra", "dec", "stokes", "frequency"), ("ra", "dec", "frequency", "stokes")])
def test_a_stokes_axis_of_length_one(tmp_path: Path, order: tuple[str, ...]) -> None:
    back = Observation.read(write(tmp_path / "o.fits", order), CONE)
    np.testing.assert_array_equal(back.values, cone_values())


def test_several_stokes_images_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency", "stokes"))
    with fits.open(path) as hdus:
        fits.PrimaryHDU(np.repeat(hdus[0].data, 4, 0), hdus[0].header).writeto(tmp_path / "four.fits")
    with pytest.raises(InputError, match="CTYPE4 is STOKES with 4 images"):
        Observation.read(tmp_path / "four.fits", CONE)


def flipped(spectral: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return AXES | {"frequency": AXES["frequency"] | spectral}


@pytest.mark.parametrize(
    "spectral",
    [
        {"CDELT": -1e6, "CRVAL": 159.5e6},
        {"CDELT": -1.0, "CRVAL": 159.5, "CUNIT": "MHz"},
        {"CDELT": -1e6, "CRPIX": 10.0},
    ],
)
def test_a_falling_frequency_is_turned_round(tmp_path: Path, spectral: dict[str, Any]) -> None:
    back = Observation.read(write(tmp_path / "o.fits", ("ra", "dec", "frequency"), flipped(spectral)), CONE)
    np.testing.assert_array_equal(back.values, cone_values()[..., ::-1])
    np.testing.assert_allclose(back.coordinates, CONE.coordinates, rtol=1e-12)


def test_radio_velocities_with_a_rest_frequency(tmp_path: Path) -> None:
    speed = 299792458.0
    spectral = {"CTYPE": "VRAD", "CUNIT": "m/s", "CDELT": -speed * 1e6 / REST, "CRVAL": speed * (1 - 150.5e6 / REST)}
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency"), flipped(spectral), RESTFRQ=REST)
    back = Observation.read(path, CONE)
    np.testing.assert_allclose(back.coordinates, CONE.coordinates, rtol=1e-9)
    np.testing.assert_array_equal(back.values, cone_values())
    without = write(tmp_path / "without.fits", ("ra", "dec", "frequency"), flipped(spectral))
    with pytest.raises(InputError, match="CTYPE3 is VRAD, which needs RESTFRQ in Hz beside it"):
        Observation.read(without, CONE)
    cards = flipped(spectral | {"CTYPE": "VELO-LSR"}), {"RESTFRQ": REST}
    old = write(tmp_path / "old.fits", ("ra", "dec", "frequency"), cards[0], **cards[1], VELREF=257)
    np.testing.assert_allclose(Observation.read(old, CONE).coordinates, CONE.coordinates, rtol=1e-9)
    neither = write(tmp_path / "neither.fits", ("ra", "dec", "frequency"), cards[0], **cards[1])
    with pytest.raises(InputError, match="CTYPE3 is VELO-LSR, which needs VELREF beside it: 257 for radio velocities"):
        Observation.read(neither, CONE)


def test_slices_by_redshift_are_read_from_frequencies(tmp_path: Path) -> None:
    redshifts = tuple(REST / 1e6 / f - 1 for f in CONE.coordinates[::-1])
    expected = replace(CONE, axes=(*CONE.axes[:-1], "z"), coordinates=redshifts)
    back = Observation.read(write(tmp_path / "o.fits", ("ra", "dec", "frequency")), expected)
    np.testing.assert_array_equal(back.values, cone_values()[..., ::-1])


def test_cd_and_pc_matrices(tmp_path: Path) -> None:
    turn = np.radians(30.0)
    rotation = {"PC1_1": np.cos(turn), "PC1_2": -np.sin(turn), "PC2_1": np.sin(turn), "PC2_2": np.cos(turn)}
    back = Observation.read(write(tmp_path / "pc.fits", ("ra", "dec", "frequency"), **rotation), CONE)
    np.testing.assert_allclose(back.field_of_view, CONE.field_of_view, rtol=1e-12)
    path = write(tmp_path / "cd.fits", ("ra", "dec", "frequency"))
    with fits.open(path, mode="update") as hdus:
        header = hdus[0].header
        for i in (1, 2, 3):
            header[f"CD{i}_{i}"] = header.pop(f"CDELT{i}")
    np.testing.assert_array_equal(Observation.read(path, CONE).values, cone_values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("frequency", {"CRVAL": 120.5e6}), r"coordinates is \[120.5, 121.5, ..., 129.5 \(10 in all\)\], expected"),
        (("ra", {"CDELT": -2 * PIXEL}), r"cell_size is \[15.8"),
        (("dec", {"CDELT": 2 * PIXEL}), r"cell_size is \[7.9\d*, 15.8"),
        (("frequency", {"CTYPE": "BETA", "CUNIT": ""}), "CTYPE3 is BETA; it must be FREQ or WAVE"),
        (("frequency", {"CTYPE": "TIME", "CUNIT": "s"}), "no spectral axis; CTYPE must be FREQ or WAVE"),
    ],
)
def test_axes_that_are_not_the_observables(tmp_path: Path, change: tuple[str, dict[str, Any]], message: str) -> None:
    axes = AXES | {change[0]: AXES[change[0]] | change[1]}
    with pytest.raises(InputError, match=message):
        Observation.read(write(tmp_path / "o.fits", ("ra", "dec", "frequency"), axes), CONE)


def test_the_first_hdu_with_an_image(tmp_path: Path) -> None:
    with fits.open(write(tmp_path / "o.fits", ("ra", "dec", "frequency"))) as hdus:
        image = fits.ImageHDU(hdus[0].data, hdus[0].header)
        table = fits.BinTableHDU.from_columns([fits.Column(name="a", format="D", array=np.zeros(3))])
        fits.HDUList([fits.PrimaryHDU(), table, image]).writeto(tmp_path / "later.fits")
    np.testing.assert_array_equal(Observation.read(tmp_path / "later.fits", CONE).values, cone_values())


@pytest.mark.parametrize(("unit", "factor"), [("kpc", 1000.0), ("Gpc", 1e-3), ("Mpc", 1.0)])
def test_lengths_in_other_units(tmp_path: Path, unit: str, factor: float) -> None:
    values = np.random.default_rng(0).standard_normal(BOX.shape).astype(np.float32)
    Observation.from_observable(BOX, values).write_fits(tmp_path / "o.fits")
    with fits.open(tmp_path / "o.fits", mode="update") as hdus:
        for i in (1, 2, 3):
            hdus[0].header[f"CUNIT{i}"] = unit
            hdus[0].header[f"CDELT{i}"] *= factor
    back = Observation.read(tmp_path / "o.fits", BOX)
    np.testing.assert_allclose(back.cell_size, BOX.cell_size, rtol=1e-12)
    np.testing.assert_array_equal(back.values, values)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"CUNIT1": "Mpc/h"}, "CUNIT1 is 'Mpc/h'; it must be a comoving length, such as Mpc"),
        ({"CUNIT2": "deg"}, "CUNIT2 is 'deg'; it must be a comoving length, such as Mpc"),
        ({"CUNIT1": "kpc", "CUNIT2": "kpc", "CUNIT3": "kpc"}, r"cell_size is \[0.005, 0.005, 0.005\], expected \[5.0"),
        ({"PC1_2": 0.5}, "axes that are lengths must not be rotated"),
        ({"CDELT1": -5.0}, r"cell_size is \[5.0, 5.0, -5.0\], expected"),
    ],
)
def test_lengths_that_are_refused(tmp_path: Path, cards: dict[str, Any], message: str) -> None:
    Observation.from_observable(BOX, np.zeros(BOX.shape, np.float32)).write_fits(tmp_path / "o.fits")
    with fits.open(tmp_path / "o.fits", mode="update") as hdus:
        hdus[0].header.update(cards)
    with pytest.raises(InputError, match=message):
        Observation.read(tmp_path / "o.fits", BOX)


def line_intensity(cubes: int) -> Observable:
    settings: dict[str, Any] = {"geometry": "cubes", "channels": 6, "cubes": cubes} if cubes else {}
    return LimMock(pixels=32, pixel=0.8, **settings).observables[0]


@pytest.mark.parametrize("number_of_cubes", [0, 2, 3])
def test_mocks_of_line_intensity_there_and_back(tmp_path: Path, number_of_cubes: int) -> None:
    observable = line_intensity(number_of_cubes)
    values = np.random.default_rng(0).standard_normal(observable.shape).astype(np.float32)
    write_images(tmp_path / "o.fits", observable, values, {"ha": values})
    back = Observation.read(tmp_path / "o.fits", observable)
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_allclose(back.coordinates, observable.coordinates, rtol=1e-12)
    header = sky_header_of(tmp_path / "o.fits", observable)
    write_images(tmp_path / "again.fits", observable, values, {"ha": values}, header)
    first, again = (fits.getheader(tmp_path / name) for name in ("o.fits", "again.fits"))
    assert dict(first) == dict(again), "a file in our order keeps its header"


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("number_of_cubes", [0, 2, 3])
def test_what_is_written_has_the_unit_and_the_axes_of_its_numbers(
    tmp_path: Path, number_of_cubes: int, ordered: bool
) -> None:
    observable = line_intensity(number_of_cubes)
    values = np.random.default_rng(0).standard_normal(observable.shape).astype(np.float32)
    write_images(tmp_path / "o.fits", observable, values, {})
    with fits.open(tmp_path / "o.fits") as file:
        image, header = file[0].data, file[0].header
        if not number_of_cubes:  # with its wavelength as a third axis
            header["CTYPE3"], header["CUNIT3"], header["CRVAL3"] = "WAVE", "um", observable.channels[0]
            header["CRPIX3"], header["CDELT3"], image = 1.0, 0.01, image[None]
        if not ordered:
            image = image.swapaxes(-1, -2)
            for key in ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT"):
                header[f"{key}1"], header[f"{key}2"] = header.get(f"{key}2", ""), header.get(f"{key}1", "")
        header["BUNIT"] = "W m-2 sr-1"
        for night in ("first", "second"):
            header["HISTORY"] = f"{night} night"
        fits.PrimaryHDU(image * np.float32(1e-9), header).writeto(tmp_path / "watt.fits")
    there = Observation.read(tmp_path / "watt.fits", observable)
    np.testing.assert_allclose(there.values, values, rtol=1e-5)
    header = sky_header_of(tmp_path / "watt.fits", observable)
    write_images(tmp_path / "made.fits", observable, there.values, {"ha": values[:1]}, header)
    with fits.open(tmp_path / "made.fits") as file:
        for hdu in file:
            assert hdu.header["BUNIT"] == "nW/m^2/sr"
            assert [str(line) for line in hdu.header["HISTORY"]] == ["first night", "second night"]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert WCS(hdu.header).naxis == hdu.data.ndim
    again = Observation.read(tmp_path / "made.fits", observable)
    np.testing.assert_array_equal(again.values, there.values)


def test_the_sky_follows_the_axes(tmp_path: Path) -> None:
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency"), flipped({"CDELT": -1e6, "CRVAL": 159.5e6}))
    values = Observation.read(path, CONE).values
    with fits.open(path, mode="update") as file:
        file[0].header["OBJECT"] = "COSMOS"
        file[0].header["HISTORY"] = "made in a dark night"
    header = sky_header_of(path, CONE)
    assert header is not None
    assert (header["OBJECT"], str(header["HISTORY"])) == ("COSMOS", "made in a dark night")
    write_images(tmp_path / "ours.fits", CONE, values, {}, header)
    np.testing.assert_array_equal(Observation.read(tmp_path / "ours.fits", CONE).values, values)
    theirs, ours = WCS(fits.getheader(path)), WCS(fits.getheader(tmp_path / "ours.fits"))
    for x, y, slice_ in [(0, 0, 0), (1, 5, 3), (7, 2, 9)]:
        ra, dec, frequency = theirs.pixel_to_world_values(x, y, 9 - slice_)
        np.testing.assert_allclose(ours.pixel_to_world_values(slice_, y, x), (frequency, dec, ra), rtol=1e-12)
    Observation.from_observable(BOX, np.zeros(BOX.shape, np.float32)).write_fits(tmp_path / "box.fits")
    assert sky_header_of(tmp_path / "box.fits", BOX) is None


RAYLEIGH_JEANS = 2 * 1.380649e-26 * (np.array(CONE.coordinates) * 1e6 / 299792458.0) ** 2
BEAM = np.pi / (4 * np.log(2)) * np.radians(0.05) * np.radians(0.04)


@pytest.mark.parametrize(
    ("cards", "factor"),
    [
        ({"BUNIT": "K"}, 1e3),
        ({"BUNIT": "Jy/beam", "BMAJ": 0.05, "BMIN": 0.04}, 1e-26 / BEAM / RAYLEIGH_JEANS),
        ({"BUNIT": "MJy/sr"}, 1e-20 / RAYLEIGH_JEANS),
        ({"BUNIT": "Jy/pixel"}, 1e-26 / np.radians(PIXEL) ** 2 / RAYLEIGH_JEANS),
    ],
)
def test_units_are_converted_with_a_line(tmp_path: Path, cards: dict[str, Any], factor: Any) -> None:
    path = write(tmp_path / "o.fits.gz", ("ra", "dec", "frequency"), **cards)
    back = Observation.read(path, CONE)
    np.testing.assert_allclose(back.values, cone_values() * factor, rtol=2e-6)
    assert back.unit == "mK"
    assert back.notes[-1].startswith(f"unit: converted from {cards['BUNIT']} to mK, times ")


def test_beams_that_change_with_frequency(tmp_path: Path) -> None:
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency"), BUNIT="Jy/beam")
    with pytest.raises(InputError, match="needs the beam: BMAJ and BMIN"):
        Observation.read(path, CONE)
    sides = np.linspace(180.0, 150.0, 10)
    columns = [fits.Column(name=name, format="E", unit="arcsec", array=sides) for name in ("BMAJ", "BMIN")]
    with fits.open(path) as hdus:
        table = fits.BinTableHDU.from_columns(columns, name="BEAMS")
        fits.HDUList([fits.PrimaryHDU(hdus[0].data, hdus[0].header), table]).writeto(tmp_path / "beams.fits")
    angles = np.pi / (4 * np.log(2)) * np.radians(sides / 3600) ** 2
    back = Observation.read(tmp_path / "beams.fits", CONE)
    np.testing.assert_allclose(back.values, cone_values() * 1e-26 / angles / RAYLEIGH_JEANS, rtol=2e-6)


def test_an_axis_of_redshifts(tmp_path: Path) -> None:
    redshifts = tuple(8.0 + 0.05 * i for i in range(10))
    expected = replace(CONE, axes=(*CONE.axes[:-1], "z"), coordinates=redshifts)
    axis = {"CTYPE": "REDSHIFT", "CDELT": 0.05, "CUNIT": "", "CRPIX": 1.0, "CRVAL": 8.0}
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency"), flipped(axis))
    np.testing.assert_array_equal(Observation.read(path, expected).values, cone_values())
    other = replace(expected, coordinates=tuple(z + 0.01 for z in redshifts))
    with pytest.raises(InputError, match=r"coordinates is \[8.0, 8.05, .*: redshifts of the slices"):
        Observation.read(path, other)


def test_a_map_without_private_cards(tmp_path: Path) -> None:
    observable = line_intensity(0)
    header = fits.Header({"BUNIT": "nW sr-1 m-2"})
    pixel = observable.field_of_view / observable.cells[0]
    for i, kind in ((1, "RA---TAN"), (2, "DEC--TAN")):
        header[f"CTYPE{i}"], header[f"CUNIT{i}"], header[f"CRPIX{i}"] = kind, "deg", 1.0
        header[f"CD{i}_{i}"] = pixel if i == 2 else -pixel
    values = np.random.default_rng(0).standard_normal(observable.cells).astype(np.float32)
    fits.PrimaryHDU(values.T, header).writeto(tmp_path / "o.fits")
    back = Observation.read(tmp_path / "o.fits", observable)
    assert "names no wavelength" in back.notes[0]
    assert sorted(back.values.ravel()) == sorted(values.ravel())
    header.update({"CTYPE3": "WAVE", "CUNIT3": "um", "CRVAL3": 1.6, "CDELT3": 0.04, "CRPIX3": 1.0})
    fits.PrimaryHDU(values.T[None], header).writeto(tmp_path / "wave.fits")
    with pytest.raises(InputError, match=r"wavelengths is \[1.6\], expected \[1.5"):
        Observation.read(tmp_path / "wave.fits", observable)
    header.update({"BUNIT": "MJy/sr"})
    fits.PrimaryHDU(values.T[None], header).writeto(tmp_path / "mjy.fits")
    with pytest.raises(InputError, match="unit is 'MJy/sr', expected 'nW/m\\^2/sr', the intensity within a channel"):
        Observation.read(tmp_path / "mjy.fits", observable)


def test_degenerate_axes_of_any_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency", "stokes"))
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CTYPE4"] = "FEED"
    np.testing.assert_array_equal(Observation.read(path, CONE).values, cone_values())


def test_a_box_on_one_redshift_by_a_card(tmp_path: Path) -> None:
    box = Coeval(redshifts=(8.0,), cells=8, box_length=40.0).observables[0]
    values = np.random.default_rng(0).standard_normal(box.cells).astype(np.float32)
    header = fits.Header({"BUNIT": "mK", "REDSHIFT": 8.0})
    for i, axis in enumerate("zyx", start=1):
        header[f"CTYPE{i}"], header[f"CDELT{i}"], header[f"CUNIT{i}"] = axis, 5.0, "Mpc"
    fits.PrimaryHDU(values, header).writeto(tmp_path / "o.fits")
    np.testing.assert_array_equal(Observation.read(tmp_path / "o.fits", box).values[0], values)
    header["REDSHIFT"] = 8.5
    fits.PrimaryHDU(values, header).writeto(tmp_path / "other.fits")
    with pytest.raises(InputError, match=r"redshifts is \[8.5\], expected \[8.0\]"):
        Observation.read(tmp_path / "other.fits", box)


def test_pixels_on_the_sky_for_a_box_in_mpc(tmp_path: Path) -> None:
    box = Coeval(redshifts=(8.0,), cells=8, box_length=40.0).observables[0]
    path = write(tmp_path / "o.fits", ("ra", "dec", "frequency"))
    with fits.open(path) as hdus:
        fits.PrimaryHDU(hdus[0].data[:8], hdus[0].header).writeto(tmp_path / "eight.fits")
    with pytest.raises(InputError, match=r"cell_size is \[7.8\d*, 7.8\d*, 1\d\.\d*\], expected \[5.0, 5.0, 5.0\]"):
        Observation.read(tmp_path / "eight.fits", box)
