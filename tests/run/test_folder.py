"""A run folder and its config: which it is that may change, and what has moved."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from eorinfer import Run, load_config
from eorinfer.core.errors import InputError
from eorinfer.core.toml import read_toml
from simulators import GaussianField
from tests.runs import call, config

SKY = GaussianField(cells=8, box_length=8.0).simulate(np.array([0.5, -1.5]), 77)["field"]


def begun(project: Path, **tables: object) -> Path:
    """Begin a run in a project's folder, with its bank and the observed file beside it."""
    project.mkdir()
    np.save(project / "sky.npy", SKY)
    path = config(project, observation=None, bank={"path": "mine"}, inference={"rounds": [6]}, **tables)
    path.write_text(path.read_text() + '\n[observation]\nfile = "sky.npy"\n')
    assert call("observe", path, "--out", project / "run") == 0
    assert call("simulate", path, "--out", project / "run") == 0
    return path


def test_a_project_that_was_moved_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was refused for its paths; by the run's own config a new bank was made where the old one had been."""
    begun(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    for own in ("run.toml", "run/config.toml"):
        capsys.readouterr()
        assert call("simulate", tmp_path / "two" / own, "--out", tmp_path / "two/run") == 0
        said = capsys.readouterr()
        assert f"bank: {tmp_path}/two/mine has 6 ok" in said.out
        assert "simulating, round" not in said.out + said.err
    assert not (tmp_path / "one").exists()
    assert read_toml(tmp_path / "two/run/config.toml")["bank"]["path"] == "../mine"
    np.save(tmp_path / "two/sky.npy", SKY + 1)
    assert call("observe", tmp_path / "two/run.toml", "--out", tmp_path / "two/run") == 2
    assert "two/sky.npy: changed on" in capsys.readouterr().err


MOCK = {"kind": "lim-mock", "pixels": 16, "pixel": 0.8, "mass_min": 12.5, "box_length": 200.0, "cell": 8.0}


def test_files_of_a_mock_start_at_the_config_and_move_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They started at the working folder, and what was moved was another simulator."""
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "tables").mkdir(parents=True)
    (one / "tables/ha.txt").write_text("".join(f"{a} {m} {m + 29}\n" for a in (1, 5) for m in (8, 16)))
    simulator = MOCK | {"luminosity_tables": {"ha": "tables/ha.txt"}, "rows_per_realisation": 3}
    tables = {"prior": None, "observation": {"theta": {"A_HA": 0.0, "A_OIII": 0.0}}, "inference": {"rounds": [6]}}
    path = config(one, simulator=None, survey={"kind": "white-noise", "sigma": 1e-3}, **tables)
    path.write_text(path.read_text() + tomli_w.dumps({"simulator": simulator}))
    assert call("simulate", path, "--out", one / "run") == 0, capsys.readouterr().err
    assert read_toml(one / "run/config.toml")["simulator"]["luminosity_tables"] == {"ha": "../tables/ha.txt"}
    trained_on = Run(load_config(path), one / "run").context.simulator_table
    one.rename(two)
    for own in ("run.toml", "run/config.toml"):
        capsys.readouterr()
        assert call("simulate", two / own, "--out", two / "run") == 0
        said = capsys.readouterr()
        assert "simulating, round" not in said.out + said.err
        assert Run(load_config(two / own), two / "run").context.simulator_table == trained_on
    assert not one.exists()
    (two / "tables/ha.txt").unlink()
    assert call("simulate", two / "run.toml", "--out", two / "run") == 2
    assert f"{two}/tables/ha.txt: no table of numbers" in capsys.readouterr().err


def test_a_run_of_an_older_version_that_was_moved_goes_on(tmp_path: Path) -> None:
    """Its config has all paths from the root."""
    path = begun(tmp_path / "one")
    own = tmp_path / "one/run/config.toml"
    own.write_text(own.read_text().replace('"../', f'"{tmp_path}/one/'))
    (tmp_path / "one").rename(tmp_path / "two")
    assert len(Run(load_config(tmp_path / "two" / path.name), tmp_path / "two/run").simulate()) == 1


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    path = begun(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    np.save(tmp_path / "two/sky.npy", SKY + 1)
    with pytest.raises(InputError, match=r"\[bank\] path = .*, but .*one/run holds a run with path = "):
        Run(load_config(tmp_path / "two" / path.name), tmp_path / "one/run")


def test_a_bank_that_is_gone_is_not_made_anew_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = begun(tmp_path / "one")
    (tmp_path / "one/mine").rename(tmp_path / "elsewhere")
    assert call("simulate", path, "--out", tmp_path / "one/run") == 2
    said = capsys.readouterr().err
    assert f"{path}: [bank] path = '{tmp_path}/one/mine' is not there, and {tmp_path}/one/run has its" in said
    assert not (tmp_path / "one/mine").exists()
    kept = path.read_text()
    path.write_text(kept.replace('path = "mine"', 'path = "../elsewhere"'))
    assert call("simulate", path, "--out", tmp_path / "one/run") == 0
    assert f"bank: {tmp_path}/elsewhere has 6 ok" in capsys.readouterr().out
    path.write_text(kept)
    (tmp_path / "one/mine").mkdir()
    assert call("simulate", path, "--out", tmp_path / "one/run") == 2, "there are two now"


def test_a_run_whose_own_bank_is_gone_simulates_again(whole: Path, tmp_path: Path) -> None:
    """The plan of its predictive check, which was gone too, was looked for in vain by every step."""
    shutil.copytree(whole, out := tmp_path / "run")
    shutil.rmtree(out / "bank")
    own = whole.parent / "run.toml"
    for step in ("plot", "simulate", "infer", "plot"):
        assert call(step, own, "--out", out) == 0
    assert (out / "predictive.png").exists()
