"""Observations: three formats there and back, and one clear line for each thing that does not fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.cubes.observation import Observation, as_observation
from simulators import Coeval, GaussianField, LightCone, Observable

COEVAL = Coeval(redshifts=(7.0, 8.5), cells=8, box_length=40.0).observables[0]
FLAT = GaussianField(cells=6).observables[0]
# Three different sides show a swapped axis.
SLAB = replace(COEVAL, shape=(2, 8, 6, 4), cell_size=(5.0, 4.0, 2.5))

#: Ten channels of an angular light-cone.
CONE = LightCone(
    cells=8, box_length=64.0, frequency_range=(150.0, 160.0), channels=10, transverse="angular"
).observables[0]


def cube(observable: Observable) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(observable.shape).astype(np.float32)


@pytest.mark.parametrize("observable", [COEVAL, FLAT, SLAB], ids=["coeval", "flat", "slab"])
def test_hdf5_round_trip(tmp_path: Path, observable: Observable) -> None:
    ours = Observation.from_observable(observable, cube(observable), np.array([0.1, 1 / 3]), 2**32 - 1)
    ours.write(tmp_path / "o.h5")
    back = Observation.read(tmp_path / "o.h5", observable)
    assert back.values.tobytes() == ours.values.tobytes()
    assert back.theta is not None
    assert back.theta.tolist() == [0.1, 1 / 3]
    assert back.seed == 2**32 - 1
    for name in ("unit", "axes", "cell_size", "channels"):
        assert getattr(back, name) == getattr(observable, name)
    with h5py.File(tmp_path / "o.h5") as file:
        key = "redshifts" if observable is not FLAT else "channels"
        assert set(file["observed"].attrs) == {"format", "unit", "axes", "cell_size", key, "theta", "seed"}


@pytest.mark.parametrize("name", ["o.h5", "o.fits", "o.npy"])
def test_a_lightcone_keeps_its_coordinates(tmp_path: Path, name: str) -> None:
    ours = Observation.from_observable(CONE, cube(CONE))
    if name == "o.npy":
        np.save(tmp_path / name, ours.values)
    else:
        (ours.write if name == "o.h5" else ours.write_fits)(tmp_path / name)
    back = Observation.read(tmp_path / name, CONE)
    assert back.coordinates == CONE.coordinates
    assert back.field_of_view == CONE.field_of_view > 0
    if name != "o.npy":
        shifted = replace(CONE, coordinates=tuple(f + 1 for f in CONE.coordinates))
        with pytest.raises(InputError, match=r"coordinates is \[150.5, 151.5, ..., 159.5 \(10 in all\)\], expected"):
            Observation.read(tmp_path / name, shifted)
        with pytest.raises(InputError, match="field_of_view is"):
            Observation.read(tmp_path / name, replace(CONE, field_of_view=2.0))


@pytest.mark.parametrize("observable", [COEVAL, FLAT, SLAB], ids=["coeval", "flat", "slab"])
def test_fits_and_npy_round_trip(tmp_path: Path, observable: Observable) -> None:
    ours = Observation.from_observable(observable, cube(observable))
    ours.write_fits(tmp_path / "o.fits")
    np.save(tmp_path / "o.npy", ours.values.astype(np.float64))
    for name in ("o.fits", "o.npy"):
        back = Observation.read(tmp_path / name, observable)
        assert back.values.tobytes() == ours.values.tobytes()
        assert back.values.dtype == np.float32
        assert (back.unit, back.axes, back.cell_size, back.channels) == (
            observable.unit,
            observable.axes,
            observable.cell_size,
            observable.channels,
        )
        assert back.theta is None
        assert back.seed is None
    with fits.open(tmp_path / "o.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].header["CTYPE1"] == observable.axes[-1], "the last axis is FITS axis 1"
        assert hdus[0].header["NAXIS1"] == observable.shape[-1]


def test_hdf5_as_other_programs_write_it(tmp_path: Path) -> None:
    """Text as bytes, one number for cubic cells, the cube in float64 and compressed."""
    with h5py.File(tmp_path / "o.hdf5", "w") as file:
        data = file.create_dataset("observed", data=cube(COEVAL).astype(">f8"), compression="gzip")
        data.attrs["unit"] = np.bytes_("mK")
        data.attrs["axes"] = np.array(COEVAL.axes, "S")
        data.attrs["cell_size"] = 5.0
        data.attrs["redshifts"] = np.array([7.0, 8.5], np.float32)
    back = Observation.read(tmp_path / "o.hdf5", COEVAL)
    assert back.values.tobytes() == cube(COEVAL).tobytes()
    assert back.cell_size == (5.0, 5.0, 5.0)


def with_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values = values.copy()
    values[0, 1, 2, 3], values[1, 0, 0, 0] = np.nan, -np.inf
    return values


def with_fill(values: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
    values = values.copy()
    values[:, :2, 0, 0] = fill
    return values


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"values": cube(COEVAL)[:1]},
        "the cube has shape (1, 8, 8, 8), expected (2, 8, 8, 8) (redshift, x, y, z)",
    ),
    (
        {"values": with_nan(cube(COEVAL))},
        "2 of 1024 values are NaN or infinite, the first is [",
    ),
    (
        {"values": with_fill(cube(COEVAL), -9999.0)},
        "4 of 1024 values are -9999, where all others lie between ",
    ),
    ({"values": with_fill(cube(COEVAL), 1e15)}, "4 of 1024 values are 1e+15, where all others lie between "),
    ({"unit": "s"}, "unit is 's', expected 'mK'"),
    ({"axes": ("redshift", "z", "y", "x")}, "axes is ('redshift', 'z', 'y', 'x'), expected"),
    ({"cell_size": (4.0, 5.0, 5.0)}, "cell_size is [4.0, 5.0, 5.0], expected [5.0, 5.0, 5.0]"),
    (
        {"cell_size": (3.39,) * 3},
        "cell_size is [3.39, 3.39, 3.39], expected [5.0, 5.0, 5.0]; is one of them in",
    ),
    (
        {"cell_size": (7.35,) * 3},
        "cell_size is [7.35, 7.35, 7.35], expected [5.0, 5.0, 5.0]; is one of them in",
    ),
    ({"channels": (7.0, 8.6)}, "redshifts is [7.0, 8.6], expected [7.0, 8.5]"),
    ({"channels": (8.5, 7.0)}, "redshifts is [8.5, 7.0], expected [7.0, 8.5]"),
]


@pytest.mark.parametrize("suffix", ["h5", "fits"])
@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], message: str, suffix: str) -> None:
    path = tmp_path / f"o.{suffix}"
    wrong = replace(Observation.from_observable(COEVAL, cube(COEVAL)), **change)
    (wrong.write if suffix == "h5" else wrong.write_fits)(path)
    with pytest.raises(InputError) as caught:
        Observation.read(path, COEVAL)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_rounding_of_the_coordinates_is_no_difference(tmp_path: Path) -> None:
    near = replace(
        Observation.from_observable(COEVAL, cube(COEVAL)), cell_size=(5.00001, 5.0, 5.0), channels=(7.0001, 8.5)
    )
    near.write(tmp_path / "o.h5")
    Observation.read(tmp_path / "o.h5", COEVAL)


def no_dataset(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["cube"] = cube(COEVAL)


def no_attributes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["observed"] = cube(COEVAL)
        file["observed"].attrs["unit"] = "mK"


def no_image(path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)


def bare_image(path: Path) -> None:
    fits.PrimaryHDU(cube(COEVAL)).writeto(path)


def no_table(path: Path) -> None:
    Observation.from_observable(COEVAL, cube(COEVAL)).write_fits(path)
    with fits.open(path) as hdus:
        fits.HDUList(hdus[:1]).writeto(path, overwrite=True)


def text(path: Path) -> None:
    path.write_text("no cube")


def complex_cube(path: Path) -> None:
    """Write what a Fourier transform leaves."""
    if path.suffix == ".npy":
        np.save(path, cube(COEVAL).astype(complex))
    else:
        Observation.from_observable(COEVAL, cube(COEVAL)).write(path)
        with h5py.File(path, "r+") as file:
            attributes = dict(file["observed"].attrs)
            del file["observed"]
            file.create_dataset("observed", data=cube(COEVAL).astype(complex)).attrs.update(attributes)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, cube=cube(COEVAL))


def texts(path: Path) -> None:
    np.save(path, np.full(COEVAL.shape, "1.0"))


def objects(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("o.h5", no_dataset, 'has no dataset "observed", only cube'),
        (
            "o.h5",
            no_attributes,
            'the dataset "observed" lacks the attribute axes; it needs unit, axes, cell_size',
        ),
        ("o.h5", text, "cannot be read as .h5 ("),
        ("o.h5", Path.touch, "cannot be read as .h5 ("),
        ("o.fits", no_image, "no HDU holds an image"),
        (
            "o.fits",
            bare_image,
            "the header lacks CTYPE1; it needs BUNIT, CTYPE1, CTYPE2, CTYPE3, CTYPE4, CDELT1",
        ),
        ("o.fits", no_table, 'has no table CHANNELS; it needs one with the column "redshift"'),
        ("o.fits", text, "cannot be read as .fits ("),
        ("o.fits", Path.touch, "cannot be read as .fits ("),
        ("o.npy", text, "cannot be read as .npy (it has no header of NumPy)"),
        ("o.npy", Path.touch, "cannot be read as .npy (it has no header of NumPy)"),
        ("o.npy", archive, "cannot be read as .npy (it is an archive of arrays, .npz)"),
        ("o.h5", complex_cube, "the values are complex; give real ones"),
        ("o.npy", complex_cube, "the values are complex; give real ones"),
        ("o.npy", texts, "the values are <U3, not numbers"),
        ("o.npy", objects, "cannot be read as .npy (Object arrays cannot be loaded when allow_pickle=False)"),
        ("o.png", text, "observations are .h5, .hdf5, .fits, .npy files"),
        ("o.h5", lambda path: None, "no such file"),
        ("o.h5", Path.mkdir, "is a folder, not a file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, write: Callable[[Path], None], message: str) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError) as caught:
        Observation.read(path, COEVAL)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["<i2", ">f4", ">f8", "<f8"])
def test_numbers_of_other_kinds_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    values = np.round(100 * cube(COEVAL)).astype(kind)
    np.save(tmp_path / "o.npy", values)
    np.testing.assert_array_equal(Observation.read(tmp_path / "o.npy", COEVAL).values, values)


def test_a_cube_of_another_simulator_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """Not for an attribute that a cube of its kind does not have."""
    Observation.from_observable(COEVAL, cube(COEVAL)).write(tmp_path / "o.h5")
    with pytest.raises(InputError, match=r"o\.h5: unit is 'mK', expected ''"):
        Observation.read(tmp_path / "o.h5", GaussianField(cells=8).observables[0])


def test_hdf5_in_other_units(tmp_path: Path) -> None:
    replace(Observation.from_observable(COEVAL, cube(COEVAL)), unit="K").write(tmp_path / "o.h5")
    back = Observation.read(tmp_path / "o.h5", COEVAL)
    np.testing.assert_allclose(back.values, 1000 * cube(COEVAL), rtol=1e-6)
    assert back.notes == ("unit: converted from K to mK, times 1000",)
    (*_, said) = Observation.read(tmp_path / "o.h5", replace(COEVAL, smoothing=1.2)).notes
    assert said == "taken to be smoothed across the sky by σ = 1.2 arcmin, as all maps"
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file["observed"][0, 1, 2, 3] = 1e20
    with pytest.raises(InputError, match=r"fill values or too large .* \[0, 1, 2, 3\] = 1e\+20"):
        Observation.read(tmp_path / "o.h5", COEVAL)


def test_an_npy_without_the_axis_of_the_one_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", cube(FLAT)[0])
    np.testing.assert_array_equal(Observation.read(tmp_path / "o.npy", FLAT).values, cube(FLAT))


@pytest.mark.parametrize("observable", [COEVAL, CONE], ids=["boxes", "light-cone"])
def test_an_array_in_memory(observable: Observable) -> None:
    said: dict[str, Any] = {"cell_size": observable.cell_size, "unit": "K"}
    if observable is CONE:
        said |= {"frequencies": CONE.coordinates, "field_of_view": CONE.field_of_view}
    else:
        said |= {"redshifts": (7.0, 8.5)}
    values = cube(observable)[0] if observable is CONE else cube(observable)
    ours = Observation.from_array(values, **said).matched(observable, "ours")
    np.testing.assert_allclose(ours.values, 1000 * cube(observable), rtol=1e-6)
    for key, other in (("cell_size", 3.0), ("redshifts", (7.0, 9.0)), ("frequencies", np.arange(10.0) + 100)):
        if key in said:
            with pytest.raises(InputError, match="expected"):
                Observation.from_array(values, **said | {key: other}).matched(observable, "ours")


def test_flipped_and_read_only_arrays_are_taken() -> None:
    """Torch takes neither; flipping an axis is an astronomer's daily bread."""
    flipped = Observation.from_observable(COEVAL, cube(COEVAL)[..., ::-1])
    assert flipped.values.tobytes() == np.ascontiguousarray(cube(COEVAL)[..., ::-1]).tobytes()
    fixed = cube(COEVAL)
    fixed.setflags(write=False)
    for one in (
        flipped,
        Observation.from_observable(COEVAL, fixed),
        Observation.from_array(fixed[0, ::-1], cell_size=1.0),
    ):
        assert all(stride > 0 for stride in one.values.strides)
        assert one.values.flags.writeable


