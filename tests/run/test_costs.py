"""Training and chains are timed before they begin, or taken from what the folder has."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from eorinfer.core.errors import InputError
from eorinfer.core.progress import Silent, duration
from eorinfer.run.config import load_config
from eorinfer.run.context import RunContext
from eorinfer.run.costs import chain_line, references_line, training_line
from eorinfer.run.run import Run
from tests.mocks import SLAB
from tests.runs import config


def test_times_are_measured_or_read(tmp_path: Path) -> None:
    context = RunContext.open(load_config(config(tmp_path)), tmp_path / "run", Silent())
    state = torch.random.get_rng_state()
    line = training_line(context)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert line is not None
    assert "of training, 1 network(s) in 2 round(s), 48 steps (" in line
    assert "by a timing of 2 steps of each kind on the CPU" in line
    assert "8 walkers, 40 to 80 steps" in chain_line(context)
    assert "by a timing of 2 calls" in chain_line(context)
    facts = tmp_path / "run/rounds/01/posterior/posterior.json"
    facts.parent.mkdir(parents=True)
    facts.write_text(json.dumps({"facts": {"round": 1, "seconds": 24.0, "training_rows": 43}}))
    (tmp_path / "run/chains").mkdir()
    (tmp_path / "run/chains/mcmc.json").write_text(json.dumps({"steps": 50, "seconds": {"chain": 100.0}}))
    line = training_line(context)
    assert line is not None
    assert "about 24 s of training, 1 network(s) in 1 round(s), 24 steps (1 s each, as measured in round 1)" in line
    assert "80 s to 160 s" not in chain_line(context)
    assert "80 s to 3 min for a chain" in chain_line(context)
    assert "(2 s each, as measured in the chain that is here, which continues" in chain_line(context)
    short = RunContext.open(load_config(config(tmp_path, mcmc={"max_steps": 30})), tmp_path / "run", Silent())
    assert "60 s for a chain of 8 walkers, 30 steps at most (" in chain_line(short)


def test_summaries_that_are_computed_once_are_counted_apart(tmp_path: Path) -> None:
    lines = []
    for name, embedding in (("image", "width = 4"), ("power", "convolution = false")):
        text = config(tmp_path).read_text()
        file = tmp_path / f"{name}.toml"
        file.write_text(re.sub(r"(?m)^\[embedding\][^\[]*", f"[embedding]\n{embedding}\n\n", text))
        lines.append(training_line(RunContext.open(load_config(file), tmp_path / name, Silent())))
    assert all(lines)
    assert "for the summaries" not in str(lines[0])
    assert "on the CPU), after " in str(lines[1])
    assert str(lines[1]).endswith(" for the summaries of all cubes")


def test_references_of_a_validation(tmp_path: Path) -> None:
    context = RunContext.open(load_config(config(tmp_path)), tmp_path / "run", Silent())
    seen: list[int] = []

    def log_l(theta: np.ndarray) -> np.ndarray:
        seen.append(len(theta))
        return np.zeros(len(theta))

    grid = references_line(context, log_l, "power-spectrum", 10000, (1000, 3000))
    assert grid.startswith("validation: 20 power-spectrum posteriors as references, about ")
    assert "10,000 evaluations on a grid each" in grid
    chains = references_line(context, log_l, "power-spectrum", None, (1000, 3000))
    assert "chains of 8 walkers, 1000 to 3000 steps each" in chains
    assert seen == [4] * 6


@pytest.mark.parametrize(
    ("simulator", "rounds", "said"),
    [
        ({}, [4, 5], "9 simulations are too few for the power-spectrum emulator; at least 10"),
        ({"cells": None} | SLAB | {"rows_per_realisation": 4}, [36], "36 simulations, 4 to a realisation, are too few"),
    ],
)
def test_too_few_realisations_are_refused_before_anything_is_made(
    tmp_path: Path, simulator: dict[str, object], rounds: list[int], said: str
) -> None:
    lim = {"prior": None, "observation": {"theta": {"A_HA": 0.1, "A_OIII": 0.0}}} if simulator else {}
    path = config(tmp_path, simulator=simulator, inference={"rounds": rounds}, **lim)
    run = Run(load_config(path), tmp_path / "run", Silent())
    with pytest.raises(InputError, match=said):
        run.all()
    assert not len(run.bank.rows())


def test_a_row_with_a_run_of_its_own_costs_as_much_as_all_views(tmp_path: Path) -> None:
    """200 truths of a contest of light-cones with three views were said to take 5 minutes, and took 13."""
    cone = {"kind": "21cmfast-lightcone", "redshift_range": [7.5, 7.7], "cells": 16, "box_length": 64.0, "views": 3}
    tables = {"simulator": cone | {"parameters": ["F_ESC10"]}, "observation": {"theta": {"F_ESC10": -1.0}}}
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(tables | {"inference": {"rounds": [40]}, "executor": {"workers": 1}}))
    simulations = Run(load_config(path), tmp_path / "run").context.simulations
    each = simulations.config.simulator.seconds_per_row
    for alone in (0, 1000):
        line = simulations.preflight("some", 3000, 1000, alone)
        assert f"about {duration(each * (2000 + 2 * alone))} of simulating on 1 process(es)" in line
