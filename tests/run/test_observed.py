"""The observation of a run from files: what a telescope saw, clean cubes, masks, and files that change."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from eorinfer import load_config
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json
from eorinfer.cubes.mask import order_note, read_mask
from eorinfer.cubes.observation import Observation
from eorinfer.npe.posterior import Posterior
from eorinfer.run.run import Run
from simulators import LightCone
from tests.runs import call, config

SKY = np.random.default_rng(1).standard_normal((1, 8, 8)).astype(np.float32)


def observed(tmp_path: Path, out: str = "run", **changes: Any) -> Observation:
    run = Run(load_config(config(tmp_path, **changes)), tmp_path / out)
    return run.observe()


def test_a_clean_cube_is_observed_with_the_noise_of_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "cube.npy", SKY[0])  # without the axis of the one channel
    changes = {"observation": {"theta": None, "clean": "cube.npy"}, "survey": {"kind": "white-noise", "sigma": 0.3}}
    assert call("observe", config(tmp_path, **changes), "--out", tmp_path / "run") == 0
    text = capsys.readouterr().out
    assert 'cube.npy is taken as a clean cube; [survey] kind = "white-noise" observes it' in text
    first = Observation.read_unchecked(tmp_path / "run/observation.h5").values
    noise = first - SKY
    assert 0.2 < noise.std() < 0.4
    np.testing.assert_array_equal(observed(tmp_path, "again", **changes).values, first)
    assert not np.array_equal(observed(tmp_path, "other", seed=2, **changes).values, first)
    file = changes | {"observation": {"theta": None, "file": "cube.npy"}}
    assert call("observe", config(tmp_path, **file), "--out", tmp_path / "file") == 0
    assert "cube.npy is taken as what the telescope saw; no noise is added" in capsys.readouterr().out
    np.testing.assert_array_equal(Observation.read_unchecked(tmp_path / "file/observation.h5").values, SKY)


def saved_box(path: Path, redshift: float, values: np.ndarray) -> Path:
    """Write the parts of `Coeval.save` of 21cmFAST 4.1 that are read."""
    with h5py.File(path, "w") as file:
        group = file.create_group("BrightnessTemp")
        group.attrs["redshift"] = redshift
        group["OutputFields/brightness_temp"] = values
        _inputs(group.create_group("InputParameters"), len(values))
    return path


def _inputs(group: h5py.Group, cells: int) -> None:
    group.attrs["random_seed"] = 3
    group.create_group("simulation_options").attrs.update(BOX_LEN=40.0, HII_DIM=cells)
    group.create_group("astro_params").attrs.update(F_ESC10=-1.0, ALPHA_ESC=-0.5, M_TURN=8.7)
    group.create_group("cosmo_params").attrs.update(OMm=0.3)


BOX = {
    "simulator": {"kind": "21cmfast-coeval", "redshifts": [7.0, 8.0], "cells": 8, "box_length": 40.0},
    "prior": None,
    "survey": None,
}


def test_boxes_that_21cmfast_saved(tmp_path: Path) -> None:
    cubes = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    for name, redshift, cube in (("b.h5", 8.0, cubes[1]), ("a.h5", 7.0, cubes[0])):
        saved_box(tmp_path / name, redshift, cube)
    found = observed(tmp_path, observation={"theta": None, "clean": ["b.h5", "a.h5"]}, **BOX)
    np.testing.assert_array_equal(found.values, cubes)
    assert found.theta is not None
    np.testing.assert_array_equal(found.theta, [-1.0, -0.5, 8.7])
    for name, given, message in (
        ("one", ["a.h5"], r"redshifts is \[7\], expected \[7.0, 8.0\]"),
        ("file", None, r'a.h5: is a cube of 21cmFAST, without noise; give it as \[observation\] clean = "a.h5"'),
    ):
        table = {"theta": None, **({"clean": given} if given else {"file": "a.h5"})}
        with pytest.raises(InputError, match=message):
            observed(tmp_path, name, observation=table, **BOX)
    saved_box(tmp_path / "a.h5", 7.0, cubes[0][:4, :4, :4])
    with pytest.raises(InputError, match=r"a.h5: the cube has shape \(4, 4, 4\), expected \(8, 8, 8\)"):
        observed(tmp_path, "small", observation={"theta": None, "clean": ["b.h5", "a.h5"]}, **BOX)


def test_a_light_cone_that_21cmfast_saved(tmp_path: Path) -> None:
    cone = {"kind": "21cmfast-lightcone", "redshift_range": [8.0, 8.1], "cells": 8, "box_length": 40.0}
    simulator = LightCone(**cone)
    distances = simulator.slices[0] + 5.0 * np.arange(-3, 20) + 1.0
    values = np.random.default_rng(0).standard_normal((8, 8, len(distances)))
    with h5py.File(tmp_path / "cone.h5", "w") as file:
        file["lightcones/brightness_temp"], file["lightcone_distances"] = values, distances
        _inputs(file.create_group("InputParameters"), 8)
    tables: dict[str, Any] = {"simulator": cone, "prior": None, "survey": None}
    tables["observation"] = {"theta": None, "clean": "cone.h5"}
    found = observed(tmp_path, **tables)
    np.testing.assert_array_equal(found.values[0], values[..., 3 : 3 + len(simulator.slices)].astype(np.float32))
    longer = tables | {"simulator": cone | {"redshift_range": [8.0, 8.6]}}
    with pytest.raises(InputError, match=r"cone.h5: 23 slices from z = .* expected .* from 8.0"):
        observed(tmp_path, "longer", **longer)


def test_an_observed_file_that_has_changed_is_refused_with_both_dates(tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", SKY)
    path = config(tmp_path, observation={"theta": None, "file": "sky.npy"})
    for _ in range(2):
        Run(load_config(path), tmp_path / "run").observe()
    os.utime(tmp_path / "sky.npy", (1e9, 1e9))  # touched, and still the same
    Run(load_config(path), tmp_path / "run").observe()
    np.save(tmp_path / "sky.npy", SKY + 1)
    with pytest.raises(InputError, match=r"sky.npy: changed on \d{4}-.*, after this run read it on \d{4}-"):
        Run(load_config(path), tmp_path / "run").observe()


def masked(tmp_path: Path, mask: np.ndarray | None, values: np.ndarray, **changes: Any) -> Path:
    np.save(tmp_path / "sky.npy", values)
    table: dict[str, Any] = {"theta": None, "file": "sky.npy", "mask": "nan"}
    if mask is not None:
        np.save(tmp_path / "mask.npy", mask)
        table["mask"] = "mask.npy"
    return config(tmp_path, observation=table, inference={"rounds": [40]}, **changes)


@pytest.mark.job
def test_masked_cells_are_left_out_of_simulations_too(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:4, 5] = True
    values = SKY.copy()
    values[0, mask] = np.nan
    refused = config(tmp_path, observation={"theta": None, "file": "sky.npy"})
    np.save(tmp_path / "sky.npy", values)
    with pytest.raises(InputError, match=r'NaN .* \[observation\] mask = "nan" leaves NaN cells out'):
        Run(load_config(refused), tmp_path / "refused").observe()
    keys = []
    for name, given in (("nan", None), ("file", mask)):
        run = Run(load_config(masked(tmp_path, given, values)), tmp_path / name)
        observation = run.observe()
        assert (observation.values[0, mask] == 0).all()
        assert np.isfinite(observation.values).all()
        clean = torch.ones(2, 1, 8, 8)
        seen = run.context.survey(clean, torch.Generator().manual_seed(1))
        assert (seen[:, 0, mask] == 0).all()
        assert (seen[:, 0, ~mask] != 0).all()
        rows = run.first_rows(observation)
        keys.append(run.training_key(rows))
    assert keys[0] == keys[1]
    whole = config(tmp_path, observation={"theta": None, "file": "whole.npy"}, inference={"rounds": [40]})
    np.save(tmp_path / "whole.npy", SKY)
    other = Run(load_config(whole), tmp_path / "whole")
    assert other.training_key(other.first_rows(other.observe())) != keys[0]


def test_a_file_with_a_mask_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Networks were trained without it, and then refused the observation."""
    mask = np.zeros((8, 8), bool)
    mask[0] = True
    path = config(tmp_path, observation={"theta": None, "file": "sky.h5"})
    observable = load_config(path).observable
    Observation.from_observable(observable, SKY, mask=mask[None]).write(tmp_path / "sky.h5")
    for command in (("check", path), ("observe", path, "--out", tmp_path / "run")):
        assert call(*command) == 2
        assert (
            "sky.h5: has a mask, of 8 cells that [observation] mask has not; simulations must have the same: give "
            in (capsys.readouterr().err)
        )
    path.write_text(path.read_text().replace('file = "sky.h5"', 'file = "sky.h5"\nmask = "sky.h5"'))
    assert call("check", path) == 0
    run = Run(load_config(path), tmp_path / "run")
    np.testing.assert_array_equal(run.observe().mask[0], mask)
    assert (run.context.survey(torch.ones(1, 1, 8, 8), torch.Generator())[0, 0, mask] == 0).all()


