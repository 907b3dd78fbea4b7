"""Imported cubes: the same ones once, other ones for the same theta never in silence."""

import os
import pickle
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy import units

from eorinfer.bank.export import export_rows
from eorinfer.bank.facts import BankFacts
from eorinfer.bank.importing import import_rows
from eorinfer.bank.plausible import unlike_prior
from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.training import data
from eorinfer.training.data import Cubes
from simulators import GaussianField, Imported, build

SIMULATOR = GaussianField(cells=4)
PRIOR = Prior(SIMULATOR.parameters)


def files(folder: Path, n: int = 130) -> tuple[Path, Path, np.ndarray]:
    rng = np.random.default_rng(1)
    cubes = rng.normal(size=(n, *SIMULATOR.observables[0].shape))
    np.save(folder / "theta.npy", PRIOR.sample(n, rng))
    np.save(folder / "cubes.npy", cubes)
    return folder / "theta.npy", folder / "cubes.npy", cubes


def imported(bank: Bank, theta: Path, cubes: Path) -> int:
    return import_rows(bank, PRIOR, theta, [str(cubes)])


def test_the_same_import_again_changes_nothing(tmp_path: Path) -> None:
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    assert [imported(bank, theta, cubes) for _ in range(2)] == [130, 0]
    assert len(bank.rows()) == 130
    assert np.allclose(bank.read("field", bank.rows()), values)


def test_an_import_that_was_stopped_goes_on(tmp_path: Path) -> None:
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    bank.shard_path(bank.plans()[0], 1).unlink()
    imported(bank, theta, cubes)
    again = Bank.open(bank.path)
    assert np.allclose(again.read("field", again.rows()), values)


@pytest.mark.parametrize("row", [0, 100])
def test_other_cubes_for_the_same_theta_are_refused(tmp_path: Path, row: int) -> None:
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    corrected = values.copy()
    corrected[row, 0, 1, 1] += 0.5
    np.save(tmp_path / "corrected.npy", corrected)
    with pytest.raises(InputError, match=rf"has other cubes for the same theta and seeds \(the first is row {row} of"):
        imported(bank, theta, tmp_path / "corrected.npy")
    assert np.allclose(bank.read("field", bank.rows()), values)


def test_the_precision_of_the_file_does_not_matter(tmp_path: Path) -> None:
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    np.save(tmp_path / "single.npy", values.astype(np.float32))
    np.save(tmp_path / "columns.npy", np.asfortranarray(values))
    assert imported(bank, theta, tmp_path / "single.npy") == imported(bank, theta, tmp_path / "columns.npy") == 0
    assert len(bank.rows()) == 130


def test_other_theta_are_more_rows_with_other_cubes_alone(tmp_path: Path) -> None:
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    np.save(tmp_path / "other.npy", np.load(theta)[::-1])
    with pytest.raises(InputError, match="has these cubes already, with other theta or seeds"):
        imported(bank, tmp_path / "other.npy", cubes)
    assert len(bank.rows()) == 130
    np.save(tmp_path / "more.npy", values[::-1] + 1)
    imported(bank, tmp_path / "other.npy", tmp_path / "more.npy")
    assert len(bank.rows()) == 260


def test_rows_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    """One of the two was trained on and the other held out; a grown file brought its first rows a second time."""
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    drawn = np.load(theta)
    for name, order, message in (
        ("grown", [*range(100, 130), *range(20)], r"row 0 is in .*bank already, theta and cubes \(50 such rows\)"),
        ("turned", range(129, -1, -1), r"row 0 is in .*bank already, theta and cubes \(130 such rows\)"),
    ):
        np.save(tmp_path / "theta-more.npy", drawn[list(order)])
        np.save(tmp_path / "more.npy", values[list(order)])
        with pytest.raises(InputError, match=message):
            imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy")
        assert len(bank.plans()) == 1, name
    other = np.random.default_rng(2).normal(size=values.shape)
    other[40] = other[7]
    same = PRIOR.sample(130, np.random.default_rng(3))
    same[[40, 41]] = same[7]  # row 41 has the same theta, and another cube
    np.save(tmp_path / "theta-more.npy", same)
    np.save(tmp_path / "more.npy", other)
    with pytest.raises(InputError, match=r"theta-more.npy: row 40 is row 7 again, theta and cubes \(1 such rows\)"):
        imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy")
    other[40] += 1
    np.save(tmp_path / "more.npy", other)
    assert imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy") == 130
    np.save(tmp_path / "theta-more.npy", np.full((3, 2), same[7]))  # as its rows of the bank, with other cubes
    np.save(tmp_path / "more.npy", other[:3] + 2)
    assert imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy") == 3