def test_quantities_and_arrays_that_do_not_go_together() -> None:
    kelvin = cube(COEVAL) * units.K
    ours = Observation.from_array(kelvin, redshifts=(7.0, 8.5), cell_size=5.0)
    assert ours.unit == "K"
    in_mk = Observation.from_array(kelvin, redshifts=(7.0, 8.5), cell_size=5.0, unit="mK")
    np.testing.assert_allclose(in_mk.values, 1000 * ours.values, rtol=1e-6)
    for changes, message in (
        ({"redshifts": (7.0, 8.0, 9.0)}, "does not go with 3 numbers of redshift"),
        ({"wavelengths": 1.5}, "give one of redshift, wavelength"),
        ({"cell_size": (5.0, 5.0)}, "cell_size has 2 numbers"),
        ({"unit": "s"}, "is not converted to 's'"),
    ):
        with pytest.raises(InputError, match=message):
            Observation.from_array(kelvin, **{"redshifts": (7.0, 8.5), "cell_size": 5.0} | changes)


def test_sizes_and_coordinates_may_be_quantities() -> None:
    values = cube(COEVAL)
    plain = Observation.from_array(values, unit="mK", redshifts=(7.0, 8.5), cell_size=5.0, field_of_view=0.85)
    for size in (5 * units.Mpc, 5000 * units.kpc, [5 * units.Mpc] * 3):
        made = Observation.from_array(
            values, unit=units.mK, redshifts=(7.0, 8.5), cell_size=size, field_of_view=51 * units.arcmin
        )
        assert (made.cell_size, made.unit) == (plain.cell_size, "mK")
        assert made.field_of_view == pytest.approx(0.85)
    cone = {"unit": "mK", "cell_size": 5.0, "field_of_view": 1.0}
    slices = cube(CONE)[0]
    for given in (list(CONE.coordinates) * units.MHz, [f * units.MHz for f in CONE.coordinates]):
        made = Observation.from_array(slices, frequencies=given, **cone)
        np.testing.assert_allclose(made.coordinates, CONE.coordinates)
    lines = Observation.from_array(values[:, 0], unit="mK", wavelengths=[1.5, 1.6] * units.um, cell_size=1.9)
    assert lines.channels == (1.5, 1.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_size": 4 * units.arcmin}, "cell_size: has the unit arcmin, which is not converted to 'Mpc'"),
        ({"cell_size": "five"}, "cell_size: the values are <U4, not numbers"),
        ({"cell_size": [[5.0], [5.0, 5.0]]}, "cell_size: must be one number or a list of numbers"),
        ({"cell_size": []}, "cell_size: must be one number or a list of numbers"),
        ({"redshifts": None, "frequencies": []}, "frequencies: must be one number or a list of numbers"),
        ({"redshifts": [[7.0, 8.5]]}, "redshifts: must be one number or a list of numbers"),
        ({"cell_size": -5.0}, "sizes are above 0"),
        ({"redshifts": None, "frequencies": np.linspace(150e6, 151e6, 8)}, "beyond the line at rest"),
        ({"redshifts": None, "frequencies": [158.0, 149.0]}, "frequencies has 2 numbers, and values 8 slices along"),
    ],
)
def test_what_an_array_cannot_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Observation.from_array(cube(COEVAL), **{"unit": "mK", "redshifts": (7.0, 8.5), "cell_size": 5.0} | changes)


