"""Campaigns: every fault costs its own rows and no other, and a kill costs the shards in flight."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest

from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import Limits, ShardReport, fill, local_executor
from eorinfer.core.errors import InputError
from simulators import GaussianField, build, fingerprint
from tests.banks import a_plan, faulty
from tests.runs import PATIENCE, heed_interrupts, wait_until

#: Seed (and row), fault, status, message. Shards have 6 rows: the first one holds nothing but faults.
FAULTS = [
    (0, "raise", "failed", "ZeroDivisionError: the model broke"),
    (1, "sigkill", "killed", "died while simulating: SIGKILL; last words: about to be killed (memory limit 1 GB)"),
    (2, "sigsegv", "killed", "died while simulating: SIGSEGV (memory limit 1 GB)"),
    (3, "nan", "invalid", "field: 1 of 64 values are NaN or infinite, the first is [0, 2, 3] = nan"),
    (4, "exit", "killed", "ended while simulating with exit code 3 (memory limit 1 GB)"),
    (5, "hang", "timeout", "no result within 2 s"),
    (6, "memory", "failed", "MemoryError: out of memory (memory limit 1 GB)"),
    (8, "inf", "invalid", "field: 1 of 64 values are NaN or infinite, the first is [0, 2, 3] = inf"),
    (9, "shape", "failed", "field has shape (8, 8), declared (1, 8, 8)"),
    (11, "lacks", "failed", "field is missing from the result, which has ['image']"),
    (12, "refuse", "failed", "no sources at this theta"),
    (14, "print", "ok", ""),
    (15, "sigkill", "killed", "died while simulating: SIGKILL; last words: about to be killed (memory limit 1 GB)"),
    (16, "sigterm", "ok", ""),
    (17, "torch", "failed", "torch loaded: False"),
    (18, "nul", "failed", "half ? a word"),
]


def rows_and_fields(bank: Bank) -> tuple[Rows, np.ndarray]:
    rows = bank.rows()
    return rows, bank.read("field", rows)


def clean(plan: Plan, cells: int = 8) -> np.ndarray:
    """Simulate the rows of a plan in this process, where nothing goes wrong."""
    simulator = GaussianField(cells=cells)
    made = [simulator.simulate(t, int(s))["field"] for t, s in zip(plan.theta, plan.seed, strict=True)]
    return np.stack(made)


def test_each_view_of_a_run_is_a_row(tmp_path: Path) -> None:
    """Also where a shard begins in the middle of a run."""
    (tmp_path / "viewed.py").write_text(
        "from simulators import GaussianField\n"
        "class Viewed(GaussianField):\n"
        "    views_of_a_run = property(lambda self: 3)\n"
        "    def simulate(self, theta, seed, view=0):\n"
        "        return {'field': super().simulate(theta, seed)['field'] + 10 * view}\n"
    )
    simulator = build({"kind": "viewed:Viewed", "cells": 8}, tmp_path)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(9, 4))
    with local_executor(1) as executor:
        fill(bank, plan, simulator, executor, beside=tmp_path)
    rows, fields = rows_and_fields(bank)
    order = np.argsort(rows.seed)  # a_plan numbers its seeds
    views = np.arange(9).reshape(-1, 1, 1, 1) % 3
    np.testing.assert_array_equal(fields[order], (clean(plan) + 10 * views).astype(np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_costs_its_own_row(tmp_path: Path, workers: int) -> None:
    simulator = faulty(tmp_path, faults={seed: fault for seed, fault, _, _ in FAULTS})
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(20, 6))
    reports: list[ShardReport] = []
    with local_executor(workers) as executor:
        counts = fill(
            bank,
            plan,
            simulator,
            executor,
            beside=tmp_path,
            limits=Limits(seconds=2.0, memory_gb=1.0),
            report=reports.append,
        )
    rows, fields = rows_and_fields(bank)
    expected = {seed: (status, message) for seed, _, status, message in FAULTS}
    found = {int(s): (str(a), str(b)) for s, a, b in zip(rows.seed, rows.status, rows.message, strict=True)}
    assert found == {seed: expected.get(seed, ("ok", "")) for seed in range(20)}
    wanted = clean(plan)
    wanted[rows.status != "ok"] = 0
    assert fields.tobytes() == wanted.tobytes()
    assert counts == rows.counts()
    assert sorted(report.shard for report in reports) == [0, 1, 2, 3]
    assert verify(bank.path) == []
    assert 2.0 <= rows.seconds[5] < 4.0


def executors(name: str) -> AbstractContextManager[Executor]:
    if name == "local":
        return local_executor(2)
    if name == "threads":
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@pytest.mark.parametrize("name", ["local", "threads", "processes"])
def test_rows_are_the_same_whichever_executor(tmp_path: Path, name: str) -> None:
    simulator = faulty(tmp_path, faults={3: "sigkill"})
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(6, 2))
    with executors(name) as executor:
        assert fill(bank, plan, simulator, executor, beside=tmp_path) == {"ok": 5, "killed": 1}
    rows, fields = rows_and_fields(bank)
    assert fields[rows.status == "ok"].tobytes() == np.delete(clean(plan), 3, axis=0).tobytes()


def test_dask(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    simulator = faulty(tmp_path, faults={3: "sigkill", 4: "hang"})
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(6, 2))
    with (
        distributed.LocalCluster(
            processes=True,
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=tmp_path / "dask",
        ) as cluster,
        cluster.get_client() as client,
        client.get_executor() as executor,
    ):
        limits = Limits(seconds=1.0)
        counts = fill(bank, plan, simulator, executor, beside=tmp_path, limits=limits)
    assert counts == {"ok": 4, "killed": 1, "timeout": 1}
    rows, fields = rows_and_fields(bank)
    assert fields[rows.status == "ok"].tobytes() == np.delete(clean(plan), [3, 4], axis=0).tobytes()


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    simulator = GaussianField(cells=8)
    bank = Bank.create(tmp_path, simulator)
    plan = bank.add(a_plan(10, 2))
    reports: list[ShardReport] = []
    with local_executor(1) as executor:
        assert fill(bank, plan, simulator, executor, rows=3) == {"ok": 4}
        bank.shard_path(plan, 3).write_bytes((bank.path / "bank.json").read_bytes())  # there: not looked at
        assert fill(bank, plan, simulator, executor, report=reports.append) == {"ok": 4}
        assert sorted(report.shard for report in reports) == [2, 4]
        assert fill(bank, plan, simulator, executor) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
        ("class Faulty: pass", "cannot be made from these settings"),
        ("import os; os._exit(7)", "ended while starting with exit code 7"),
        ("import os; os.kill(os.getpid(), 11)", "died while starting: SIGSEGV"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_simulator_that_cannot_be_built(tmp_path: Path, source: str, message: str) -> None:
    simulator = faulty(tmp_path)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(4, 2))
    (tmp_path / "faulty.py").write_text(source)
    with local_executor(2) as executor, pytest.raises(InputError) as caught:
        fill(bank, plan, simulator, executor, beside=tmp_path)
    assert str(caught.value).startswith("[simulator] cannot be started: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(bank.rows()) == 0


def test_a_source_edited_after_the_bank_was_opened_is_refused(tmp_path: Path) -> None:
    simulator = faulty(tmp_path)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(2, 2))
    with (tmp_path / "faulty.py").open("a") as file:
        file.write("another_model = True\n")
    with local_executor(1) as executor, pytest.raises(InputError, match=f"the bank's is {bank.fingerprint}"):
        fill(bank, plan, simulator, executor, beside=tmp_path)
    assert fingerprint(simulator) != bank.fingerprint


def children() -> list[psutil.Process]:
    """Simulators of this process; multiprocessing keeps helpers of its own."""
    return [child for child in psutil.Process().children() if "eorinfer.campaign.child" in child.cmdline()]


def test_an_interrupt_leaves_no_process_and_no_false_row(tmp_path: Path) -> None:
    simulator = faulty(tmp_path, faults={0: "hang"}, pause=0.05)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(40, 2))

    def interrupt(report: ShardReport) -> None:
        assert children()
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), local_executor(3) as executor:
        fill(bank, plan, simulator, executor, beside=tmp_path, report=interrupt)
    assert time.monotonic() - start < 10
    assert children() == []
    rows = bank.rows()
    assert 0 not in rows.seed
    assert len(rows) < 40
    assert set(rows.status) == {"ok"}
    with local_executor(1) as executor:
        assert fill(bank, plan, simulator, executor, rows=2, beside=tmp_path, limits=Limits(0.5))["timeout"] == 1


SCRIPT = """
import sys
from pathlib import Path
from eorinfer.bank.store import Bank
from eorinfer.campaign.fill import fill, local_executor
from simulators import build

