"""From a table to a simulator, a user's own module included."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.campaign.fill import fill, local_executor
from simulators import GaussianField, UnknownSimulator, build, fingerprint
from tests.banks import a_plan

MINE = """
from simulators import GaussianField
from factor import FACTOR

class Mine(GaussianField):
    power_of: float = 2.0

    def simulate(self, theta, seed):
        return {"field": FACTOR * super().simulate(theta, seed)["field"] ** int(self.power_of)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "factor.py").write_text("FACTOR = 3\n")
    return tmp_path


def test_builds_what_settings_describe() -> None:
    simulator = GaussianField(dimension=3, cells=8)
    assert build(simulator.settings()) == simulator
    assert fingerprint(build({"kind": "gaussian-field"})) == GaussianField().fingerprint()


def test_a_class_of_ones_own_beside_the_config(folder: Path) -> None:
    simulator = build({"kind": "mine:Mine", "cells": 8, "power_of": 3}, folder)
    made = simulator.simulate(np.array([0.5, -1.0]), 4)["field"]
    plain = GaussianField(cells=8).simulate(np.array([0.5, -1.0]), 4)["field"]
    np.testing.assert_array_equal(made, 3 * plain**3)
    assert simulator.kind == "mine:Mine"
    assert "mine" not in sys.modules, "it hides no module of that name"
    assert str(folder) not in sys.path
    assert build(simulator.settings(), folder) == simulator


@pytest.mark.job
def test_a_class_of_ones_own_in_workers(folder: Path) -> None:
    simulator = build({"kind": "mine:Mine", "cells": 8}, folder)
    bank = Bank.create(folder / "bank", simulator)
    plan = bank.add(a_plan(4, 2))
    with local_executor(2) as executor:
        assert fill(bank, plan, simulator, executor, beside=folder) == {"ok": 4}
    rows = bank.rows()
    expected = [simulator.simulate(t, int(s))["field"] for t, s in zip(rows.theta, rows.seed, strict=True)]
    np.testing.assert_array_equal(bank.read("field", rows), np.stack(expected))


def test_the_folder_beside_comes_before_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text("from simulators import GaussianField\nclass Mine(GaussianField): pass\n")
    monkeypatch.syspath_prepend(elsewhere)
    assert hasattr(build({"kind": "mine:Mine"}, folder), "power_of")
    assert not hasattr(build({"kind": "mine:Mine"}, folder / "nothing"), "power_of")
    del sys.modules["mine"]


@pytest.mark.job
def test_an_edit_of_the_source_changes_the_fingerprint(folder: Path) -> None:
    simulator = build({"kind": "mine:Mine"}, folder)
    before = fingerprint(simulator)
    assert before != fingerprint(build({"kind": "mine:Mine", "power_of": 3.0}, folder))
    (folder / "mine.py").write_text(MINE.replace("int(", "round("))
    # A new process, as a user would start: this one has the module loaded.
    command = (
        "import sys, pathlib; from simulators import build, fingerprint; "
        "print(fingerprint(build({'kind': 'mine:Mine'}, pathlib.Path(sys.argv[1]))))"
    )
    run = subprocess.run([sys.executable, "-c", command, str(folder)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() != before
    (folder / "mine.py").write_text(MINE)
    run = subprocess.run([sys.executable, "-c", command, str(folder)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == before, "the source text counts, not its date or place"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (None, 'kind is missing: one of "gaussian-field"'),
        (3, 'kind = 3 is no text: one of "gaussian-field"'),
        ("gaussian", 'kind = "gaussian" is not known: one of "gaussian-field"'),
        ("yours:Mine", 'kind = "yours:Mine": there is no yours.py in FOLDER or on the path'),
        ("mine:Yours", 'kind = "mine:Yours": FOLDER/mine.py has no class or function "Yours"'),
        (
            "lacks:Mine",
            'kind = "lacks:Mine": importing "lacks" failed: No module named \'nothing_of_the_kind\'',
        ),
        (
            "broken:Mine",
            'kind = "broken:Mine": importing "broken" failed: ZeroDivisionError: division by zero',
        ),
        (
            "plain:Mine",
            'kind = "plain:Mine" is no simulator yet: it has no kind, parameters, observables, rows_per_realisation, '
            "seconds_per_row, simulate, check, settings, fingerprint; derive it from simulators.SimulatorSettings, "
            "which asks for observables, parameters, simulate alone",
        ),
        (
            "half:Mine",
            'kind = "half:Mine" is no simulator yet: it has no observables, simulate; derive it from '
            "simulators.SimulatorSettings",
        ),
        ("takes:Mine", 'kind = "takes:Mine" cannot be made from these settings: Mine() takes no arguments'),
    ],
)
def test_what_cannot_be_built_says_why(folder: Path, kind: object, message: str) -> None:
    (folder / "lacks.py").write_text("import nothing_of_the_kind")
    (folder / "broken.py").write_text("1 / 0")
    (folder / "plain.py").write_text("class Mine:\n    def __init__(self, kind): pass\n")
    (folder / "takes.py").write_text("class Mine: pass")
    (folder / "half.py").write_text(
        "from simulators import SimulatorSettings\nclass Mine(SimulatorSettings):\n"
        "    @property\n    def parameters(self): return ()\n"
    )
    with pytest.raises(UnknownSimulator) as caught:
        build({} if kind is None else {"kind": kind}, folder)
    assert str(caught.value).startswith(message.replace("FOLDER", str(folder)))
    assert "\n" not in str(caught.value)
