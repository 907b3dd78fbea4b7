"""Imported cubes: the same ones once, other ones for the same theta never in silence."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.importing import import_rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from simulators import GaussianField

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
    assert imported(bank, theta, cubes) == imported(bank, theta, cubes) == 130
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


def test_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    theta, _, values = files(tmp_path)
    np.savez(tmp_path / "cubes.npz", values)
    with pytest.raises(InputError, match=r"cubes\.npz: is an npz archive of several arrays; give one array as npy"):
        imported(Bank.create(tmp_path / "bank", SIMULATOR), theta, tmp_path / "cubes.npz")