def test_views_of_a_run_without_signal_are_the_same_and_imported(tmp_path: Path) -> None:
    """Exported rows of light-cones with views were refused: an ionised box looks the same from all sides."""
    theta, cubes, values = files(tmp_path)
    drawn, seeds = np.load(theta), np.arange(130)
    drawn[4], seeds[4], values[3:5] = drawn[3], 3, 0.0
    for name, array in (("theta", drawn), ("cubes", values), ("seeds", seeds)):
        np.save(tmp_path / f"{name}.npy", array)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    with pytest.raises(InputError, match="row 4 is row 3 again"):
        imported(bank, theta, cubes)  # without seeds they could part
    assert import_rows(bank, PRIOR, theta, [str(cubes)], tmp_path / "seeds.npy") == 130
    values[3:5] = values[0]
    np.save(cubes, values)
    with pytest.raises(InputError, match="row 4 is row 3 again"):
        import_rows(Bank.create(tmp_path / "b", SIMULATOR), PRIOR, theta, [str(cubes)], tmp_path / "seeds.npy")


def test_cubes_that_are_there_with_other_theta_are_refused(tmp_path: Path) -> None:
    """Only an import of as many rows was compared: of a grown file, or a part, the wrong theta were trained on too."""
    theta, cubes, values = files(tmp_path)
    values[3] = 0.0
    np.save(cubes, values)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    rng = np.random.default_rng(7)
    more, drawn = rng.normal(size=(4, *values.shape[1:])), PRIOR.sample(134, rng)
    for name, given, first, count in (
        ("grown", np.concatenate([more, values]), 4, 129),
        ("a part", np.concatenate([more[:2], values[100:105]]), 2, 5),
    ):
        np.save(tmp_path / "theta-more.npy", drawn[: len(given)])
        np.save(tmp_path / "more.npy", given)
        message = rf"theta-more\.npy: row {first} has theta \[.*\], but .*bank has its cube .* \({count} such rows\)"
        with pytest.raises(InputError, match=message):
            imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy")
        assert len(bank.plans()) == 1, name
    # Empty cubes, as of ionized boxes, are the same at many theta.
    more[1] = 0.0
    np.save(tmp_path / "theta-more.npy", drawn[:4])
    np.save(tmp_path / "more.npy", more)
    assert imported(bank, tmp_path / "theta-more.npy", tmp_path / "more.npy") == 4


def test_rows_that_a_run_has_failed_to_simulate_are_imported(tmp_path: Path) -> None:
    """Of a stopped import a run wrote failures, and the same import was refused ever after."""
    theta, cubes, values = files(tmp_path)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    imported(bank, theta, cubes)
    plan = bank.plans()[0]
    for shard, n in ((1, 64), (2, 2)):
        bank.shard_path(plan, shard).unlink()
        zeros = {"field": np.zeros((n, *SIMULATOR.observables[0].shape), np.float32)}
        failed = {"status": ["failed"] * n, "message": ["no simulator"] * n, "seconds": [0.0] * n}
        bank.write_shard(plan, shard, **failed, arrays=zeros)
    imported(bank, theta, cubes)
    again = Bank.open(bank.path)
    assert again.rows().counts() == {"ok": 130}
    assert np.allclose(again.read("field", again.rows()), values)