def test_a_fill_value_is_named_as_the_file_has_it(tmp_path: Path) -> None:
    kelvin = replace(Observation.from_observable(COEVAL, with_fill(cube(COEVAL) / 1000, -9999.0)), unit="K")
    kelvin.write(tmp_path / "o.h5")
    with pytest.raises(InputError, match="4 of 1024 values are -9999, where all others"):
        Observation.read(tmp_path / "o.h5", COEVAL)


@pytest.mark.parametrize("values", [0.0, 1e4], ids=["clipped", "far from zero"])
def test_extremes_that_many_cells_share_are_no_fill_values(values: float) -> None:
    image = np.maximum(cube(COEVAL), np.quantile(cube(COEVAL), 0.3)) + np.float32(values)
    assert as_observation(image, COEVAL).values.tobytes() == image.tobytes()
    mask = np.zeros(COEVAL.shape, bool)
    mask[:, :3] = True
    assert (as_observation(image, COEVAL, mask).values == 0).sum() >= mask.sum()


def test_masked_cells_are_zero_and_come_back(tmp_path: Path) -> None:
    values = cube(FLAT)
    values[0, 1, 2] = np.nan
    np.save(tmp_path / "o.npy", values)
    read = Observation.read(tmp_path / "o.npy", FLAT, "nan")
    assert read.mask is not None
    assert read.mask.sum() == 1
    assert read.values[0, 1, 2] == 0
    read.write(tmp_path / "o.h5")
    back = Observation.read(tmp_path / "o.h5", FLAT)
    np.testing.assert_array_equal(back.mask, read.mask)


