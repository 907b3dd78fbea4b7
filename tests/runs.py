"""Shared by tests of whole runs: a tiny config, and the command line in this process or in one of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import eorinfer.likelihood.emulator as emulator
from eorinfer.cli.app import main
from simulators import GaussianField

CONFIG: dict[str, Any] = {
    "seed": 1,
    "simulator": {"kind": "gaussian-field", "cells": 8, "box_length": 8.0},
    "prior": {"log_amplitude": [-2.0, 3.0], "slope": [-3.0, 0.0]},
    "survey": {"kind": "white-noise", "sigma": 0.3},
    "observation": {"theta": {"log_amplitude": 0.5, "slope": -1.5}},
    "inference": {"rounds": [48, 24], "samples": 300, "predictive": 5},
    "embedding": {"width": 4},
    "flow": {"transforms": 1, "hidden": [8]},
    "training": {"steps": 12, "batch_size": 16, "ensemble": 1},
    "power_spectrum": {"bins": 3},
    "mcmc": {"walkers": 8, "steps": 40, "max_steps": 80, "draws": 2},
    "executor": {"workers": 1},
}

#: Seconds after which a process that should have ended counts as hanging, however busy the machine is.
PATIENCE = 180

#: The command line as it is installed, with an emulator that is fitted in a moment.
SCRIPT = """
from eorinfer.cli.app import keep_matplotlib_out_of_home, main
keep_matplotlib_out_of_home()  # as main does, before torch and what it brings
import eorinfer.likelihood.emulator as emulator
for name in ("MEAN_FIT", "COVARIANCE_FIT"):
    setattr(emulator, name, getattr(emulator, name).model_copy(update={"steps": 10}))
main()
"""


def config(folder: Path, name: str = "run.toml", **tables: Any) -> Path:
    """Write `CONFIG` with some tables replaced, or merged where both are tables; None leaves one out."""
    content = dict(CONFIG)
    for table, value in tables.items():
        old = content.get(table)
        content[table] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(tomli_w.dumps({k: _without_none(v) for k, v in content.items() if v is not None}))
    return path


def imported_config(folder: Path, rows: int, sky: float = 1.0, **tables: Any) -> Path:
    """Write a config on imported cubes, as `config` does, and cubes, two of each realisation; the sky is scaled."""
    simulator = GaussianField(cells=8, box_length=8.0)
    theta = np.random.default_rng(1).uniform([-2.0, -3.0], [3.0, 0.0], (rows, 2))
    np.save(folder / "theta.npy", theta)
    np.save(folder / "cubes.npy", np.stack([simulator.simulate(t, i // 2)["field"] for i, t in enumerate(theta)]))
    np.save(folder / "seeds.npy", np.arange(rows) // 2)
    np.save(folder / "sky.npy", sky * simulator.simulate(np.array([0.5, -1.5]), 999)["field"])
    ranges = {"lnA": {"low": -2.0, "high": 3.0}, "n": {"low": -3.0, "high": 0.0}}
    kind = {"kind": "imported", "ranges": ranges, "shape": [1, 8, 8], "cell_size": 1.0, "cells": None}
    kind |= {"box_length": None, "periodic": True, "rotations": "all"}
    return config(folder, simulator=kind, prior=None, observation={"theta": None, "file": "sky.npy"}, **tables)


def _without_none(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def quick_emulator(patch: pytest.MonkeyPatch) -> None:
    for name in ("MEAN_FIT", "COVARIANCE_FIT"):
        patch.setattr(emulator, name, getattr(emulator, name).model_copy(update={"steps": 10}))


def call(*arguments: object) -> int:
    """The command line in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def heed_interrupts() -> None:
    """For `preexec_fn`: a background job of a shell ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a condition, or for the end of a process that should bring it about."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, f"nothing has happened for {PATIENCE} s"
        time.sleep(0.005)


def start(folder: Path, *arguments: object, script: str = SCRIPT, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, in an empty working folder and with an empty home."""
    for name in ("home", "cwd"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MPL", "XDG", "PYTEST"))}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder / "cwd",
        preexec_fn=heed_interrupts,
        env=kept | {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"} | environment,
    )