@pytest.mark.job
def test_a_posterior_keeps_its_mask(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[0] = True
    path, out = masked(tmp_path, mask, SKY), tmp_path / "run"
    assert call("infer", path, "--out", out) == 0
    posterior = Posterior.load(out / "posterior")
    assert posterior.mask is not None
    np.testing.assert_array_equal(posterior.mask[0], mask)
    another = SKY.copy()
    another[0, 0] = np.nan
    one, two = (posterior.sample(x, 50, 1).values for x in (SKY, another))
    np.testing.assert_array_equal(one, two)
    np.save(tmp_path / "another.npy", another)
    again = ("infer", "--posterior", out / "posterior", "--observation", tmp_path / "another.npy")
    assert call(*again, "--out", tmp_path / "again") == 0
    more = Observation.from_observable(posterior.observable, SKY, mask=np.ones((1, 8, 8), bool))
    with pytest.raises(InputError, match="56 cells are masked that this posterior's simulations have"):
        posterior.sample(more, 10, 1)


def test_what_cannot_leave_cells_out_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "sky.npy", SKY)
    np.save(tmp_path / "mask.npy", np.eye(8))
    path = config(
        tmp_path,
        observation={"theta": None, "file": "sky.npy", "mask": "mask.npy"},
        inference={"method": "image-flow", "rounds": [40]},
    )
    assert call("infer", path, "--out", tmp_path / "run") == 2
    assert "the image flow is of whole images and cannot leave cells out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"theta": None, "clean": "a.npy", "file": "b.npy"}, "clean: is a cube without noise, in place of file"),
        ({"clean": "a.npy"}, "clean: is a cube without noise, in place of theta"),
        ({"mask": "nan"}, 'mask = "nan": only with file'),
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(config(tmp_path, observation=table))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4)), r"the mask has shape \(4, 4\), expected"),
        (np.ones((8, 8)), "masks every"),
    ],
)
def test_masks_that_are_refused(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Run(load_config(masked(tmp_path, mask, SKY)), tmp_path / "run").observe()


def test_what_was_read_is_recorded(tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", SKY)
    observed(tmp_path, observation={"theta": None, "file": "sky.npy"})
    assert list(read_json(tmp_path / "run/observation.json")["files"]) == [str((tmp_path / "sky.npy").resolve())]


def test_a_mock_as_a_clean_cube_gets_noise_once(tmp_path: Path) -> None:
    observable = load_config(config(tmp_path)).observable
    Observation.from_observable(observable, SKY + 5).write(tmp_path / "mock.h5", {observable.name: SKY})
    changes = {"observation": {"theta": None, "clean": "mock.h5"}, "survey": {"kind": "none", "sigma": None}}
    np.testing.assert_array_equal(observed(tmp_path, **changes).values, SKY)


def test_a_mask_as_a_map_of_a_cube(tmp_path: Path) -> None:
    box = LightCone(redshift_range=(8.0, 8.1), cells=8, box_length=40.0).observables[0]
    across = np.zeros((8, 8))
    across[2, 3] = 1
    for name, array in (("map", across), ("cube", np.broadcast_to(across[..., None], box.cells))):
        np.save(tmp_path / f"{name}.npy", array)
        mask = read_mask(tmp_path / f"{name}.npy", box)
        assert mask.shape == box.shape
        assert mask.sum() == box.shape[-1]
        assert mask[0, 2, 3].all()


def test_the_order_of_a_mask_without_axes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = masked(tmp_path, np.eye(8), SKY)
    assert call("observe", path, "--out", tmp_path / "run") == 0
    note = "mask.npy has no axes: its cells are taken in the order of the simulations, "
    assert f"observation: {note}channel, x, y\n" in capsys.readouterr().out
    clean = config(tmp_path, observation={"theta": None, "clean": "sky.npy", "mask": "mask.npy"})
    assert call("observe", clean, "--out", tmp_path / "clean") == 0
    assert f"observation: {note}channel, x, y\n" in capsys.readouterr().out
    cone = LightCone(redshift_range=(8.0, 8.1), cells=8, box_length=40.0).observables[0]
    order = f"channel, x, y, z from {cone.coordinates[0]:g} to {cone.coordinates[-1]:g}"
    of_fits = order_note(Path("a/mask.npy"), Path("a/sky.fits.gz"), cone)
    assert of_fits == f"WARNING: {note}{order}, whatever that of sky.fits.gz"
    assert order_note(Path("mask.fits"), Path("sky.fits"), cone) is None


#: Where a simulator of one's own takes its numbers from, and whether it keeps to its seed.
SOURCES = [
    ("", "np.random.default_rng(seed)", True),
    ("", "np.random", False),
    ("np.random.seed(0)", "np.random", False),
    ("RNG = np.random.default_rng(0)", "RNG", False),
]


@pytest.mark.job
@pytest.mark.parametrize("command", ["observe", "simulate"])
@pytest.mark.parametrize(("line", "source", "keeps"), SOURCES)
def test_a_simulator_that_does_not_keep_to_its_seed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, source: str, keeps: bool, command: str
) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from simulators import GaussianField\n"
        f"{line}\n"
        "class Mine(GaussianField):\n"
        "    def simulate(self, theta, seed):\n"
        f"        return {{'field': {source}.normal(size=(1, 8, 8)).astype(np.float32)}}\n"
    )
    path = config(tmp_path, simulator={"kind": "mine:Mine"}, inference={"rounds": [4]})
    assert call(command, path, "--out", tmp_path / "run") == 0
    said = "".join(capsys.readouterr())
    assert said.count("gives two cubes for one theta and seed") == (not keeps)
