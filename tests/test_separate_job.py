"""`eorinfer separate`, as a user would start it, on small mocks."""

from pathlib import Path
from typing import Any

import pytest

from eorinfer.separation.model import Separator

from .eorinfer.mocks import SLAB
from .runs import call, config

SEPARATION = {"simulations": 32, "steps": 6, "width": 4, "widest": 8, "batch_size": 8}


def separate_config(folder: Path, name: str = "separate.toml", **tables: Any) -> Path:
    content: dict[str, Any] = {
        "simulator": {"cells": None} | SLAB,
        "prior": None,
        "survey": {"kind": "spherex", "sigma": None},
        "separation": SEPARATION,
        **dict.fromkeys(("observation", "inference", "embedding", "flow", "training", "power_spectrum", "mcmc")),
    }
    for table, value in tables.items():
        old = content.get(table)
        content[table] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return config(folder, name, **content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank and a separator."""
    folder = tmp_path_factory.mktemp("separate")
    assert call("separate", "train", separate_config(folder), "--out", folder / "out") == 0
    return folder


def test_a_separator_is_trained_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    separator = Separator.load(trained / "out/separator")
    assert separator.meaning.lines == ["ha", "oiii"]
    facts = separator.meaning.facts
    assert facts["simulator"]["kind"] == "lim-mock"
    assert not set(facts["seeds"]["training"]) & set(facts["seeds"]["test"])
    assert not list((trained / "out").glob("checkpoints-*"))
    before = (trained / "out/separator/weights.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert call("separate", "train", trained / "separate.toml", "--out", trained / "out") == 0
    assert (trained / "out/separator/weights.safetensors").stat().st_mtime_ns == before
    assert "32 simulations in 1 round(s), all of them in the bank" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"separation": {"loss": "l2"}}, "[separation] loss: must be 'talk', 'wasserstein' or 'l1' (given: 'l2')"),
        ({"separation": {"wieght": 3}}, '[separation] wieght: unknown key, did you mean "weight"?'),
        ({"separation": {"targets": ["hb"]}}, '[separation] targets: "hb" is not a line of this simulator'),
        ({"separation": {"depth": 6}}, "[separation] 32 x 32 cells can be halved 5 times, not 6"),
        ({"separation": {"dropout": 1.0}}, "[separation] dropout: must be below 1 (given: 1.0)"),
        (
            {"simulator": {"kind": "gaussian-field", "cells": 8} | dict.fromkeys(set(SLAB) - {"kind"}), "survey": None},
            '[separation] the simulator gives "field" alone',
        ),
        ({"survey": {"kind": "spherx"}}, 'one of "none", "white-noise", "ska-low", "spherex"'),
    ],
)
def test_what_is_wrong_with_a_config_is_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tables: dict[str, Any], said: str
) -> None:
    assert call("separate", "train", separate_config(tmp_path, **tables), "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_separator_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = separate_config(trained, "other.toml", separation={"weight": 30.0})
    assert call("separate", "train", other, "--out", trained / "out") == 2
    assert "[separation] weight = 30.0, but" in capsys.readouterr().err


def test_too_few_realisations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = separate_config(tmp_path, separation={"simulations": 10})
    assert call("separate", "train", path, "--out", tmp_path / "out") == 1
    assert "a separation needs at least three" in capsys.readouterr().err


def test_the_tables_of_a_run_may_stand_beside_it(tmp_path: Path) -> None:
    path = separate_config(
        tmp_path,
        inference={"rounds": [4]},
        observation={"theta": {"A_HA": 0.0, "A_OIII": 0.0}},
        separation={"steps": 1},
    )
    assert call("separate", "train", path, "--out", tmp_path / "out") == 0
    assert "inference" not in (tmp_path / "out/config.toml").read_text()
