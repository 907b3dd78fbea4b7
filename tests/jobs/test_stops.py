"""What a bank survives: stops at random moments, full disks and read-only folders, and another campaign."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import fill, local_executor
from eorinfer.core.errors import WorkError
from simulators import GaussianField
from tests.banks import a_plan, write
from tests.runs import PATIENCE, call, config, start

#: The command line as it is installed.
LIGHT = "from eorinfer.cli.app import main; main()"
#: What a mounted disk is called, before the number of the process.
DISK = "eorinfer-test"
#: Some rows fail in each of several ways; a line is written for each row that is simulated, however often.
FRAIL = """
import os, signal, time
from pathlib import Path
import numpy as np
from simulators import GaussianField, SimulationError

class Frail(GaussianField):
    share: float = 0.1
    pause: float = 0.02

    @property
    def seconds_per_row(self):
        return 5.0

    def simulate(self, theta, seed):
        with open(Path(__file__).with_name("simulated"), "a") as file:
            file.write(f"{seed}\\n")
        time.sleep(self.pause)
        rng = np.random.default_rng([seed, 7])
        if rng.random() < self.share:
            fault = rng.integers(7)
            if fault == 0:
                raise SimulationError("no sources")
            if fault == 1:
                raise ZeroDivisionError("broken")
            if fault == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == 3:
                os.kill(os.getpid(), signal.SIGSEGV)
            if fault == 4:
                return {"field": np.zeros(3)}
            if fault == 5:
                return {"field": np.ones(10**9)}
            time.sleep(100)
        field = super().simulate(theta, seed)["field"]
        if rng.random() < self.share / 3:
            field[0, 0, 0] = rng.choice([np.nan, np.inf])
        return {"field": field}
"""


def frail(folder: Path, rows: int, share: float = 0.1, pause: float = 0.02) -> Path:
    """The config of a campaign with `FRAIL`."""
    folder.mkdir(exist_ok=True)
    (folder / "frail.py").write_text(FRAIL)
    return config(
        folder,
        simulator={"kind": "frail:Frail", "share": share, "pause": pause},
        inference={"rounds": [rows]},
        executor={"workers": 2, "timeout": 1.5, "memory_gb": 1.0, "failure_share": 0.3},
    )


def same_rows(ours: Bank, theirs: Bank) -> None:
    """θ, seed, round, status and arrays of every row; messages and seconds may differ."""
    a, b = (_in_order(bank.rows()) for bank in (ours, theirs))
    assert len(a) == len(b)
    for name in ("theta", "seed", "round", "status"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert ours.read("field", a).tobytes() == theirs.read("field", b).tobytes()


def _in_order(rows: Rows) -> Rows:
    return rows[np.argsort(rows.seed)]


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


def test_ten_stops_in_one_campaign(tmp_path: Path) -> None:
    """Ctrl-C, SIGTERM and SIGKILL at random moments, to the command alone or to its process group."""
    seed = random.randrange(2**32)
    print(f"random seed {seed}")  # shown when the test fails
    rng = random.Random(seed)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call("simulate", frail(whole, 200), "--out", whole / "run") == 0
    command = ("simulate", frail(broken, 200), "--out", broken / "run")
    shards = broken / "run/bank/shards"
    for i in range(10):
        process = start(broken, *command, script=LIGHT)
        # Before the bank is there, before the first shard, between or within two of them.
        enough = len(list(shards.glob("[!.]*"))) + rng.randint(1, 4)
        end = time.monotonic() + rng.uniform(0.05, 2.0 if i % 2 else 20.0)
        while time.monotonic() < end and len(list(shards.glob("[!.]*"))) < enough:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.1))
        signum = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        process.send_signal(signum)
        process.communicate(timeout=PATIENCE)
        # Before Python is up, and when it ends, signals have their plain meaning.
        assert process.returncode in (1, -signum), signum
    assert 0 < len(list(shards.glob("[!.]*"))) < 50
    process = start(broken, *command, script=LIGHT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "of 200 simulations failed (" in out
    ours, theirs = Bank.open(broken / "run/bank"), Bank.open(whole / "run/bank")
    assert len(np.unique(ours.rows().seed)) == len(ours.rows()) == 200
    same_rows(ours, theirs)
    assert {"failed", "invalid", "killed"} <= set(ours.rows().status)
    assert leftovers(broken) == []
    assert verify(ours.path) == []


def test_random_faults_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several kinds at once on two workers: each row has what its own fault gives, and the line counts them."""
    path = frail(tmp_path, 120, share=0.2, pause=0.0)
    assert call("simulate", path, "--out", tmp_path / "run") == 0
    out = capsys.readouterr().out
    rows = Bank.open(tmp_path / "run/bank").rows()
    wanted = [expected(int(seed), 0.2) for seed in rows.seed]
    assert rows.status.tolist() == wanted
    counts = Counter(wanted)
    kinds = ", ".join(f"{counts[k]} {k}" for k in ("failed", "invalid", "timeout", "killed") if counts[k])
    assert f"round 1: {120 - counts['ok']} of 120 simulations failed ({kinds})" in out
    assert len(counts) >= 4


