"""Worlds in plans, shards and the description of a bank."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from eorinfer.bank.export import export_rows
from eorinfer.bank.facts import BankFacts
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import fill, local_executor
from eorinfer.campaign.plans import plan_round
from simulators import build
from simulators.worlds import Worlds
from tests.banks import a_bank


@pytest.mark.job
def test_rows_keep_their_world(tmp_path: Path) -> None:
    simulator = build(
        {"kind": "gaussian-field", "cells": 8, "worlds": [{}, {"name": "other", "kind": "lognormal-field"}]}
    )
    assert isinstance(simulator, Worlds)
    bank = Bank.create(tmp_path / "bank", simulator)
    theta = np.random.default_rng(1).uniform([-1, -3], [1, 0], (12, 2))
    drawn = bank.add(plan_round(1, "prior", theta, simulator, 1))
    named = bank.add(plan_round(0, "truths", theta[:4], simulator, 1, world=1))
    assert bank.plan(drawn.id).world is not None
    with local_executor(1) as executor:
        for plan in (drawn, named):
            fill(bank, plan, simulator, executor)
    rows = bank.rows([drawn])
    assert rows.world.tolist() == [simulator.world_of(int(seed)) for seed in rows.seed]
    assert set(rows.world.tolist()) == {0, 1}
    assert bank.rows([named]).world.tolist() == [1] * 4
    everything = bank.rows()
    for i in range(len(everything)):
        row = everything[[i]]
        alone = simulator.simulators[int(row.world[0])].simulate(row.theta[0], int(row.seed[0]))["field"]
        assert np.array_equal(bank.read("field", row)[0], alone)

    ones = int((everything.world == 1).sum())
    lines = list(BankFacts.from_bank(bank).lines())
    assert f"world other: {ones} ok" in lines
    export_rows(bank, tmp_path / "rows.h5")
    with h5py.File(tmp_path / "rows.h5") as file:
        assert file["world"][:].tolist() == everything.world.tolist()
        assert file["world"].attrs["names"].tolist() == ["world-1", "other"]
    assert not verify(bank.path)
    # A lost plan is made again from its shards, worlds and all.
    (bank.path / "rounds" / f"{named.id}.h5").unlink()
    verify(bank.path, repair=True)
    again = bank.plan(named.id).world
    assert again is not None
    assert again.tolist() == [1] * 4


def test_a_bank_without_worlds_has_none(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    assert bank.plan(plan.id).world is None
    assert set(bank.rows().world.tolist()) == {0}
    assert not BankFacts.from_bank(bank).worlds
