"""The command line: every wrong input is a line that one can act on, exit code 2, and nothing is lost."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import eorinfer
from simulators import GaussianField
from tests.runs import PATIENCE, call, config, imported_config, start, wait_until

OBSERVABLE = GaussianField(cells=8, box_length=8.0).observables[0]

#: 21cmFAST is not there: a module of its name that cannot be imported stands before it on the path.
BLOCKER = "raise ModuleNotFoundError(\"No module named 'py21cmfast'\", name='py21cmfast')\n"
COEVAL = {
    "kind": "21cmfast-coeval",
    "redshifts": [8.0],
    "cells": 8,
    "box_length": 40.0,
    "parameters": ["F_ESC10", "M_TURN"],
}
#: The command line as it is installed.
LIGHT = "from eorinfer.cli.app import main; main()"
#: Hangs when a row is in the bank, and says so.
SLOW = """
import time
from pathlib import Path
from simulators import GaussianField

class Slow(GaussianField):
    @property
    def seconds_per_row(self):
        return 60.0  # a shard of each row

    def simulate(self, theta, seed):
        if list(Path(__file__).parent.glob("run/bank/shards/*.h5")):
            Path(__file__).with_name("simulating").touch()
            time.sleep(600)
        return super().simulate(theta, seed)
"""


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call, expect exit code 2 and one or two lines on standard error; return them."""

    def refused(*arguments: object) -> str:
        assert call(*arguments) == 2
        out, errors = capsys.readouterr()
        assert out == "", "nothing is begun"
        assert errors.startswith("eorinfer: ")
        assert 1 <= len(errors.splitlines()) <= 2, errors
        assert "Traceback" not in errors
        return errors.removeprefix("eorinfer: ").rstrip("\n")

    return refused


Refused = Callable[..., str]
NO_PRIOR = {"log_amplitude": None, "slope": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inference": None},
            "[inference]: is missing; for example rounds = [600, 300], the simulations of each round",
        ),
        ({"inference": {"round": [3]}}, '[inference] round: unknown key, did you mean "rounds"?'),
        ({"simulator": {"cels": 8}}, '[simulator] cels: unknown key, did you mean "cells"?'),
        ({"simulator": {"cells": 2}}, "[simulator] cells: must be at least 4 (given: 2)"),
        ({"survey": {"sigma": float("nan")}}, "[survey] sigma: must be a finite number (given: nan)"),
        ({"prior": {"slope": [0.0, -3.0]}}, "[prior] slope = [0.0, -3.0]: must be [low, high], finite, low below high"),
        (
            {"inference": {"rounds": [6, 3]}},
            "[inference] rounds: 9 simulations are too few for the power-spectrum emulator",
        ),
        ({"prior": {"slop": [-3.0, 0.0]}}, '[prior] slop: unknown parameter, did you mean "slope"?'),
        (
            {"observation": {"theta": {"log_amplitude": 9.0, "slope": -1.5}}},
            "[observation] theta.log_amplitude = 9.0: must lie in the prior [-2, 3]",
        ),
        (
            {"observation": {"theta": {"log_amplitude": float("nan"), "slope": -1.5}}},
            "[observation] theta.log_amplitude: must be a finite number (given: nan)",
        ),
        ({"power_spectrum": {"k_max": 0.1}}, "[power_spectrum] k_max = 0.1: must be above 0.785 1/Mpc, the first mode"),
        ({"mcmc": {"walkers": 7}}, "[mcmc] walkers: must be a multiple of 2 (given: 7)"),
    ],
)
def test_a_config_that_is_wrong(tmp_path: Path, refused: Refused, change: dict[str, object], message: str) -> None:
    path = config(tmp_path, **change)
    assert refused("run", path, "--out", tmp_path / "run").startswith(f"{path}: {message}")
    assert not (tmp_path / "run").exists(), "no folder is made"


