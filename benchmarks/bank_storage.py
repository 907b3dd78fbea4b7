"""How fast is a bank beside a plain array on the same disk? Opening, random batches, verification.

    python -m benchmarks.bank_storage --rows 100000 --cells 32

"Cold" is after the operating system was told to forget the files, "warm" after they were read once.
Needs twice the bank's size on the disk of --folder, for the plain array beside it.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eorinfer import Bank
from eorinfer.bank.rows import Plan
from eorinfer.bank.verify import verify
from simulators import build

SHARD_ROWS = 256
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure; by default the temporary one"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bank-storage-", dir=arguments.folder))
    size = arguments.rows * 4 * arguments.cells**3
    free = shutil.disk_usage(folder).free
    try:
        if 2.1 * size > free:
            raise SystemExit(f"needs {2.1 * size / 1e9:.0f} GB, {folder} has {free / 1e9:.0f} GB left")
        measure(folder, arguments.rows, arguments.cells, arguments.batches)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, rows: int, cells: int, batches: int) -> None:
    """Print one line for each figure."""
    seconds, path = timed(lambda: make(folder, rows, cells))
    files = [*path.rglob("*.h5"), folder / "plain.npy"]
    gigabytes = rows * 4 * cells**3 / 1e9
    print(f"{rows} rows of {cells}^3 float32, {gigabytes:.2f} GB; written twice in {seconds:.0f} s")
    for state in ("cold", "warm"):
        if state == "cold":
            forget(files)
        seconds, found = timed(lambda: Bank.open(path).rows())
        print(f"open, {state}: {seconds:.3f} s for {len(found)} rows")
    bank = Bank.open(path)
    found = bank.rows()
    plain = np.load(folder / "plain.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    chosen = [rng.choice(rows, BATCH, replace=False) for _ in range(batches)]

    for state in ("cold, checksums compared", "warm, checksums compared", "warm, rows seen before"):
        if state.startswith("cold"):
            forget(files)
        if state.startswith("warm, checksums"):
            # Both anew: a memmap's first look at a page costs more than a later one, too.
            bank, plain = Bank.open(path), np.load(folder / "plain.npy", mmap_mode="r")
        # One batch of each in turn: what else the machine does meets both.
        pairs = [
            (timed(lambda: bank.read("field", found[batch]))[0], timed(lambda: np.array(plain[batch]))[0])  # noqa: B023
            for batch in chosen
        ]
        ours, theirs = 1e3 * np.median(pairs, axis=0)
        mean = 1e3 * np.mean(pairs, axis=0)
        print(
            f"batches of {BATCH}, {state}: bank {ours:.2f} ms (mean {mean[0]:.2f}), memmap {theirs:.2f} ms "
            f"(mean {mean[1]:.2f}), {theirs / ours:.2f} of the memmap's speed (of the means {mean[1] / mean[0]:.2f})"
        )
    shards = sorted((path / "shards").glob("*.h5"))
    for state in ("cold", "warm"):
        if state == "cold":
            forget(files)
        plainly = timed(lambda: deque(map(read_plainly, shards)))[0]
        if state == "cold":
            forget(files)
        seconds, problems = timed(lambda: verify(path))
        assert not problems
        print(
            f"verify, {state}: {seconds:.1f} s, {gigabytes / seconds:.2f} GB/s; reading the files only: "
            f"{plainly:.1f} s, {gigabytes / plainly:.2f} GB/s"
        )


def make(folder: Path, rows: int, cells: int) -> Path:
    """The bank, and beside it the same rows as one plain array."""
    simulator = build({"kind": "gaussian-field", "dimension": 3, "cells": cells, "box_length": float(cells)})
    bank = Bank.create(folder / "bank", simulator)
    rng = np.random.default_rng(0)
    theta = rng.uniform([p.low for p in bank.parameters], [p.high for p in bank.parameters], (rows, 2))
    plan = bank.add(Plan("01-bench", 1, "prior", SHARD_ROWS, theta, np.arange(rows, dtype=np.uint64)))
    shape = (1, cells, cells, cells)
    plain = np.lib.format.open_memmap(folder / "plain.npy", "w+", np.float32, (rows, *shape))
    for shard in range(plan.shards):
        part = plan.rows(shard)
        n = len(range(*part.indices(rows)))
        arrays = rng.standard_normal((n, *shape), dtype=np.float32)
        bank.write_shard(plan, shard, status=["ok"] * n, message=[""] * n, seconds=[0.1] * n, arrays={"field": arrays})
        plain[part] = arrays
    plain.flush()
    return folder / "bank"


def forget(files: list[Path]) -> None:
    """Ask the operating system to drop these files from its memory."""
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_plainly(file: Path) -> None:
    """Read a file to its end and forget what is in it."""
    buffer = bytearray(1 << 23)
    with file.open("rb", buffering=0) as content:
        while content.readinto(buffer):
            pass


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
