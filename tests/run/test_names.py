"""Names and labels are checked when the config is read, before anything is simulated or trained."""

from pathlib import Path
from typing import Any

import pytest

from eorinfer.core.errors import InputError
from eorinfer.run.config import load_config
from simulators import KINDS
from simulators.gaussian import GaussianField
from simulators.registry import simulator_class
from tests.runs import config

FINE = {"low": -2.0, "high": 3.0}


def imported(folder: Path, ranges: dict[str, Any], **more: Any) -> Path:
    simulator = {"kind": "imported", "shape": [1, 8, 8], "cell_size": 1.0, "cells": None, "box_length": None}
    return config(
        folder,
        simulator=simulator | {"ranges": ranges} | more,
        prior={"log_amplitude": None, "slope": None},
        observation={"theta": None, "file": "o.npy"},
        inference={"rounds": [20]},
    )


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("log M", "", "parameter 'log M': a name has no spaces and none of * ? # ="),
        ("a*", "", "parameter 'a*': a name has"),
        ("a?", "", "parameter 'a?': a name has"),
        ("a\n", "", "a name has no spaces"),
        ("", "", "parameter '': a name has"),
        ("a=b", "", "parameter 'a=b': a name has"),
        ("a" * 300, "", "a name has at most 200 characters"),
        ("a", r"$\alpha$", r"a: label = '$\\alpha$': labels are LaTeX without dollar signs, such as '\\alpha'"),
        ("a", r"\frac{", "matplotlib cannot draw it"),
        ("a", "b_c_d", "matplotlib cannot draw it"),
        ("a", r"\nosuch{x}", "matplotlib cannot draw it"),
        ("a", "x" * 300, "at most 200 characters"),
    ],
)
def test_what_would_end_a_run_later(tmp_path: Path, name: str, label: str, message: str) -> None:
    path = imported(tmp_path, {name: FINE | ({"label": label} if label else {}), "slope": FINE})
    with pytest.raises(InputError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: [simulator] ")
    assert message in str(error.value)


@pytest.mark.parametrize(("name", "label"), [("a_b_c", ""), ("M_TURN", r"\log_{10} M_{\rm turn}"), ("α", "α")])
def test_what_can_be_drawn(tmp_path: Path, name: str, label: str) -> None:
    path = imported(tmp_path, {name: FINE | ({"label": label} if label else {}), "slope": FINE})
    assert load_config(path).prior.names == [name, "slope"]


def test_an_array_that_no_machine_holds(tmp_path: Path) -> None:
    path = imported(tmp_path, {"a": FINE}, shape=[1, 1_000_000_000, 1_000_000_000])
    with pytest.raises(InputError, match=r"\[simulator\] a simulation has arrays of 4e\+09 GB; this machine has"):
        load_config(path)


def test_every_simulator_of_this_package_has_labels_that_can_be_drawn() -> None:
    from eorinfer.figures.style import is_mathtext

    assert "gaussian-field" in KINDS
    for kind in ("gaussian-field", "lognormal-field"):
        simulator = simulator_class(kind)(kind=kind, cells=8, box_length=8.0)
        assert isinstance(simulator, GaussianField)
        assert all(is_mathtext(f"${p.label}$") for p in simulator.parameters)
