"""Rows that met a limit are simulated again when it was raised, or on request; the others stay as they are."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.again import MARK, mark, timeout_message, to_try_again, with_memory_limit
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import Limits, fill, local_executor
from simulators import build
from tests.banks import a_bank, a_plan

SLOW = """
import time
from simulators import GaussianField

class Slow(GaussianField):
    def simulate(self, theta, seed):
        if seed == 1:
            time.sleep(1.5)
        if seed == 2:
            bytearray(800_000_000)
        if seed == 3:
            raise ValueError("never")
        return super().simulate(theta, seed)
"""


def rows(status: str, message: str) -> Rows:
    one = Rows.none(2)
    return Rows(
        **{name: np.zeros((1, *getattr(one, name).shape[1:])) for name in Rows.__dataclass_fields__}
        | {"status": np.array([status]), "message": np.array([message])}
    )


@pytest.mark.parametrize(
    ("status", "message", "seconds", "memory_gb", "again"),
    [
        ("timeout", timeout_message(1.0), 1.0, None, False),
        ("timeout", timeout_message(1.0), 2.0, None, True),
        ("timeout", timeout_message(1.0), None, None, True),
        ("timeout", timeout_message(3600.0), 60.0, None, False),
        ("timeout", timeout_message(1.23456789), 1.23456789, None, False),
        ("failed", with_memory_limit("MemoryError: out of memory", 1.5), 9.0, 1.5, False),
        ("failed", with_memory_limit("MemoryError: out of memory", 1.5), 9.0, 2.0, True),
        ("killed", with_memory_limit("died while simulating: SIGABRT", 1.5), 9.0, None, True),
        ("killed", with_memory_limit("died while simulating: SIGSEGV", None), 9.0, None, False),
        ("failed", "MemoryError: out of memory", 9.0, None, False),
        ("failed", "ValueError: never", None, None, False),
        ("failed", MARK + "ValueError: never", 1.0, None, True),
        ("ok", "", None, None, False),
    ],
)
def test_which_rows(status: str, message: str, seconds: float | None, memory_gb: float | None, again: bool) -> None:
    assert to_try_again(rows(status, message), seconds, memory_gb).tolist() == [again]


def test_a_mark_changes_nothing_else(tmp_path: Path) -> None:
    bank, _ = a_bank(tmp_path)
    before, fields = bank.rows(), bank.read("field", bank.rows())
    assert mark(bank) == {}, "a row that the simulator refused would only be refused again"
    assert mark(bank, everything=True) == mark(bank, everything=True) == {"failed": 1}
    after = bank.rows()
    assert after.message[1] == MARK + before.message[1]
    for name in ("theta", "seed", "round", "status", "seconds"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(bank.read("field", after), fields)
    assert verify(bank.path) == []


@pytest.mark.job
def test_a_raised_limit_and_a_mark_simulate_again(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    simulator = build({"kind": "slow:Slow", "cells": 8}, tmp_path)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(6, 3))

    def filled(seconds: float, memory_gb: float) -> dict[str, int]:
        with local_executor(1) as executor:
            made = fill(
                bank,
                plan,
                simulator,
                executor,
                beside=tmp_path,
                limits=Limits(seconds, memory_gb),
                report=lambda told: reported_rows.append(told.rows),
            )
        return made

    reported_rows: list[int] = []
    assert filled(0.7, 0.6) == {"ok": 3, "timeout": 1, "failed": 2}
    before = bank.rows()
    assert before.status.tolist() == ["ok", "timeout", "failed", "failed", "ok", "ok"]
    assert filled(0.7, 0.6) == {}
    reported_rows.clear()
    assert filled(30.0, 0.6) == {"ok": 1}
    assert filled(30.0, 4.0) == {"ok": 1}
    assert reported_rows == [1, 1], "what is simulated again alone is counted"
    mark(bank, everything=True)
    assert filled(30.0, 4.0) == {"failed": 1}
    assert filled(30.0, 4.0) == {}
    after = bank.rows()
    assert after.status.tolist() == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert after.message[3] == "ValueError: never"
    np.testing.assert_array_equal(after.seconds[[0, 4, 5]], before.seconds[[0, 4, 5]])
    for theta, seed, field in zip(after.theta, after.seed, bank.read("field", after), strict=True):
        if seed not in (1, 2, 3):
            assert field.tobytes() == simulator.simulate(theta, int(seed))["field"].tobytes()
    assert verify(bank.path) == []