def test_t_star_of_zero_and_a_config_that_is_not_there(tmp_path: Path, refused: Refused) -> None:
    path = config(
        tmp_path,
        simulator=COEVAL | {"parameters": ["t_STAR"]},
        prior=NO_PRIOR | {"t_STAR": [0.0, 1.0]},
        observation={"theta": {"t_STAR": 0.5}},
    )
    assert "[prior] t_STAR = 0 is outside 0.001 to 1" in refused("run", path, "--out", tmp_path / "run")
    gone = tmp_path / "gone.toml"
    assert refused("run", gone, "--out", tmp_path / "run") == f"{gone}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("step", ["run", "observe", "infer"])
def test_observations_that_do_not_fit(tmp_path: Path, refused: Refused, step: str) -> None:
    ours = np.ones(OBSERVABLE.shape, np.float32)
    holes = ours.copy()
    holes[0, 1, 1] = np.nan
    np.save(tmp_path / "shape.npy", ours[:, :4])
    np.save(tmp_path / "nan.npy", holes)
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["observed"] = ours
    (tmp_path / "text.txt").write_text("1 2 3")
    for name, message in (
        ("shape.npy", "the cube has shape (1, 4, 8), expected (1, 8, 8) (channel, x, y)"),
        ("nan.npy", "1 of 64 values are NaN or infinite, the first is ["),
        ("pickle.npy", "cannot be read as .npy"),
        ("bare.h5", 'the dataset "observed" lacks the attribute unit; it needs unit, axes, cell_size, channels'),
        ("gone.h5", "no such file"),
        ("text.txt", "observations are .h5, .hdf5, .fits, .npy files"),
    ):
        path = config(tmp_path, observation={"theta": None, "file": name})
        assert refused(step, path, "--out", tmp_path / "run").startswith(f"{tmp_path / name}: {message}")
    assert not (tmp_path / "run/observation.h5").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    path = config(tmp_path)
    out = tmp_path / "file" / "run"
    for place in (out, tmp_path / "file"):
        message = f"{place}: the folder cannot be written ({tmp_path / 'file'} is a file); give another --out"
        assert refused("run", path, "--out", place) == message
    path = config(tmp_path, bank={"path": "file/bank"})
    assert "file/bank: the folder cannot be written" in refused("run", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run/config.toml").exists()
    again = config(tmp_path, bank={"path": "bank"})
    assert call("simulate", again, "--out", tmp_path / "run") == 0, "a refused bank does not bind the folder"


def test_a_bank_of_another_simulator(tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    first = config(tmp_path, bank={"path": "bank"})
    assert call("simulate", first, "--out", tmp_path / "a") == 0
    capsys.readouterr()
    other = config(tmp_path, "other.toml", bank={"path": "bank"}, simulator={"cells": 16})
    message = refused("run", other, "--out", tmp_path / "b")
    assert message.startswith(f"{tmp_path / 'bank'}: holds the bank of another simulator (fingerprint ")
    assert "cells: bank 8, config 16" in message
    assert message.endswith("give another --out or [bank] path")


def test_imported_cubes_cannot_be_simulated(tmp_path: Path, refused: Refused) -> None:
    imported = {"kind": "imported", "ranges": {"lnA": {"low": 0.0, "high": 1.0}}, "shape": [1, 8, 8], "cell_size": 1.0}
    path = config(tmp_path, simulator=imported | {"cells": None, "box_length": None}, prior=None)
    assert "rounds = [48, 24]: imported cubes cannot be simulated anew; give one round, rounds = [48]" in refused(
        "run", path, "--out", tmp_path / "run"
    )


def test_an_import_that_was_stopped_is_not_run_on(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run took what was planned for what was there, wrote failures for the rest, and spoiled the bank."""
    path = imported_config(tmp_path, 160, inference={"rounds": [40], "predictive": 0})
    out = tmp_path / "run"
    files = [f"--{name}={tmp_path / name}.npy" for name in ("theta", "cubes", "seeds")]
    assert call("bank", "import", path, "--out", out, *files) == 0
    last = max((out / "bank/shards").iterdir())
    last.unlink()
    capsys.readouterr()
    message = refused("simulate", path, "--out", out)
    assert "run/bank: 32 of 160 imported cubes are not there, as after an import that was stopped" in message
    message = refused("bank", "retry", out / "bank", "--all")
    assert "run/bank: has imported cubes, which cannot be simulated again" in message
    assert not last.exists()
    assert call("bank", "import", path, "--out", out, *files) == 0
    assert call("simulate", path, "--out", out) == 0


def test_imports_that_do_not_fit(tmp_path: Path, refused: Refused) -> None:
    path = config(tmp_path)
    rng = np.random.default_rng(1)
    theta = rng.uniform([-2.0, -3.0], [3.0, 0.0], (4, 2))
    cubes = np.ones((4, *OBSERVABLE.shape), np.float32)
    holes = cubes.copy()
    holes[2, 0, 0, 0] = np.inf
    outside = theta.copy()
    outside[1, 1] = 0.5
    for name, array in {
        "theta": theta,
        "outside": outside,
        "wide": np.ones((4, 3)),
        "cubes": cubes,
        "few": cubes[:3],
        "holes": holes,
        "reals": np.ones(4),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)

    def put(theta: str, cubes: str, *more: object) -> str:
        files = ("--theta", tmp_path / f"{theta}.npy", "--cubes", cubes.replace("DIR", str(tmp_path)))
        return refused("bank", "import", path, "--out", tmp_path / "run", *files, *more)

    assert put("wide", "DIR/cubes.npy").endswith("wide.npy: shape (4, 3), expected (n, 2): log_amplitude, slope")
    assert "outside.npy: 1 of 4 rows are outside the prior or not finite, the first is row 1" in put(
        "outside", "DIR/cubes.npy"
    )
    assert "few.npy: shape (3, 1, 8, 8), expected (4, 1, 8, 8): rows, channels, cells" in put("theta", "DIR/few.npy")
    assert "holes.npy, row 2: 1 of 64 values are NaN or infinite, the first is" in put("theta", "DIR/holes.npy")
    assert "gone.npy: cannot be read as npy" in put("theta", "DIR/gone.npy")
    assert "no cubes given for field" in put("theta", "image=DIR/cubes.npy")
    seeds = ("--seeds", tmp_path / "reals.npy")
    assert "reals.npy: must hold 4 whole numbers, one for each row of theta" in put("theta", "DIR/cubes.npy", *seeds)
    assert not list((tmp_path / "run/bank/rounds").iterdir()), "nothing half is left in the bank"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], '"fly"'),
        (["run"], "CONFIG is missing. `eorinfer run --help` shows what there is"),
        (["run", "a.toml"], "--out is missing. `eorinfer run --help`"),
        (["run", "a.toml", "--out"], "--out needs a value. "),
        (["run", "a.toml", "--ouy", "x"], "--out is missing. Did you mean --out instead of --ouy?"),
        (["check", "a.toml", "b.toml"], "What is 'b.toml' for? `eorinfer check --help`"),
        (["run", "a.toml", "--out", "x", "--speed", "9"], "--speed"),
        (["infer", "--out", "x"], "infer needs either CONFIG, or both --posterior DIR and --observation FILE"),
        (["infer", "--out", "x", "--posterior", "p"], "or both --posterior DIR and --observation FILE"),
        (["infer", "--out", "x", "--posterior", "gone", "--observation", "o.h5"], "gone: no posterior here"),
        (["infer", "--out", "x", "--samples", "many"], "--samples"),
        (
            ["infer", "--out=x", "--posterior=p", "--observation=o.h5", "--samples=0"],
            "--samples 0: at least 10 samples are needed",
        ),
        (["observe", "a.toml", "--out", ""], "the argument after --out is empty; is a variable of the shell not set?"),
        (["observe", "a.toml", "--out="], "--out is empty; is a variable of the shell not set?"),
        (["lim", "a.toml", "--out", "x", "--n", "0"], "--n 0: at least one mock is needed"),
        (
            ["bank", "import", "a.toml", "--out=x", "--theta=t.npy", "--cubes=c.npy", "--unit="],
            "a.toml: cannot be read (No such file",
        ),
        (["bank", "info", "gone"], "gone: no bank here (bank.json is missing)"),
    ],
)
def test_a_command_that_is_wrong(
    refused: Refused, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_plotting_before_there_is_a_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config(tmp_path), tmp_path / "run"
    for command, what in (("plot", "chain to plot"), ("validate", "posterior to validate")):
        assert call(command, path, "--out", out) == 2
        assert f"{out}: no run here, and no {what}; run `eorinfer infer` first" in capsys.readouterr().err
        assert not out.exists()
    assert call("simulate", path, "--out", out) == 0
    before = sorted(out.rglob("*"))
    assert call("plot", path, "--out", out) == 2
    assert "no chain to plot; run `eorinfer infer` or `eorinfer mcmc` first" in capsys.readouterr().err
    assert sorted(out.rglob("*")) == before


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--debug", "run"), ("run", "--debug")):
        assert call(*arguments, tmp_path / "gone.toml", "--out", tmp_path / "run") == 2
        errors = capsys.readouterr().err
        assert errors.startswith("Traceback (most recent call last):")
        assert errors.splitlines()[-1].startswith("eorinfer: ")


def test_what_nobody_foresaw_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: Exception) -> str:
        def failing(*_: object) -> None:
            raise error

        monkeypatch.setattr("eorinfer.run.Run.simulate", failing)
        assert call("simulate", config(tmp_path), "--out", tmp_path / "run") == 1
        return capsys.readouterr().err

    assert fails(RuntimeError("odd")) == "eorinfer: RuntimeError: odd (--debug shows where)\n"
    full = fails(OSError(28, "No space left on device", "a.h5"))
    assert full.startswith("eorinfer: a.h5: cannot be written (No space left on device)")
    assert len(full.splitlines()) == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for command in ("run", "simulate", "observe", "infer", "mcmc", "plot", "report", "bank"):
        assert command in text
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == eorinfer.__version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("image-flow", "sample", "field"), "stopped; nothing was written; the same command begins anew"),
        (("bank", "export", "bank", "a.h5"), "stopped; nothing was written; the same command begins anew"),
        (("mcmc", "a.toml"), "stopped; what was computed is kept, and the same command continues from there"),
    ],
)
def test_a_stop_says_what_is_kept(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eorinfer.cli.app.app", stopped)
    assert call(*arguments) == 1
    assert capsys.readouterr().err == f"eorinfer: {said}\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_that_the_work_is_kept(tmp_path: Path, signum: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    path = config(tmp_path, simulator={"kind": "slow:Slow"})
    process = start(tmp_path, "simulate", path, "--out", tmp_path / "run", script=LIGHT)
    wait_until((tmp_path / "simulating").exists, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors == "eorinfer: stopped; what was computed is kept, and the same command continues from there\n"


@pytest.mark.parametrize("step", ["simulate", "observe"])
def test_21cmfast_is_not_there(tmp_path: Path, step: str) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/py21cmfast.py").write_text(BLOCKER)
    path = config(
        tmp_path,
        simulator=COEVAL,
        prior=None,
        survey=None,
        observation={"theta": {"F_ESC10": -1.0, "M_TURN": 8.7}},
        inference={"rounds": [8]},
    )
    process = start(tmp_path, step, path, "--out", tmp_path / "run", script=LIGHT, PYTHONPATH=str(tmp_path / "path"))
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith(f"eorinfer: {path}: [simulator] ")
    assert "21cmFAST" in errors
    assert "pip install" in errors
    assert sys.executable not in errors
