"""Cubes from elsewhere: described, checked, never simulated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from simulators import Imported, SimulationError, Simulator, build
from simulators.registry import earlier_fingerprints

TABLE: dict[str, Any] = {
    "kind": "imported",
    "ranges": {"ZETA": {"low": 10.0, "high": 100.0, "label": r"\zeta"}, "M_TURN": {"low": 8, "high": 10}},
    "shape": [2, 8, 8, 8],
    "unit": "mK",
    "cell_size": 2.0,
    "redshifts": [8.0, 9.0],
}


def test_describes_the_cubes() -> None:
    simulator = build(TABLE)
    assert isinstance(simulator, Simulator)
    assert [(p.name, p.label, p.low, p.high, p.fiducial) for p in simulator.parameters] == [
        ("ZETA", r"\zeta", 10.0, 100.0, 55.0),
        ("M_TURN", "M_TURN", 8.0, 10.0, 9.0),
    ]
    (image,) = simulator.observables
    assert image.axes == ("redshift", "x", "y", "z")
    assert image.channels == (8.0, 9.0)
    assert image.box_length == (16.0, 16.0, 16.0)
    assert image.symmetry.periodic == (False, False, False)
    assert image.symmetry.rotations == "none", "no symmetry is assumed that was not declared"
    assert build(simulator.settings()) == simulator


def test_channels_that_are_no_redshifts() -> None:
    (image,) = Imported(**(TABLE | {"redshifts": [], "shape": (3, 8, 8)})).observables
    assert image.axes == ("channel", "x", "y")
    assert image.channels == (0.0, 1.0, 2.0)


def test_simulates_nothing() -> None:
    with pytest.raises(SimulationError, match="a bank of imported cubes makes no new simulations"):
        build(TABLE).simulate(np.array([50.0, 9.0]), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"redshifts": [8.0]}, r"1 redshifts for 2 channels \(shape\[0\]\)"),
        ({"ranges": {"ZETA": {"low": 2.0, "high": 1.0}}}, "low = 2.0 must be below high = 1.0"),
        ({"ranges": {}}, "at least 1 item"),
        ({"shape": []}, "at least 2 items"),
        ({"shape": [8]}, "cell_size = 2: must be 0 for data vectors"),
        ({"shape": [8, 8]}, "cell_size = 2: must be 0 for data vectors"),
        ({"cell_size": 0.0}, "cell_size = 0: must be above 0 for images"),
        ({"shape": [2, 0, 8, 8]}, "greater than 0"),
        ({"cell_size": float("inf")}, "finite number"),
        ({"ranges": {"ZETA": {"low": 0.0, "high": float("inf")}}}, "finite number"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build(TABLE | change)


def relabelled(**changes: Any) -> dict[str, Any]:
    ranges = {name: p | {"label": "another", "unit": "K"} for name, p in TABLE["ranges"].items()}
    return TABLE | {"ranges": ranges, "unit": "K"} | changes


def test_labels_and_units_cost_no_bank(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path, build(TABLE))
    assert Bank.create(tmp_path, build(relabelled())).fingerprint == bank.fingerprint
    with pytest.raises(InputError, match=r"cell_size: bank 2\.0, config 3\.0"):
        Bank.create(tmp_path, build(relabelled(cell_size=3.0)))


def test_nor_the_bank_of_an_older_version(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path, build(TABLE))
    file = bank.path / "bank.json"
    (earlier,) = earlier_fingerprints(build(TABLE))
    file.write_text(file.read_text().replace(bank.fingerprint, earlier))
    for table in (TABLE, relabelled()):
        assert Bank.create(tmp_path, build(table)).fingerprint == earlier
    with pytest.raises(InputError, match="another simulator"):
        Bank.create(tmp_path, build(relabelled(cell_size=3.0)))


def test_ranges_may_be_pairs() -> None:
    pairs = {name: [table["low"], table["high"]] for name, table in TABLE["ranges"].items()}
    ends = [(p.name, p.low, p.high) for p in Imported(**TABLE | {"ranges": pairs}).parameters]
    assert ends == [("ZETA", 10.0, 100.0), ("M_TURN", 8.0, 10.0)]
    with pytest.raises(ValueError, match=r"low = 2\.0 must be below high = 1\.0"):
        Imported(**TABLE | {"ranges": {"ZETA": [2.0, 1.0]}})