def test_imports_stand_in_the_order_of_their_coming(tmp_path: Path) -> None:
    theta, cubes, _ = files(tmp_path, 6)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    names = []
    for i in range(4):
        np.save(tmp_path / "next.npy", np.load(cubes) + i)
        np.save(tmp_path / "theta.npy", np.roll(np.load(theta), 1, axis=0))
        imported(bank, theta, tmp_path / "next.npy")
        names += [plan.id for plan in Bank.open(bank.path).plans() if plan.id not in names]
    assert names != sorted(names)
    assert [plan.id for plan in Bank.open(bank.path).plans()] == [plan.id for plan in bank.plans()] == names
    imported(bank, theta, tmp_path / "next.npy")
    assert [plan.id for plan in Bank.open(bank.path).plans()] == names


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", r"is a named pipe, not a file"),
        ("folder", r"is a folder, not a file"),
        ("nothing", r"cannot be read as npy \(.*No such file"),
        ("objects", r"Python objects"),
        ("enormous", r"cannot be read as npy"),
        ("empty items", r"holds \|S0 \(1000000000000,\)"),
        ("text", r"the values are <U3, not numbers"),
        ("complex", r"the values are complex"),
        ("one number", r"shape \(\), expected \(n, 2\)"),
        ("no rows", r"shape \(0, 2\), expected \(n, 2\)"),
        ("archive", r"is an archive of several arrays"),
        ("pickle", r"cannot be read as npy: write it with numpy.save"),
        ("text file", r"cannot be read as npy: write it with numpy.save"),
    ],
)
def test_what_is_no_theta_is_named_at_once(tmp_path: Path, kind: str, message: str) -> None:
    _, cubes, _ = files(tmp_path)
    file = tmp_path / "hostile.npy"
    header = "{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind in ("enormous", "empty items"):
        text = header.format({"enormous": "<f8", "empty items": "|S0"}[kind], 10**12).ljust(117) + "\n"
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    elif kind == "archive":
        with file.open("wb") as out:
            np.savez(out, np.zeros(3))
    elif kind == "pickle":
        file.write_bytes(pickle.dumps([1, 2]))
    elif kind == "text file":
        np.savetxt(file, np.ones((4, 2)))
    elif kind != "nothing":
        content = {
            "objects": np.array([{}, None]),
            "text": np.array([["one", "two"]]),
            "complex": np.ones((4, 2)) * 1j,
            "one number": np.array(1.0),
            "no rows": np.empty((0, 2)),
        }
        np.save(file, content[kind], allow_pickle=True)
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    start = time.monotonic()
    with pytest.raises(InputError, match=rf"hostile\.npy.*{message}"):
        imported(bank, file, cubes)
    assert time.monotonic() - start < 1
    assert bank.plans() == []


@pytest.mark.parametrize(
    ("name", "draw", "message"),
    [
        ("log-uniform", lambda u: np.expm1(7 * u[:, 0]) / np.expm1(7), r"log_amplitude is not spread over \[-3, 4\]"),
        ("half of it", lambda u: u[:, 0] / 2, r"Kolmogorov-Smirnov p = \de-"),
        (
            "a diagonal",
            lambda u: (u[:, 1] + 0.1 * u[:, 0]) % 1,
            r"% of the prior's plane of log_amplitude and slope is",
        ),
        ("the prior", lambda u: u[:, 0], None),
        ("a design", lambda u: (np.argsort(np.argsort(u[:, 0])) + 0.5) / len(u), None),
    ],
)
def test_theta_from_another_prior_is_told_now_and_later(
    tmp_path: Path, name: str, draw: Callable[[np.ndarray], np.ndarray], message: str | None
) -> None:
    theta, cubes, _ = files(tmp_path)
    u = PRIOR.unit(np.load(theta))
    np.save(theta, PRIOR.from_unit(np.stack([draw(u), u[:, 1]], -1)))
    bank, said = Bank.create(tmp_path / "bank", SIMULATOR), []
    import_rows(bank, PRIOR, theta, [str(cubes)], warn=said.append)
    assert Bank.open(bank.path).notes(PRIOR.hash()) == said
    assert Bank.open(bank.path).notes("another prior") == []
    if message is None:
        assert said == []
        return
    assert re.search(message, said[0])
    assert "the distribution of the theta that were imported" in said[0]
    assert said[0] in list(BankFacts.from_bank(Bank.open(bank.path)).lines())


@pytest.mark.parametrize("value", [1e13, -1e13])
def test_a_row_far_from_all_others_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    theta, cubes, values = files(tmp_path)
    values[7, 0, 2, 2] = value
    np.save(cubes, values)
    bank, said = Bank.create(tmp_path / "bank", SIMULATOR), []
    import_rows(bank, PRIOR, theta, [str(cubes)], warn=said.append)
    assert [text for text in said if text.startswith("field: row 7: more than 1e+06 deviations")] == said
    assert len(said) == 1
    assert "row 7 of" in str(Cubes(bank, "field", bank.rows()).warning())
    monkeypatch.setattr(data, "MEMORY_SHARE", 0.0)
    assert (on_disk := Cubes(bank, "field", bank.rows())).slow
    assert "row 7 of" in str(on_disk.warning())
    assert Cubes(bank, "field", bank.rows()[8:]).warning() is None