def expected(seed: int, share: float) -> str:
    """Status of a row of `FRAIL`, from the same random numbers."""
    rng = np.random.default_rng([seed, 7])
    if rng.random() < share:
        return ("failed", "failed", "killed", "killed", "failed", "failed", "timeout")[rng.integers(7)]
    return "invalid" if rng.random() < share / 3 else "ok"


def test_two_campaigns_fill_one_bank(tmp_path: Path) -> None:
    """At the same moment, two workers each: no harm, and few rows are simulated twice."""
    path = frail(tmp_path, 240, share=0.0, pause=0.03)
    alone = tmp_path / "alone"
    assert call("simulate", frail(alone, 240, share=0.0, pause=0.0), "--out", alone / "run") == 0
    shared = config(
        tmp_path,
        simulator={"kind": "frail:Frail", "share": 0.0, "pause": 0.03},
        inference={"rounds": [240]},
        bank={"path": "bank"},
        executor={"workers": 2},
    )
    assert shared == path
    processes = [start(tmp_path, "simulate", path, "--out", tmp_path / name, script=LIGHT) for name in ("a", "b")]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    bank = Bank.open(tmp_path / "bank")
    assert len(bank.plans()) == 1
    rows, other = bank.rows(), Bank.open(alone / "run/bank").rows()
    assert rows.theta.tobytes() == other.theta.tobytes()
    assert rows.counts() == {"ok": 240}
    simulated = (tmp_path / "simulated").read_text().split()
    assert set(simulated) == {str(seed) for seed in rows.seed}
    tries = 2 * 3  # of each campaign, to see whether the simulator keeps to its seed
    assert len(simulated) - tries <= 240 + 4 * 4, "at most the shards that were in flight at the end are made twice"
    assert leftovers(tmp_path / "bank") == []
    assert verify(bank.path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    with mounted(tmp_path / "disk", "size=2m") as folder:
        yield folder


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a disk in memory at `folder` for as long as the block takes; unmount those of tests that were killed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    for source, place, *_ in map(str.split, Path("/proc/mounts").read_text().splitlines()):
        name, _, process = source.partition("-of-")
        if name == DISK and not Path("/proc", process).exists():
            subprocess.run(["umount", "-l", place], check=True)
    folder.mkdir()
    source = f"{DISK}-of-{os.getpid()}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, source, str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("this machine lets no tmpfs be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 60_000, 700_000])
def test_a_full_disk(small_disk: Path, tmp_path: Path, room: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named, nothing half is left, and when there is room again the same command goes on."""
    ballast = small_disk / "ballast"
    (tmp_path / "frail.py").write_text(FRAIL)
    path = config(
        tmp_path,
        simulator={"kind": "gaussian-field", "cells": 64, "box_length": 64.0},
        inference={"rounds": [60]},
        bank={"path": "disk/bank"},
    )
    command = ("simulate", path, "--out", tmp_path / "run")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - room))
    code = call(*command)
    errors = capsys.readouterr().err
    assert code == (2 if "folder cannot be written" in errors else 1), errors
    assert len(errors.splitlines()) == 1
    assert str(small_disk / "bank") in errors
    # Where the bank can be begun at all, preflight has compared its size with the disk.
    assert ("No space left on device" if room == 0 else "make room, or give [bank] path") in errors
    assert leftovers(tmp_path) == []
    ballast.unlink()
    assert call(*command) == 0
    bank = Bank.open(small_disk / "bank")
    assert bank.rows().counts() == {"ok": 60}
    assert verify(bank.path) == []


def test_a_folder_that_has_become_read_only(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator = GaussianField(cells=8)
    bank = Bank.create(small_disk / "bank", simulator)
    plan = bank.add(a_plan(6, 2))
    write(bank, plan, 0, simulator)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    message = r"disk/bank/claims: cannot be written \(Read-only file system"
    with pytest.raises(WorkError, match=message), local_executor(1) as executor:
        fill(bank, plan, simulator, executor)
    assert call("bank", "verify", small_disk / "bank") == 0
    assert "2 rows are whole" in capsys.readouterr().out
    path = config(tmp_path, bank={"path": "disk/bank"}, simulator={"box_length": None})
    assert call("simulate", path, "--out", tmp_path / "run") == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"eorinfer: {small_disk}/bank/rounds/")
    assert "cannot be written (Read-only file system)" in errors
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with local_executor(1) as executor:
        assert fill(bank, plan, simulator, executor) == {"ok": 4}


def test_campaigns_of_one_process_share_the_work(tmp_path: Path) -> None:
    """Claims keep two campaigns apart also where each looks at every shard."""
    simulator = GaussianField(cells=256)  # slow beside the start of a thread
    bank = Bank.create(tmp_path, simulator)
    plan = bank.add(a_plan(60, 1))

    def one(_: int) -> Counter[str]:
        with ThreadPoolExecutor(1) as executor:
            return fill(bank, plan, simulator, executor)

    with ThreadPoolExecutor(2) as threads:
        a, b = threads.map(one, range(2))
    assert 60 <= a["ok"] + b["ok"] <= 64
    assert min(a["ok"], b["ok"]) > 10
    assert list((tmp_path / "claims").iterdir()) == []
