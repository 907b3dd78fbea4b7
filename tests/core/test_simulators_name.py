"""A folder called simulators beside a notebook does not hide eorinfer's own package of that name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder: Path, code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("kind", ["package", "plain folder", "module"])
@pytest.mark.job
def test_eorinfer_finds_its_own(tmp_path: Path, kind: str) -> None:
    if kind == "module":
        (tmp_path / "simulators.py").write_text("mine = 1\n")
    else:
        (tmp_path / "simulators").mkdir()
        if kind == "package":
            (tmp_path / "simulators/__init__.py").write_text("mine = 1\n")
    said = run(
        tmp_path, "from eorinfer import load_config\nfrom simulators import GaussianField\nprint(GaussianField())"
    )
    assert "gaussian-field" in said


@pytest.mark.job
def test_a_package_that_was_imported_before_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "simulators").mkdir()
    (tmp_path / "simulators/__init__.py").write_text("mine = 1\n")
    said = run(
        tmp_path,
        "import simulators\nassert simulators.mine\nfrom eorinfer import Bank\nimport simulators\n"
        "print(simulators.GaussianField.__name__)",
    )
    assert "was imported before eorinfer" in said
    assert said.endswith("GaussianField\n")