def test_cells_of_a_masked_array_are_left_out() -> None:
    values = cube(COEVAL)
    values[0, 1, 2, 3] = np.nan
    mask = np.isnan(values)
    taken = as_observation(np.ma.masked_invalid(values), COEVAL)
    o = COEVAL
    given = {"cell_size": o.cell_size, "unit": o.unit, "redshifts": o.channels}
    made = Observation.from_array(np.ma.masked_invalid(values), **given)
    made.check(COEVAL, "made")
    for one in (taken, made):
        np.testing.assert_array_equal(one.mask, mask)
        assert one.values.tobytes() == np.where(mask, 0, values).tobytes()
    (one,) = Observation.from_array(np.ma.masked_invalid(values[0]), **(given | {"redshifts": o.channels[0]})).mask
    np.testing.assert_array_equal(one, mask[0])
    assert as_observation(np.ma.masked_array(cube(COEVAL), False), COEVAL).mask is None


def test_an_array_whose_unit_is_not_said() -> None:
    made = Observation.from_array(cube(COEVAL), cell_size=COEVAL.cell_size, redshifts=COEVAL.channels)
    with pytest.raises(InputError, match="observation: has no unit, expected 'mK'; it is said by unit = of arrays"):
        as_observation(made, COEVAL)


def test_masked_cells_are_nan_in_fits(tmp_path: Path) -> None:
    """They were zeros, and no longer masked when the file was read."""
    values = np.ma.masked_greater(cube(COEVAL), 0.5)
    written = as_observation(values, COEVAL)
    written.write_fits(tmp_path / "o.fits")
    with pytest.raises(InputError, match='mask = "nan" leaves NaN cells out'):
        Observation.read(tmp_path / "o.fits", COEVAL)
    back = Observation.read(tmp_path / "o.fits", COEVAL, "nan")
    np.testing.assert_array_equal(back.mask, values.mask)
    assert back.values.tobytes() == written.values.tobytes()


@pytest.mark.parametrize("kind", [bool, float])
def test_a_mask_in_an_hdf5_file_may_be_a_map(tmp_path: Path, kind: type) -> None:
    Observation.from_observable(COEVAL, cube(COEVAL)).write(tmp_path / "o.h5")
    mask = np.zeros(COEVAL.cells[:2], kind)
    mask[1, 2] = 1
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file["mask"] = mask
    read = Observation.read(tmp_path / "o.h5", COEVAL)
    assert read.mask is not None
    assert read.mask.shape == COEVAL.shape
    assert read.mask.sum() == read.mask[:, 1, 2].size
    for wrong, said in (
        (np.zeros((3, 3)), r"o\.h5: the mask has shape \(3, 3\), expected"),
        (np.ones(COEVAL.shape), r"o\.h5: masks every cell; cells that are not 0 are left out"),
    ):
        with h5py.File(tmp_path / "o.h5", "r+") as file:
            del file["mask"]
            file["mask"] = wrong
        with pytest.raises(InputError, match=said):
            Observation.read(tmp_path / "o.h5", COEVAL)