def test_cubes_of_very_different_size_are_not_far(tmp_path: Path) -> None:
    theta, cubes, values = files(tmp_path)
    np.save(cubes, values * np.logspace(0, 5, len(values))[:, None, None, None])
    said: list[str] = []
    import_rows(Bank.create(tmp_path / "bank", SIMULATOR), PRIOR, theta, [str(cubes)], warn=said.append)
    assert said == []


def test_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    theta, _, values = files(tmp_path)
    np.savez(tmp_path / "cubes.npz", values)
    with pytest.raises(InputError, match=r"cubes\.npz: is an npz archive of several arrays; give one array as npy"):
        imported(Bank.create(tmp_path / "bank", SIMULATOR), theta, tmp_path / "cubes.npz")


def kelvin(folder: Path) -> tuple[Bank, Imported, Prior, Path, np.ndarray]:
    """A bank of imported boxes in mK at one redshift, the theta of six, and their cubes in mK."""
    simulator = Imported(
        ranges={"a": {"low": 0.0, "high": 1.0}}, shape=(1, 4, 4, 4), unit="mK", cell_size=2.0, redshifts=(8.0,)
    )
    prior, rng = Prior(simulator.parameters), np.random.default_rng(2)
    np.save(folder / "few.npy", prior.sample(6, rng))
    bank = Bank.create(folder / "bank", simulator)
    return bank, simulator, prior, folder / "few.npy", rng.normal(size=(6, *simulator.shape))


@pytest.mark.parametrize("unit", ["K", "MJy/sr"])
def test_a_declared_unit_is_converted(tmp_path: Path, unit: str) -> None:
    bank, _, prior, theta, values = kelvin(tmp_path)
    frequency = 1420.40575 / 9 * units.MHz
    law = units.brightness_temperature(frequency)
    np.save(tmp_path / "cubes.npy", (values * units.mK).to_value(units.Unit(unit), law))
    import_rows(bank, prior, theta, [str(tmp_path / "cubes.npy")], unit=unit)
    assert np.allclose(bank.read("image", bank.rows()), values, rtol=1e-5)


def test_a_unit_of_another_kind_is_refused(tmp_path: Path) -> None:
    bank, _, prior, theta, values = kelvin(tmp_path)
    np.save(tmp_path / "cubes.npy", values)
    with pytest.raises(InputError, match=r"cubes\.npy: unit is 'Mpc', expected 'mK'"):
        import_rows(bank, prior, theta, [str(tmp_path / "cubes.npy")], unit="Mpc")
    assert bank.plans() == []


def test_a_folder_has_a_file_for_each_row(tmp_path: Path) -> None:
    bank, simulator, prior, theta, values = kelvin(tmp_path)
    folder, (observable,) = tmp_path / "cubes", simulator.observables
    folder.mkdir()
    for i, cube in enumerate(values):
        made = Observation.from_observable(observable, cube.astype(np.float32))
        if i % 2:
            made.write_fits(folder / f"{i}.fits")
        else:
            replace(made, values=made.values / 1e3, unit="K").write(folder / f"{i}.h5")
    with pytest.raises(InputError, match="--unit is for npy files"):
        import_rows(bank, prior, theta, [str(folder)], unit="K")
    import_rows(bank, prior, theta, [str(folder)])
    assert np.allclose(bank.read("image", bank.rows()), values, rtol=1e-5)
    (folder / "5.fits").unlink()
    with pytest.raises(InputError, match="has 5 files, expected 6: one for each row of theta"):
        import_rows(bank, prior, theta, [str(folder)])


