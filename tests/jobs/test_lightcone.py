"""A light-cone from 21cmFAST through every step of a run, on a box small enough for a test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer import Bank, Observation, Posterior, Run
from eorinfer.run.config import check_config
from simulators import LightCone
from tests.runs import quick_emulator

CONFIG: dict[str, Any] = {
    "seed": 3,
    "simulator": {
        "kind": "21cmfast-lightcone",
        "frequency_range": [160.0, 166.0],
        "channels": 12,
        "transverse": "angular",
        "cells": 8,
        "box_length": 64.0,
        "node_redshifts": [8.1, 7.5],
        "rsd": False,
        "rows_per_realisation": 1,
        "parameters": ["F_ESC10", "M_TURN"],
        "observables": ["brightness_temp", "global_signal", "luminosity_function"],
    },
    "survey": {"kind": "ska-low", "integration": 120.0, "wedge": True, "wedge_angle": 10.0, "wedge_buffer": 0.05},
    "observation": {"theta": {"F_ESC10": -1.0, "M_TURN": 8.7}},
    "inference": {"rounds": [10], "predictive": 1, "samples": 300},
    "embedding": {"width": 4},
    "training": {"steps": 10, "ensemble": 1, "batch_size": 8},
    "power_spectrum": {"bins": 3},
    "mcmc": {"walkers": 8, "steps": 40, "max_steps": 40, "draws": 2},
    "executor": {"workers": 1},
}


def test_a_lightcone_goes_through_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_emulator(monkeypatch)
    config = check_config(tmp_path / "run.toml", CONFIG)
    observable = config.observable
    assert observable.cells == (8, 8, 12)
    run = Run(config, tmp_path / "run")
    run.infer()
    run.mcmc()
    run.plot()

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["posteriors"].keys() == {"npe", "mcmc"}
    for name in ("corner.png", "predictive.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0

    bank = Bank.open(tmp_path / "run" / "bank")
    assert bank.observables == config.simulator.observables
    rows = bank.rows().ok
    assert len(rows) == 10 + 1
    simulator = LightCone(**CONFIG["simulator"])
    again = simulator.simulate(rows.theta[7], int(rows.seed[7]))
    for stored in bank.observables:
        np.testing.assert_array_equal(bank.read(stored.name, rows[[7]])[0], again[stored.name], stored.name)

    posterior = Posterior.load(tmp_path / "run" / "posterior")
    assert posterior.observable == observable
    observation = Observation.read(tmp_path / "run" / "observation.h5", observable)
    assert observation.coordinates == observable.coordinates
    # What the posterior was trained on has nothing in the wedge and no mean in any channel.
    assert np.abs(observation.values.mean(axis=(0, 1, 2))).max() < 1e-3
    x, y = (
        2 * np.pi * np.fft.fftfreq(8, observable.cell_size[0]),
        2 * np.pi * np.fft.fftfreq(12, observable.cell_size[2]),
    )
    modes = np.abs(np.fft.fftn(observation.values[0]))
    slope = 0.5  # below the true one, sin(10 degrees) times 3.1
    inside = np.abs(y) < slope * np.hypot(x[:, None], x)[..., None]
    assert modes[inside].max() < 1e-4 * modes.max()
