"""What does the coordinator of a campaign carry? A cheap simulator on a Dask cluster of this machine.

    python -m benchmarks.scale_out --rows 100000 --workers 8

Prints rows per second, the memory of the coordinator (client and scheduler are one process here) at each tenth of the
campaign, and the bytes that went through its sockets, as the kernel counts them (Linux).
"""

import argparse
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from eorinfer import Bank, fill
from eorinfer.bank.rows import Plan
from eorinfer.campaign.executors import open_executor
from eorinfer.campaign.fill import ShardReport
from eorinfer.settings.tables import ExecutorSettings
from simulators import build

#: Offsets of bytes_acked and bytes_received in Linux's struct tcp_info.
ACKED, RECEIVED = 120, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--shard-rows", type=int, default=256)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scale-out-"))
    try:
        measure(folder, arguments.rows, arguments.workers, arguments.cells, arguments.shard_rows)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, rows: int, workers: int, cells: int, shard_rows: int) -> None:
    """Fill a bank and print the figures."""
    simulator = build({"kind": "gaussian-field", "cells": cells, "box_length": float(cells)})
    bank = Bank.create(folder / "bank", simulator)
    theta = np.random.default_rng(0).uniform([-2.0, -3.0], [3.0, 0.0], (rows, 2))
    plan = bank.add(Plan("01-bench", 1, "prior", shard_rows, theta, np.arange(rows, dtype=np.uint64)))
    done = 0
    marks: list[tuple[int, float]] = []
    sockets = Sockets()

    def report(what: ShardReport) -> None:
        nonlocal done
        done += what.rows
        if done >= (len(marks) + 1) * rows / 10:
            marks.append((done, resident()))

    with open_executor(ExecutorSettings(kind="dask", workers=workers), folder) as executor:
        before, start = resident(), time.monotonic()
        with sockets:
            counts = fill(bank, plan, simulator, executor, report=report)
        seconds = time.monotonic() - start
    data = rows * bank.bytes_per_row
    sent, received = sockets.total()
    print(f"{rows} rows in {plan.shards} shards on {workers} workers, {os.cpu_count()} cores: {dict(counts)}")
    print(f"{seconds:.1f} s, {rows / seconds:.0f} rows per second")
    print(f"coordinator's memory in MB: {before:.0f} before; at each tenth", *(f"{m:.0f}" for _, m in marks))
    print(
        f"through its sockets: {sent / 1e6:.2f} MB sent, {received / 1e6:.2f} MB received, "
        f"{(sent + received) / plan.shards / 1e3:.1f} kB a shard; the arrays are {data / 1e6:.0f} MB"
    )


class Sockets:
    """Bytes through the TCP sockets of this process, looked at twice a second; those within it count at both ends."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, int]] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Sockets":
        self._first = bytes_of_sockets()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def total(self) -> tuple[int, int]:
        """Bytes sent and received."""
        zero = (0, 0)
        sent, received = (
            sum(last[i] - self._first.get(name, zero)[i] for name, last in self._last.items()) for i in range(2)
        )
        return sent, received

    def _look(self) -> None:
        while True:
            ended = self._ended.wait(0.5)
            self._last |= bytes_of_sockets()
            if ended:
                return


def bytes_of_sockets() -> dict[str, tuple[int, int]]:
    """Read the bytes that each TCP socket of this process, by its inode, has sent and received."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            inode = os.readlink(f"/proc/self/fd/{name}")
            if not inode.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            continue  # closed meanwhile, or not TCP
        found[inode] = (struct.unpack_from("Q", info, ACKED)[0], struct.unpack_from("Q", info, RECEIVED)[0])
    return found


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