def test_an_exported_bank_is_imported(tmp_path: Path) -> None:
    bank, simulator, prior, theta, values = kelvin(tmp_path)
    np.save(tmp_path / "cubes.npy", values)
    import_rows(bank, prior, theta, [str(tmp_path / "cubes.npy")])
    file = tmp_path / "all.h5"
    export_rows(bank, file)
    other = Bank.create(tmp_path / "other", simulator)
    import_rows(other, prior, file, [str(file)], file)
    assert np.array_equal(other.read("image", other.rows()), bank.read("image", bank.rows()))
    assert np.array_equal(other.rows().seed, bank.rows().seed)
    # What the file says of itself counts.
    for dataset, attribute, wrong, said in (
        ("image", "cell_size", [1.0, 7.0], "cell_size of image is"),
        ("image", "channels", [12.5], "channels of image is"),
        ("image", "axes", ["row", "redshift", "z", "x"], "axes of image are"),
        ("theta", "names", ["other"] * len(prior.names), "theta is of other"),
    ):
        changed = tmp_path / f"{attribute}.h5"
        shutil.copyfile(file, changed)
        with h5py.File(changed, "r+") as content:
            content[dataset].attrs[attribute] = wrong
        with pytest.raises(InputError, match=said):
            import_rows(Bank.create(tmp_path / attribute, simulator), prior, changed, [str(changed)])
    with pytest.raises(InputError, match=r'all\.h5: has no dataset "field"'):
        import_rows(Bank.create(tmp_path / "third", SIMULATOR), PRIOR, files(tmp_path, 6)[0], [str(file)])
    with h5py.File(file, "r+") as content:
        content["status"][2] = b"failed"
    for theta_file in (theta, file):
        with pytest.raises(InputError, match="1 of 6 rows are of failed simulations, whose cubes are zero"):
            import_rows(Bank.create(tmp_path / "failed", simulator), prior, theta_file, [str(file)])


TWO_WORLDS: dict[str, Any] = {
    "kind": "gaussian-field",
    "cells": 4,
    "worlds": [{}, {"name": "other", "kind": "lognormal-field"}],
}


def worlds_bank(path: Path, **worlds: list[dict[str, Any]]) -> Bank:
    return Bank.create(path, build(TWO_WORLDS | worlds))


def exported_worlds(folder: Path) -> tuple[Path, list[int]]:
    """The export of a bank with twelve rows of two worlds, and the world of each row."""
    bank, world = worlds_bank(folder / "several"), [0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1]
    rng = np.random.default_rng(5)
    plan = Plan("01-w", 1, "prior", 12, PRIOR.sample(12, rng), np.arange(12, dtype=np.uint64), np.array(world))
    arrays = {"field": rng.normal(size=(12, *SIMULATOR.observables[0].shape)).astype(np.float32)}
    bank.write_shard(bank.add(plan), 0, status=["ok"] * 12, message=[""] * 12, seconds=[0.0] * 12, arrays=arrays)
    export_rows(bank, folder / "worlds.h5")
    return folder / "worlds.h5", world


def test_rows_keep_the_world_that_an_export_says(tmp_path: Path) -> None:
    """All of them came to be rows of the first world."""
    file, world = exported_worlds(tmp_path)
    bank, said = worlds_bank(tmp_path / "same"), list[str]()
    assert import_rows(bank, PRIOR, file, [str(file)], file, warn=said.append) == 12
    assert bank.rows().world.tolist() == world
    assert not said
    assert import_rows(bank, PRIOR, file, [str(file)], file) == 0
    # Worlds are told by their names, not by their places.
    turned = worlds_bank(
        tmp_path / "turned", worlds=[{"name": "other", "kind": "lognormal-field"}, {"name": "world-1"}]
    )
    import_rows(turned, PRIOR, file, [str(file)], file)
    assert turned.rows().world.tolist() == [1 - number for number in world]


def test_worlds_that_a_bank_cannot_keep_are_refused_or_said(tmp_path: Path) -> None:
    file, _ = exported_worlds(tmp_path)
    for name, second, message in (
        ("renamed", {"name": "third"}, r"has rows of world other, but \[simulator\] worlds are world-1, third;"),
        ("tests", {"name": "other", "train": False}, "has rows of world other, which .* has with train = false"),
    ):
        bank = worlds_bank(tmp_path / name, worlds=[{}, {"kind": "lognormal-field"} | second])
        with pytest.raises(InputError, match=message):
            import_rows(bank, PRIOR, file, [str(file)], file)
        assert bank.plans() == []
    said: list[str] = []
    alone = Bank.create(tmp_path / "alone", SIMULATOR)
    import_rows(alone, PRIOR, file, [str(file)], file, warn=said.append)
    assert [text for text in said if "its rows are of worlds world-1, other; [simulator] has no worlds" in text]
    theta, cubes, _ = files(tmp_path, 12)
    said.clear()
    imported_first = worlds_bank(tmp_path / "unsaid")
    import_rows(imported_first, PRIOR, theta, [str(cubes)], warn=said.append)
    assert "theta.npy: does not say which world made its rows; all count as made by world-1" in said[0]
    with h5py.File(file, "r+") as content:
        content["world"][3] = 2
    with pytest.raises(InputError, match=r'"world" has the number 2, but names for 2 worlds only'):
        import_rows(worlds_bank(tmp_path / "damaged"), PRIOR, file, [str(file)])