folder, faults = Path(sys.argv[1]), eval(sys.argv[2])
simulator = build({"kind": "faulty:Faulty", "cells": 8, **faults}, folder)
bank = Bank.create(folder / "bank", simulator)
with local_executor(2) as executor:
    fill(bank, bank.plans()[0], simulator, executor, beside=folder)
"""


def start(folder: Path, settings: dict[str, object]) -> subprocess.Popen[str]:
    """A process that fills the bank in `folder`."""
    command = [sys.executable, "-c", SCRIPT, str(folder), repr(settings)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)


def wait_for(path: Path, files: int, process: subprocess.Popen[str]) -> None:
    """Wait until a folder holds so many whole files, or the process ends."""
    wait_until(lambda: len(list(path.glob("[!.]*"))) >= files, process)


def test_kills_cost_the_shards_in_flight_alone(tmp_path: Path) -> None:
    settings: dict[str, object] = {"pause": 0.02, "faults": {7: "raise"}}
    simulator = faulty(tmp_path, **settings)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(48, 4))
    done: list[int] = []
    for _ in range(3):
        process = start(tmp_path, settings)
        there = 12 - len(bank.missing(plan))
        wait_for(bank.path / "shards", there + 2, process)
        process.kill()
        process.communicate()
        done.append(12 - len(bank.missing(plan)))
    assert 0 < done[0] < done[1] < done[2] < 12, done
    before = {path: path.stat().st_mtime_ns for path in (bank.path / "shards").glob("[!.]*")}

    process = start(tmp_path, settings)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert {path: path.stat().st_mtime_ns for path in before} == before, "whole shards are never touched"
    rows, fields = rows_and_fields(bank)
    wanted = clean(plan)
    wanted[7] = 0
    assert rows.theta.tobytes() == plan.theta.tobytes()
    assert rows.counts() == {"ok": 47, "failed": 1}
    assert fields.tobytes() == wanted.tobytes()
    assert verify(bank.path) == []
    assert not list(bank.path.rglob(".tmp-*")), "what dead processes left is removed"


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process that fills a bank, and its child whose simulator hangs."""
    note = tmp_path / "pid" / "of"
    note.parent.mkdir()
    settings: dict[str, object] = {"faults": {0: "hang"}, "note": str(note)}
    bank = Bank.create(tmp_path / "bank", faulty(tmp_path, **settings))
    bank.add(a_plan(2, 2))
    process = start(tmp_path, settings)
    wait_for(note.parent, 1, process)
    wait_until(note.read_text, process)
    child = psutil.Process(int(note.read_text()))
    yield process, child
    for one in (process, child):
        if psutil.pid_exists(one.pid):
            one.kill()
    process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_simulator_ends_with_its_campaign(
    hanging: tuple[subprocess.Popen[str], psutil.Process], signum: signal.Signals, tmp_path: Path
) -> None:
    process, child = hanging
    os.kill(process.pid, signum)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == -signum
    assert ("KeyboardInterrupt" in errors) == (signum == signal.SIGINT)
    child.wait(timeout=5)
    assert len(Bank.open(tmp_path / "bank").rows()) == 0


def test_children_are_replaced_and_kept_apart(tmp_path: Path) -> None:
    """Two banks in one thread: each has its own simulator."""
    with local_executor(1) as executor:
        for cells in (8, 6):
            simulator = build({"kind": "gaussian-field", "cells": cells})
            bank = Bank.create(tmp_path / str(cells), simulator)
            plan = bank.add(a_plan(2, 2))
            fill(bank, plan, simulator, executor)
            assert bank.read("field", bank.rows()).tobytes() == clean(plan, cells).tobytes()
