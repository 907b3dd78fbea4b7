"""Commands around a run: first configs that are right, and checks that write nothing."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.cli.app import main
from eorinfer.cli.start import TEMPLATES
from tests.runs import config


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("init", "own", "--out=~/mine.toml") == 0
    assert command("init", "lim", "--out", "~/lim~.toml") == 0
    assert {"mine.toml", "lim~.toml"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write is needed")
def test_a_first_config_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("init", "lim", "--out", "/proc/mine.toml") == 2
    assert capsys.readouterr().err.startswith("eorinfer: /proc: the folder cannot be written (")


@pytest.mark.job  # checking that 21cmFAST is there imports it
@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_first_config_is_right(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("init", kind) == 0
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == sorted([f"{kind}.toml", *TEMPLATES[kind]])
    text = (tmp_path / f"{kind}.toml").read_text()
    assert f"eorinfer check {kind}.toml" in text
    assert "FILE" not in text
    assert command("check", f"{kind}.toml") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{kind}.toml: nothing is wrong")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == there
    (tmp_path / f"{kind}.toml").write_text("mine")
    assert command("init", kind) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / f"{kind}.toml").read_text() == "mine"


def test_a_check_reads_the_observed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, observation={"theta": None, "file": "sky.npy"})
    assert command("check", str(path)) == 2
    assert "sky.npy: no such file" in capsys.readouterr().err
    np.save(tmp_path / "sky.npy", np.full((1, 8, 8), np.nan, np.float32))
    assert command("check", str(path)) == 2
    assert "64 of 64 values are NaN or infinite" in capsys.readouterr().err
    np.save(tmp_path / "sky.npy", np.ones((1, 8, 8), np.float32))
    assert command("check", str(path)) == 0
    assert f"observation: {tmp_path}/sky.npy, 1 x 8 x 8 in no unit" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml", "sky.npy"], "nothing is written"


def test_a_check_of_a_separation_says_how_it_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "separation.toml"
    assert command("check", str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "separation: flow-matching, 4000 steps"
    assert lines[-1] == f"{path}: nothing is wrong; next: eorinfer separate train {path} --out DIR"


def test_a_check_reads_clean_cubes_masks_and_priors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = {"log_amplitude": {"normal": [0.5, 0.4]}, "slope": [-3.0, 0.0]}
    path = config(tmp_path, observation={"theta": None, "clean": "sky.npy", "mask": "mask.npy"}, prior=prior)
    np.save(tmp_path / "mask.npy", np.ones((8, 8)))
    assert command("check", str(path)) == 2
    assert "masks every cell" in capsys.readouterr().err
    np.save(tmp_path / "mask.npy", np.eye(8))
    assert command("check", str(path)) == 2
    assert "sky.npy: no such file" in capsys.readouterr().err
    np.save(tmp_path / "sky.npy", np.ones((9, 8), np.float32))
    assert command("check", str(path)) == 2
    assert "sky.npy" in capsys.readouterr().err
    np.save(tmp_path / "sky.npy", np.ones((8, 8), np.float32))
    assert command("check", str(path)) == 0
    text = capsys.readouterr().out
    assert "prior: log_amplitude normal, 0.5 ± 0.4 from -1.9 to 2.9" in text
    assert "prior: slope flat from -3 to 0" in text
    assert f"observation: {tmp_path}/sky.npy, a clean cube of 1 x 8 x 8 in no unit" in text
    assert 'observation: [survey] kind = "white-noise" observes it with the noise of seed = 1' in text
    assert "mask: leaves out 8 of 64 cells" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.npy", "run.toml", "sky.npy"], "nothing is written"


def test_the_shell_completes_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("--install-completion", "--shell", "bash") == 0
    (script,) = tmp_path.glob(".local/share/bash-completion/completions/eorinfer")
    text = script.read_text()
    assert all(word in text for word in ("validate", "image-flow", "--close"))


def test_commands_that_are_said_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path / "Größe und Dichte")
    assert command("check", str(path)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"next: eorinfer run '{path}' --out DIR")
    assert command("init", "own", "--out", str(path.with_name("own.toml"))) == 0
    assert capsys.readouterr().out.endswith(f"next: eorinfer check '{path.with_name('own.toml')}'\n")
    assert f"eorinfer run '{path.with_name('own.toml')}'" in path.with_name("own.toml").read_text("utf-8")
