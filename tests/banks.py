"""Shared by tests of banks and campaigns: plans, and a simulator of one's own that goes wrong on demand."""

from pathlib import Path
from typing import Any

import numpy as np

from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from simulators import GaussianField, Simulator, build

#: A module as a user would write it; which seed meets which fault is a setting.
FAULTY = """
import ctypes, os, signal, sys, time
import numpy as np
from simulators import GaussianField, SimulationError

class Faulty(GaussianField):
    faults: dict[int, str] = {}
    note: str = ""
    pause: float = 0.0

    def simulate(self, theta, seed):
        time.sleep(self.pause)
        field = super().simulate(theta, seed)["field"]
        fault = self.faults.get(seed)
        if fault == "raise":
            raise ZeroDivisionError("the model\\n broke")
        if fault == "refuse":
            raise SimulationError("no sources at this theta")
        if fault == "torch":
            raise SimulationError(f"torch loaded: {'torch' in sys.modules}")
        if fault == "nul":
            raise SimulationError("half \\udc80 a \\0 word")
        if fault in ("nan", "inf"):
            field[0, 2, 3] = float(fault)
        if fault == "shape":
            field = field[0]
        if fault == "lacks":
            return {"image": field}
        if fault == "hang":
            if self.note:
                open(self.note, "w").write(str(os.getpid()))
            time.sleep(600)
        if fault == "sigkill":
            os.write(2, b"about to be killed\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "sigsegv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if fault == "exit":
            os._exit(3)
        if fault == "memory":
            field = np.ones(500_000_000)
        if fault == "print":
            print("to standard output", flush=True)
            os.write(1, b"and below Python\\n" * 10000)
            os.write(2, b"and to standard error\\n")
        return {"field": field}
"""


def faulty(folder: Path, **settings: Any) -> Simulator:
    """The simulator of `FAULTY`, its module written into `folder`."""
    (folder / "faulty.py").write_text(FAULTY)
    return build({"kind": "faulty:Faulty", "cells": 8, **settings}, folder)


def a_plan(rows: int, shard_rows: int, number: int = 1) -> Plan:
    """Theta from a small box; row i has the seed i."""
    theta = np.random.default_rng(number).uniform([-1, -3], [1, 0], (rows, 2))
    return Plan(f"{number:02d}-abc", number, "prior", shard_rows, theta, np.arange(rows, dtype=np.uint64))


def a_bank(path: Path, rows: int = 5, shard_rows: int = 2) -> tuple[Bank, Plan]:
    """A bank of Gaussian fields, filled in this process; the second row failed."""
    simulator = GaussianField(cells=8)
    bank = Bank.create(path, simulator)
    plan = bank.add(a_plan(rows, shard_rows))
    for shard in range(plan.shards):
        write(bank, plan, shard, simulator)
    return bank, plan


def write(bank: Bank, plan: Plan, shard: int, simulator: Simulator, seconds: float = 0.5) -> None:
    """Simulate and write one shard; the plan's second row counts as failed."""
    rows = range(len(plan))[plan.rows(shard)]
    fields = [simulator.simulate(plan.theta[i], int(plan.seed[i]))["field"] * (i != 1) for i in rows]
    bank.write_shard(
        plan,
        shard,
        status=["failed" if i == 1 else "ok" for i in rows],
        message=["keine Quellen: θ" if i == 1 else "" for i in rows],
        seconds=[seconds for _ in rows],
        arrays={"field": np.stack(fields)},
    )