def test_rows_that_were_not_drawn_from_the_prior_are_refused(tmp_path: Path) -> None:
    """An export has the truths of a contest too, which would have been trained on."""
    bank, simulator, prior, theta, values = kelvin(tmp_path)
    np.save(tmp_path / "cubes.npy", values)
    import_rows(bank, prior, theta, [str(tmp_path / "cubes.npy")])
    other = np.load(theta)[:4] * 0.9 + 0.05
    plan = bank.add(Plan("00-truths", 0, "truths", 4, other, np.arange(90, 94, dtype=np.uint64)))
    status = {"status": ["ok"] * 4, "message": [""] * 4}
    bank.write_shard(plan, 0, **status, seconds=[0.0] * 4, arrays={"image": bank.read("image", bank.rows())[:4]})
    export_rows(bank, tmp_path / "all.h5")
    export_rows(bank, tmp_path / "prior.h5", prior=True)
    new = Bank.create(tmp_path / "new", simulator)
    with pytest.raises(InputError, match=r"4 of 10 rows are of rounds 00: .* export the bank with --prior"):
        import_rows(new, prior, tmp_path / "all.h5", [str(tmp_path / "all.h5")])
    assert import_rows(new, prior, tmp_path / "prior.h5", [str(tmp_path / "prior.h5")]) == 6
    assert import_rows(new, prior, tmp_path / "prior.h5", [str(tmp_path / "prior.h5")]) == 0
    assert len(new.rows()) == 6


def test_theta_is_put_in_the_order_of_its_names(tmp_path: Path) -> None:
    theta, cubes, _ = files(tmp_path, 20)
    with h5py.File(tmp_path / "theta.h5", "w") as file:
        file["theta"] = np.load(theta)[:, ::-1]
        file["theta"].attrs["names"] = PRIOR.names[::-1]
    bank, said = Bank.create(tmp_path / "bank", SIMULATOR), list[str]()
    import_rows(bank, PRIOR, tmp_path / "theta.h5", [str(cubes)], warn=said.append)
    np.testing.assert_array_equal(bank.rows().theta, np.load(theta))
    assert f"theta is put in the order {', '.join(PRIOR.names)}" in said[0]


def test_files_with_numbers_are_taken_in_the_order_of_these(tmp_path: Path) -> None:
    theta, _, values = files(tmp_path, 12)
    folder = tmp_path / "cubes"
    folder.mkdir()
    for i, cube in enumerate(values):
        np.save(folder / f"cube_{i}.npy", cube.astype(np.float32))
    bank, said = Bank.create(tmp_path / "bank", SIMULATOR), list[str]()
    import_rows(bank, PRIOR, theta, [str(folder)], warn=said.append)
    np.testing.assert_allclose(bank.read("field", bank.rows()), values, rtol=1e-6)
    assert said[0].endswith("rows are its files by their numbers: cube_0.npy, cube_1.npy to cube_11.npy")


def test_views_of_a_run_count_once_among_draws_from_the_prior() -> None:
    """Three views of each of 152 runs with nine parameters were said not to be drawn from the prior."""
    drawn, runs = PRIOR.sample(150, np.random.default_rng(1)), np.arange(150, dtype=np.uint64)
    assert unlike_prior(drawn, runs, PRIOR) is None
    views = np.repeat(drawn, 8, axis=0)
    assert unlike_prior(views, np.repeat(runs, 8), PRIOR) is None
    assert "plane" in (unlike_prior(views, np.arange(1200, dtype=np.uint64), PRIOR) or "")
