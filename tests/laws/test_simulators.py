"""Laws of every simulator: what it declares is what it gives, by theta and seed alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from simulators import Simulator, build, fingerprint
from tests.laws.laws import random_state_untouched

TABLES: dict[str, dict[str, Any]] = {
    "gaussian-2d": {"kind": "gaussian-field", "cells": 8},
    "gaussian-3d": {"kind": "gaussian-field", "cells": 6, "dimension": 3, "box_length": 12.0},
    "lognormal": {"kind": "lognormal-field", "cells": 8},
    "lim-slab": {"kind": "lim-mock", "pixels": 16, "pixel": 0.8, "mass_min": 12.0, "box_length": 210.0, "cell": 10.0},
    "coeval": {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 12, "box_length": 72.0},
}
JOBS = {"coeval"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.job] * (n in JOBS)) for n in TABLES])
def simulator(request: pytest.FixtureRequest) -> Simulator:
    return build(TABLES[request.param])


def theta(simulator: Simulator) -> np.ndarray:
    return np.array([p.fiducial for p in simulator.parameters])


def test_arrays_are_those_that_it_declares(simulator: Simulator) -> None:
    made = simulator.simulate(theta(simulator), 5)
    assert set(made) == {o.name for o in simulator.observables}
    for observable in simulator.observables:
        array = made[observable.name]
        assert array.shape == observable.shape
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert len(observable.axes) == len(observable.shape)
        assert len(observable.cell_size) == len(observable.cells) == len(observable.symmetry.periodic)
        assert observable.nbytes == array.nbytes


def test_theta_and_seed_decide(simulator: Simulator) -> None:
    at = theta(simulator)
    with random_state_untouched():
        first, again, other = (simulator.simulate(at, seed) for seed in (5, 5, 6))
    assert np.array_equal(at, theta(simulator)), "theta is not written to"
    image = simulator.observables[0].name
    assert np.array_equal(first[image], again[image])
    assert not np.array_equal(first[image], other[image])
    p = simulator.parameters[0]
    moved = at.copy()
    moved[0] = p.low + 0.25 * (p.high - p.low)
    assert not np.array_equal(simulator.simulate(moved, 5)[image], first[image])


def test_parameters_are_in_their_ranges(simulator: Simulator) -> None:
    assert len({p.name for p in simulator.parameters}) == len(simulator.parameters)
    for p in simulator.parameters:
        assert p.low < p.high
        assert p.low <= p.fiducial <= p.high


def test_settings_go_through_json_and_the_fingerprint_stays(simulator: Simulator, tmp_path: Path) -> None:
    table = json.loads(json.dumps(simulator.settings()))
    again = build(table)
    assert again == simulator
    assert fingerprint(again) == fingerprint(simulator)
    bank = Bank.create(tmp_path / "bank", simulator)
    assert Bank.open(tmp_path / "bank").observables == bank.observables == simulator.observables
