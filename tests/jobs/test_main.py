"""The main job on real 21cmFAST, as a user starts it, on boxes small enough for a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import py21cmfast as p21c
import pytest
from getdist import loadMCSamples

from eorinfer import Bank
from simulators import Coeval
from tests.runs import SCRIPT

CONFIG = """
seed = 3
[simulator]
kind = "21cmfast-coeval"
redshifts = [7.0, 9.0]
cells = 16
box_length = 96.0
rows_per_realisation = 2
parameters = ["F_ESC10", "M_TURN"]
[survey]
kind = "ska-low"
[observation]
theta = { F_ESC10 = -1.0, M_TURN = 8.7 }
[inference]
rounds = [16, 8]
predictive = 2
samples = 500
[embedding]
width = 4
[training]
steps = 30
ensemble = 1
[mcmc]
walkers = 8
steps = 100
max_steps = 100
draws = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a folder of its own, started as a command with an empty home."""
    folder = tmp_path_factory.mktemp("main-job")
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    (work / "run.toml").write_text(CONFIG)
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("MPLCONFIGDIR", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "run", "run.toml", "--out", "out"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in work.iterdir()) == ["out", "run.toml"]
    return work / "out"


def test_the_run_folder_is_complete(run: Path) -> None:
    for name in (
        "config.toml",
        "bank/bank.json",
        "observation.h5",
        "posterior/posterior.json",
        "posterior/weights.safetensors",
        "rounds/01/posterior/posterior.json",
        "chains/npe.txt",
        "chains/npe.paramnames",
        "chains/npe.ranges",
        "chains/mcmc.txt",
        "chains/mcmc.h5",
        "corner.png",
        "corner.pdf",
        "predictive.png",
        "summary.json",
    ):
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    assert summary["posteriors"].keys() == {"npe", "mcmc"}
    assert summary["simulations"]["ok"] == 16 + 8 + 2
    assert summary["mcmc"]["converged"] is False, "100 steps of 8 walkers are no converged chain, and it must say so"


@pytest.mark.parametrize("chain", ["npe", "mcmc"])
def test_getdist_reads_the_chains(run: Path, chain: str) -> None:
    loaded = loadMCSamples(str(run / "chains" / chain), no_cache=True)
    assert loaded.getParamNames().list() == ["F_ESC10", "M_TURN"]
    assert loaded.samples[:, 0].min() >= -3
    assert loaded.samples[:, 0].max() <= 0


def test_a_bank_row_is_what_run_coeval_gives(run: Path, tmp_path: Path) -> None:
    bank = Bank.open(run / "bank")
    rows = bank.rows().ok
    row = rows[[5]]
    simulator = Coeval(**bank.description["simulator"])
    stored = bank.read("brightness_temp", row)[0]
    for channel, z in enumerate(simulator.redshifts):
        inputs = p21c.InputParameters.from_template(
            "simple",
            random_seed=simulator.redshift_seeds(int(row.seed[0]))[channel],
            node_redshifts=(),
            HII_DIM=16,
            BOX_LEN=96.0,
            HIRES_TO_LOWRES_FACTOR=2,
            N_THREADS=1,
            R_BUBBLE_MAX=15.0,
        ).evolve_input_structs(
            F_STAR10=-1.3, ALPHA_STAR=0.5, ALPHA_ESC=-0.5, t_STAR=0.5, L_X=40.5, NU_X_THRESH=500.0,
            X_RAY_SPEC_INDEX=1.0, F_ESC10=float(row.theta[0, 0]), M_TURN=float(row.theta[0, 1]),
        )  # fmt: skip
        cache = p21c.OutputCache(tmp_path / str(channel))
        (coeval,) = p21c.run_coeval(inputs=inputs, out_redshifts=[z], write=False, cache=cache, regenerate=True)
        np.testing.assert_array_equal(stored[channel], coeval.brightness_temp)


def test_the_observation_is_in_no_row(run: Path) -> None:
    import h5py

    with h5py.File(run / "observation.h5") as file:
        seed = int(file["observed"].attrs["seed"])
    assert seed not in set(Bank.open(run / "bank").rows().seed.tolist())
