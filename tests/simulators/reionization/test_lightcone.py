"""Light-cones against the coevals that they are made of and against 21cmFAST's own light-cones."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from simulators import SimulationError, Simulator, build
from simulators.reionization import Coeval, LightCone
from simulators.reionization.geometry import distance, overlaps
from simulators.reionization.lightcone import refuse_other_cosmology

BOX: dict[str, Any] = {"cells": 16, "box_length": 48.0}
FIDUCIAL = np.array([-1.0, -0.5, 8.7])
#: 62 slices of 3 Mpc between three nodes.
NEAR: dict[str, Any] = {"redshift_range": (7.5, 8.0), "node_redshifts": (8.1, 7.7, 7.4)}


def small(**settings: Any) -> LightCone:
    return LightCone(**(BOX | {"rsd": False} | settings))


def coevals(redshifts: tuple[float, ...], seed: int) -> dict[str, NDArray[np.float32]]:
    return Coeval(**BOX, redshifts=redshifts, independent_redshifts=False).simulate(FIDUCIAL, seed)


def lightcone_of_21cmfast(
    simulator: LightCone, seed: int, beyond: int = 0, **options: Any
) -> dict[str, NDArray[np.float32]]:
    """21cmFAST's own, at the same nodes and distances and its default parameters.

    It counts the planes of the box from the far end, of which `beyond` slices are cut off.
    """
    import py21cmfast as p21c
    from astropy import units

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        inputs = p21c.InputParameters.from_template(
            "simple",
            random_seed=seed,
            node_redshifts=simulator.node_redshifts,
            HII_DIM=simulator.cells,
            HIRES_TO_LOWRES_FACTOR=2,
            BOX_LEN=simulator.box_length,
            R_BUBBLE_MAX=simulator.box_length / 3,
            N_THREADS=1,
        )
        lightconer = p21c.RectilinearLightconer(
            lc_distances=simulator.slices * units.Mpc,
            cosmo=inputs.cosmo_params.cosmo,
            quantities=("brightness_temp", "neutral_fraction"),
            index_offset=len(simulator.slices) + beyond,
        )
        made = p21c.run_lightcone(
            inputs=inputs,
            lightconer=lightconer,
            include_dvdr_in_tau21=False,
            write=False,
            cache=p21c.OutputCache(folder),
            regenerate=True,
            **options,
        )
    return dict(made.lightcones)


def test_slices_are_interpolated_between_the_nodes() -> None:
    from astropy.cosmology import Planck18

    simulator = small(**NEAR)
    cubes = simulator.simulate(FIDUCIAL, 5)
    nodes = coevals((8.1, 7.7, 7.4), 5)
    d81, d77, d74 = (Planck18.comoving_distance(z).value for z in (8.1, 7.7, 7.4))
    slices = Planck18.comoving_distance(np.array(simulator.observables[0].coordinates)).value
    assert slices[0] == pytest.approx(Planck18.comoving_distance(7.5).value + 1.5, abs=0.01)
    assert slices[-1] == pytest.approx(Planck18.comoving_distance(8.0).value - 1.5, abs=1.5)
    np.testing.assert_allclose(np.diff(slices), 3.0, atol=1e-3)
    for name, cube in cubes.items():
        assert (cube.shape, cube.dtype) == ((1, 16, 16, len(slices)), np.float32)
        for i, d in enumerate(slices):
            (a, da), (b, db) = ((0, d81), (1, d77)) if d > d77 else ((1, d77), (2, d74))
            planes = nodes[name][:, :, :, i % 16]
            expected = ((d - db) * planes[a] + (da - d) * planes[b]) / (da - db)
            np.testing.assert_allclose(cube[0, :, :, i], expected, atol=2e-3, err_msg=f"{name} {i}")


def test_they_are_those_of_21cmfast() -> None:
    simulator = small(**NEAR)
    ours, theirs = simulator.simulate(FIDUCIAL, 5), lightcone_of_21cmfast(simulator, 5)
    for name in ours:
        np.testing.assert_allclose(ours[name][0], theirs[name], atol=0.05, err_msg=name)


def test_redshift_space_is_that_of_21cmfast() -> None:
    nodes = {"redshift_range": (7.5, 7.8), "node_redshifts": (8.2, 7.3), "cells": 8, "box_length": 24.0}
    simulator, real = small(**nodes, rsd=True), small(**nodes).simulate(FIDUCIAL, 5)
    ours = simulator.simulate(FIDUCIAL, 5)
    np.testing.assert_array_equal(ours["neutral_fraction"], real["neutral_fraction"])
    inner = slice(4, -4)  # theirs has fewer slices beside the cube, which matters at its ends
    assert np.abs(ours["brightness_temp"] - real["brightness_temp"])[0, ..., inner].max() > 2
    theirs = lightcone_of_21cmfast(simulator, 5, beyond=1, apply_rsds=True)["brightness_temp_with_rsds"]
    np.testing.assert_allclose(ours["brightness_temp"][0, ..., inner], theirs[..., inner], atol=0.05)


def test_views_run_along_the_three_axes_of_one_box() -> None:
    two_nodes = NEAR | {"node_redshifts": (8.1, 7.4)}
    simulator = small(**two_nodes, views=3)
    assert (simulator.rows_per_realisation, simulator.views_of_a_run) == (12, 3)
    cubes = [simulator.simulate(FIDUCIAL, 5, view=v)["brightness_temp"][0] for v in range(3)]
    nodes = coevals((8.1, 7.4), 5)["brightness_temp"]
    far, near = distance(8.1), distance(7.4)
    views = simulator._views(5)
    assert {view.axis for view in views} == {0, 1, 2}
    for view, cube in zip(views, cubes, strict=True):
        # By hand: the plane of the box along the view's axis, between the two nodes.
        boxes = [np.moveaxis(node, view.axis, 2) for node in nodes]
        for i in (0, 20, 50):
            weight = (simulator.slices[i] - near) / (far - near)
            plane = (weight * boxes[0] + (1 - weight) * boxes[1])[..., (view.start[2] + i) % 16]
            expected = np.roll(plane, (-view.start[0], -view.start[1]), axis=(0, 1))
            np.testing.assert_allclose(cube[..., i], expected, atol=2e-3)
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(cubes[i].ravel(), cubes[j].ravel())[0, 1]) < 0.3


def test_redshift_space_is_the_default_and_moves_each_view_along_its_own_line_of_sight() -> None:
    two_nodes = BOX | NEAR | {"node_redshifts": (8.1, 7.4)}
    simulator = LightCone(**two_nodes, views=3)
    assert simulator.rsd
    moved = [simulator.simulate(FIDUCIAL, 5, view=v)["brightness_temp"][0] for v in range(3)]
    np.testing.assert_array_equal(moved[0], LightCone(**two_nodes).simulate(FIDUCIAL, 5)["brightness_temp"][0])
    real = small(**two_nodes, views=3)
    for view, cube in enumerate(moved):
        plain = real.simulate(FIDUCIAL, 5, view=view)["brightness_temp"][0].astype(np.float64)
        shift = cube - plain
        assert shift.std() > 0.15 * plain.std()
        assert abs(shift.mean()) < 0.02 * plain.mean(), "the mean stays"
        assert shift.mean(axis=2).std() < 0.2 * shift.std(), "and nearly so the mean of a line of sight"


def test_constant_efficiency_in_a_lightcone() -> None:
    simulator = small(**NEAR, sources="const-ion-eff", parameters=("HII_EFF_FACTOR", "ION_Tvir_MIN"), views=2)
    few, many = (simulator.simulate(np.array([zeta, 5.0]), 5)["neutral_fraction"].mean() for zeta in (20.0, 60.0))
    assert 0.02 < many < few - 0.1 < 0.9


@pytest.mark.parametrize("transverse", ["comoving", "angular"])
def test_channels_and_pixels_are_means_over_their_extent(transverse: Any) -> None:
    """Against a dense sampling of the slices, piecewise constant, at a few cells."""
    simulator = small(frequency_range=(158.0, 166.0), channels=20, transverse=transverse, node_redshifts=(8.1, 7.4))
    cube = simulator.observables[0]
    assert cube.shape == (1, 16, 16, 20)
    assert cube.axes[1:] == (("x", "y") if transverse == "comoving" else ("theta_x", "theta_y")) + ("frequency",)
    np.testing.assert_allclose(cube.coordinates, 158.2 + 0.4 * np.arange(20))
    made = simulator.simulate(FIDUCIAL, 5)["brightness_temp"][0]

    nodes = coevals((8.1, 7.4), 5)["brightness_temp"]
    near, d81, d74 = (distance(z) for z in (1420.40575 / 166 - 1, 8.1, 7.4))
    far = distance(1420.40575 / 158 - 1)
    angle = 48.0 / far if transverse == "angular" else 0.0
    unit = (np.arange(120) + 0.5) / 120
    for pixel, other, channel in [(0, 0, 0), (15, 3, 19), (7, 12, 5)]:
        top, bottom = (distance(1420.40575 / f - 1) for f in (158 + 0.4 * channel, 158.4 + 0.4 * channel))
        total = 0.0
        for d in bottom + unit * (top - bottom):
            i = int((d - near) / 3)
            middle = near + 3 * (i + 0.5)
            weight = (middle - d74) / (d81 - d74)
            plane = weight * nodes[0, :, :, i % 16] + (1 - weight) * nodes[1, :, :, i % 16]
            side = angle * middle if angle else 48.0
            x, y = (24 + side * ((p + unit) / 16 - 0.5) for p in (pixel, other))
            total += plane[np.ix_((x / 3).astype(int), (y / 3).astype(int))].mean()
        assert made[pixel, other, channel] == pytest.approx(total / 120, abs=0.1)
    assert made.std() > 4


def test_overlaps_keep_the_mean() -> None:
    inner, outer = np.linspace(0.0, 12.0, 13), np.array([0.5, 3.0, 3.25, 9.75, 12.0])
    weights = overlaps(inner, outer)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    field = np.random.default_rng(1).normal(size=12)
    for row, low, high in zip(weights, outer[:-1], outer[1:], strict=True):
        points = low + (np.arange(20000) + 0.5) / 20000 * (high - low)
        assert row @ field == pytest.approx(field[np.floor(points).astype(int)].mean(), abs=1e-3)


def test_global_observables_of_a_heated_lightcone() -> None:
    names = ("brightness_temp", "global_signal", "global_neutral_fraction", "optical_depth", "luminosity_function")
    nodes = (20.0, 14.0, 10.0, 8.5, 7.4)
    simulator = small(redshift_range=(7.5, 8.0), node_redshifts=nodes, parameters=("L_X", "t_STAR"), observables=names)
    assert simulator.history[: len(nodes)] == nodes
    assert simulator.history[-1] == 5.0
    made = simulator.simulate(np.array([39.0, 0.3]), 3)
    assert {o.name: o.shape for o in simulator.observables} == {name: array.shape for name, array in made.items()}
    assert tuple(made) == names
    signal = dict(zip(simulator.history, made["global_signal"][0], strict=True))
    neutral = dict(zip(simulator.history, made["global_neutral_fraction"][0], strict=True))
    assert signal[14.0] < -50, "not heated yet"
    assert 1 >= neutral[20.0] > neutral[8.5] > neutral[5.0] >= 0
    image = made["brightness_temp"]
    assert signal[8.5] != pytest.approx(signal[7.4], abs=1)
    assert min(signal[8.5], signal[7.4]) - 5 < image.mean() < max(signal[8.5], signal[7.4]) + 5
    # Thomson scattering on hydrogen and singly ionised helium, and a little more below z = 3.
    assert 0.03 < made["optical_depth"][0, 0] < 0.12
    assert made["optical_depth"][0, 0] == pytest.approx(optical_depth(neutral), rel=0.03)
    # The history below the cube leaves the image as it is.
    alone = small(redshift_range=(7.5, 8.0), node_redshifts=nodes, parameters=("L_X", "t_STAR"))
    np.testing.assert_array_equal(alone.simulate(np.array([39.0, 0.3]), 3)["brightness_temp"], image)


def test_a_history_leaves_the_nodes_of_the_cube_alone() -> None:
    nodes = (9.0, 7.4)
    simulator = small(redshift_range=(7.5, 8.0), node_redshifts=nodes, observables=("brightness_temp", "optical_depth"))
    assert [z for z in simulator.history if 7.4 <= z <= 9.0] == [9.0, 7.4]
    assert (simulator.history[0], simulator.history[-1]) == (17.831, 5.0)


def optical_depth(neutral: dict[float, float]) -> float:
    """sigma_T c int n_e dt with n_He / n_H = 0.079, helium doubly ionised below z = 3, ionised below the history."""
    from astropy.cosmology import Planck18

    z = np.linspace(0, max(neutral), 4000)
    rising = sorted(neutral)
    ionised = 1 - np.interp(z, rising, [neutral[r] for r in rising], left=0.0)
    electrons = ionised * (1 + 0.0789 * (1 + (z < 3)))
    hydrogen = 0.76 * Planck18.critical_density(0).to_value("kg / m3") * Planck18.Ob0 / 1.6735e-27
    speed = 2.99792458e8 / Planck18.H(z).to_value("1 / s")
    return float(np.trapezoid(6.6524587e-29 * hydrogen * electrons * (1 + z) ** 2 * speed, z))


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    small(redshift_range=(7.5, 7.7), observables=("brightness_temp", "luminosity_function")).simulate(FIDUCIAL, 3)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "home", "tmp"]


def test_another_cosmology_is_refused() -> None:
    from astropy.cosmology import FlatLambdaCDM, Planck18

    slices = small(redshift_range=(7.0, 8.0)).slices
    refuse_other_cosmology(Planck18, slices)
    with pytest.raises(SimulationError, match=r"cosmology has z = 7\.0.* would not be those of the simulation"):
        refuse_other_cosmology(FlatLambdaCDM(H0=67.66, Om0=0.25), slices)


def test_a_slice_between_no_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """21cmFAST would leave it at zero, which is what a fully ionised slice is."""
    simulator = small(redshift_range=(7.5, 8.0))
    monkeypatch.setattr(LightCone, "history", property(lambda self: self.node_redshifts[1:]))
    with pytest.raises(SimulationError, match="slices of brightness_temp were not made, the first at z = 7"):
        simulator.simulate(FIDUCIAL, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"redshift_range": (7.0, 8.0)},
        {"redshift_range": (7.0, 8.0), "rsd": True, "spin_temperature": True},
        {
            "frequency_range": (142.0, 177.0),
            "channels": 64,
            "transverse": "angular",
            "pixels": 12,
            "field_of_view": 0.2,
        },
        {"redshift_range": (7.0, 8.0), "observables": ("brightness_temp", "optical_depth")},
    ],
)
def test_settings_round_trip(settings: dict[str, Any]) -> None:
    simulator = small(**settings)
    again = build(simulator.settings())
    assert isinstance(again, Simulator)
    assert again == simulator
    assert again.fingerprint() == simulator.fingerprint()
    assert again.observables == simulator.observables
    assert simulator.seconds_per_row > 0
    nodes = simulator.node_redshifts
    assert nodes is not None
    assert list(nodes) == sorted(nodes, reverse=True)
    assert distance(nodes[-1]) <= simulator.slices[0]
    assert distance(nodes[0]) >= simulator.slices[-1]
    assert (nodes[0] >= 25) == bool(simulator.spin_temperature)
    assert simulator.node_step == (1.03 if simulator.spin_temperature else 1.05)


def test_every_setting_is_in_the_fingerprint() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"redshift_range": (7.0, 8.1)},
        {"transverse": "angular"},
        {"transverse": "angular", "pixels": 10},
        {"transverse": "angular", "field_of_view": 0.2},
        {"node_step": 1.1},
        {"rsd": True},
        {"observables": ("brightness_temp",)},
        {"luminosity_redshifts": (6.0,)},
        {"spin_temperature": True},
        {"spin_temperature": True, "nodes": "coarse"},
        {"spin_temperature": True, "node_step": 1.04},
        {"sources": "const-ion-eff"},
        {"views": 2},
    ]
    fingerprints = {small(**({"redshift_range": (7.0, 8.0)} | change)).fingerprint() for change in changes}
    assert len(fingerprints) == len(changes)


def test_banks_of_other_defaults_keep_their_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "4.1.1")
    cold, heated = small(redshift_range=(7.0, 8.0)), small(redshift_range=(7.0, 8.0), spin_temperature=True)
    old = small(redshift_range=(7.0, 8.0), spin_temperature=True, nodes="coarse")
    assert (cold.fingerprint(), old.fingerprint()) == ("436add504a490627", "3f9e3c7bed7a7b03")
    assert heated.remedy(old.settings()).startswith('[simulator] nodes = "coarse" would be')
    space = LightCone(**BOX, redshift_range=(7.0, 8.0), spin_temperature=True)
    assert space.remedy(old.settings()).startswith('[simulator] nodes = "coarse" and rsd = false would be')
    assert LightCone(**BOX, redshift_range=(7.0, 8.0)).remedy(cold.settings()).startswith("[simulator] rsd = false")
    assert not cold.remedy(small(redshift_range=(7.0, 8.2)).settings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give one of the two"),
        ({"redshift_range": (7.0, 8.0), "frequency_range": (150.0, 170.0), "channels": 8}, "give one of the two"),
        ({"redshift_range": (8.0, 7.0)}, "8 is not below 7"),
        ({"redshift_range": (3.0, 7.0)}, "greater than or equal to 4"),
        ({"redshift_range": (7.0, 7.01)}, "less than 4 cells"),
        ({"redshift_range": (7.0, 8.0), "channels": 8}, "channels and frequency_range go together"),
        ({"frequency_range": (150.0, 170.0)}, "channels and frequency_range go together"),
        ({"frequency_range": (150.0, 900.0), "channels": 8}, "less than or equal to 284"),
        ({"redshift_range": (7.0, 8.0), "pixels": 8}, "those of transverse"),
        ({"redshift_range": (7.0, 8.0), "transverse": "angular", "field_of_view": 2.0}, "parts of the box twice"),
        ({"redshift_range": (7.0, 8.0), "node_redshifts": (8.1, 7.1)}, "must reach from z = 7.000 or below"),
        ({"redshift_range": (7.0, 8.0), "node_redshifts": (7.9, 7.0)}, r"to z = 8\.0.* or above"),
        ({"redshift_range": (7.0, 8.0), "node_redshifts": (8.01, 7.0), "rsd": True}, "must reach from z = 6.9"),
        ({"redshift_range": (7.0, 8.0), "spin_temperature": True, "node_step": 1.01}, "must be at least 1.02"),
        ({"redshift_range": (7.0, 8.0), "nodes": "coarse"}, "only with spin_temperature = true"),
        ({"redshift_range": (7.0, 8.0), "views": 0}, "greater than or equal to 1"),
        ({"redshift_range": (7.0, 8.0), "observables": ("neutral_fraction",)}, "the first one is the image"),
        ({"redshift_range": (7.0, 8.0), "observables": ("brightness_temp", "tau")}, "optical_depth"),
        ({"redshift_range": (7.0, 8.0), "parameters": ("F_ESC",)}, 'Did you mean "F_ESC10"'),
        ({"redshifts": (7.0, 8.0)}, "redshifts"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**settings)
