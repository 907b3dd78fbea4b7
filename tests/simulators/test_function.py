"""Plain functions as simulators: named in a config, or given from a notebook with all that they use."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tomli_w

import simulators
from eorinfer.core.errors import InputError
from eorinfer.run.config import load_config
from simulators import Observable, Parameter, Symmetry
from simulators.cell import kind_of, module_text, shown_kind
from simulators.function import FunctionSimulator, simulator
from tests.runs import CONFIG

PLAIN = """
import numpy as np
def field(theta, seed):
    return theta[0] * np.random.default_rng(seed).standard_normal((8, 8))
"""
NOTEBOOK = """
import numpy as np
from math import sqrt as root
SIZE, TABLE = 8, np.arange(3.0)
unused = object()
def helper(rng, n=SIZE):
    def inner(x):
        return x * root(4.0)
    return inner(rng.standard_normal((n, n)))
def field(theta, seed):
    return theta[0] * helper(np.random.default_rng(seed)) + TABLE.sum()
def recursive(theta, seed):
    return helper(np.random.default_rng(seed)) if seed else recursive(theta, 1)
"""


def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> dict[str, Any]:
    """Run text as the main program, as a notebook runs its cells."""
    file = tmp_path / "cells.py"
    file.write_text(text)
    main = ModuleType("__main__")
    main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(text, str(file), "exec"), vars(main))
    return vars(main)


def table(function: Callable[..., Any], **observable: Any) -> dict[str, Any]:
    return simulator(function, {"amplitude": (0.5, 2.0)}, {"shape": (8, 8), **observable})


def content(settings: dict[str, Any]) -> dict[str, Any]:
    return CONFIG | {"simulator": settings, "observation": {"theta": {"amplitude": 1.0}}, "prior": {}}


def test_a_function_that_a_config_names(tmp_path: Path) -> None:
    file, module = tmp_path / "run.toml", tmp_path / "mine.py"
    ranges = {"amplitude": {"low": 0.5, "high": 2.0}}
    settings = {"kind": "mine:field", "ranges": ranges, "shape": [1, 8, 8], "cell_size": 2.0}

    def fingerprint(text: str) -> str:
        module.write_text(text)
        return simulators.fingerprint(load_config(file).simulator)

    file.write_text(tomli_w.dumps(content(settings)))
    before = fingerprint(PLAIN)
    made = load_config(file).simulator
    assert isinstance(made, FunctionSimulator)
    expected = 2 * np.random.default_rng(3).standard_normal((8, 8))
    np.testing.assert_array_equal(made.simulate(np.array([2.0]), 3)["image"][0], expected)
    assert fingerprint("# a comment\n" + PLAIN) == before
    assert fingerprint(PLAIN.replace("theta[0] *", "2 * theta[0] *")) != before
    file.write_text(tomli_w.dumps(content({name: v for name, v in settings.items() if name != "shape"})))
    with pytest.raises(InputError, match=r"\[simulator\] shape: is missing"):
        load_config(file)


def test_a_function_of_a_notebook_is_written_with_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = notebook(tmp_path, monkeypatch, NOTEBOOK)
    settings = table(cells["field"], cell_size=2.0)
    expected = cells["field"](np.array([1.5]), 7)
    made = simulators.build(settings).simulate(np.array([1.5]), 7)["image"]
    np.testing.assert_array_equal(made[0], expected)
    assert "unused" not in module_text(cells["field"])
    assert settings == table(cells["field"], cell_size=2.0), "the same text is the same module"
    assert "def recursive" in module_text(cells["recursive"])
    monkeypatch.chdir("/")  # the folder of the config, which holds that of the written module
    run = tmp_path / "run"
    run.mkdir()
    load_config(content(settings)).write(run / "config.toml")
    module = settings["kind"].partition(":")[0]
    assert sorted(path.name for path in run.iterdir()) == ["config.toml", f"{module}.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thing = object()\ndef field(theta, seed): return thing", "uses thing, a object, which cannot be written"),
        ("def around(k):\n  def field(theta, seed): return k\n  return field\nfield = around(3)", "uses k of the"),
        ("field = lambda theta, seed: 1", "must be a function that `def` made"),
        ("import numpy as np\nbig = np.zeros(20000)\ndef field(theta, seed): return big", "an array of 20000 numbers"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind_of(notebook(tmp_path, monkeypatch, text)["field"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "mine:field returned nothing; it must end with return"),
        ("return {'map': 1}", 'returned map, and no "image"'),
    ],
)
def test_a_function_without_a_result(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"def field(theta, seed):\n    {body}\n")
    settings = {"kind": "mine:field", "ranges": {"amplitude": {"low": 0.5, "high": 2.0}}, "shape": [1, 8, 8]}
    (tmp_path / "run.toml").write_text(tomli_w.dumps(content(settings | {"cell_size": 2.0})))
    with pytest.raises(simulators.SimulationError, match=message):
        load_config(tmp_path / "run.toml").simulator.simulate(np.array([1.0]), 3)


def test_parameters_without_ends_are_said_and_a_length_is_a_shape() -> None:
    cell = {"shape": 8}
    with pytest.raises(ValueError, match=r'must be a dict of names and ends, for example \{"a": \(0.5, 2.0\)\}'):
        simulator(content, ["a"], cell)  # type: ignore[list-item]
    for observable in ((16, 16), None):
        with pytest.raises(ValueError, match=r'observable: must be a dict, for example \{"shape": \(1, 32, 32\)\}'):
            simulator(content, {"a": (0.0, 1.0)}, observable)  # type: ignore[arg-type]
    for ends in (3.0, (1.0, 2.0, 3.0), "ab"):
        with pytest.raises(ValueError, match="a needs two ends"):
            simulator(content, {"a": ends}, cell)  # type: ignore[dict-item]
    assert simulator(content, {"a": (0.5, 2.0)}, cell)["shape"] == [1, 8]


def test_readers_see_the_name_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = kind_of(notebook(tmp_path, monkeypatch, NOTEBOOK)["field"])
    assert shown_kind(kind) == "the function field"
    assert shown_kind("my_module:field") == "my_module:field"


def test_parameters_and_observables_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field = notebook(tmp_path, monkeypatch, NOTEBOOK)["field"]
    axes, symmetry = ("redshift", "x", "y", "z"), Symmetry((True,) * 3, "all")
    observable = Observable("cube", (2, 4, 4, 4), "mK", axes, (3.0,) * 3, (7.0, 8.0), symmetry)
    parameter = Parameter("A", "a", 0.0, 1.0, 0.5, "dex")
    made = simulators.build(simulator(field, [parameter], observable))
    assert (made.parameters, made.observables) == ((parameter,), (observable,))
