"""The HDF5 files of a bank: datasets and attributes of plans and shards, written and read."""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.chunks import DamageError, checksums, own_dataset
from eorinfer.bank.rows import Plan
from eorinfer.core.files import whole_hdf5
from eorinfer.core.hdf5 import opened_id
from eorinfer.core.reading import ForeignFileError, refuse_foreign

FORMAT = 2
#: HDF5 layout whose index of chunks has checksums; the oldest layout has none.
LAYOUT = ("v110", "v110")
#: Settings of a dataset with a checksum for each chunk; only chunks can have one.
CHECKED: dict[str, Any] = {"chunks": True, "fletcher32": True}
#: Errors that are raised when a file is not what it was.
DAMAGE = (
    *(OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError),
    *(DamageError, ForeignFileError),
)
#: Columns of a shard besides its arrays, each a dataset of one chunk.
COLUMNS = ("theta", "seed", "round", "status", "message", "seconds")
#: Column of plans and shards whose simulator has worlds.
WORLD = "world"
#: Attributes of a shard from which a lost plan is made again.
OF_PLAN = ("number", "proposal", "shard_rows", "plan_rows")


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan whole; an existing file is kept."""
    with whole_hdf5(path, first_wins=True, libver=LAYOUT) as file:
        columns = {"theta": plan.theta, "seed": plan.seed} | ({} if plan.world is None else {WORLD: plan.world})
        file.attrs.update(format=FORMAT, crc32=_crc32(list(columns.values())), **_of_plan(plan))
        for name, column in columns.items():
            file.create_dataset(name, data=column, **CHECKED)


def read_plan(path: Path) -> Plan:
    """Read a plan; whatever is wrong raises one of `DAMAGE`."""
    with _opened(path) as (file, size):
        theta, seed = (_column(file, name, size) for name in ("theta", "seed"))
        world = _column(file, WORLD, size) if WORLD.encode() in file else None
        facts = {name: _attribute(file, name) for name in ("crc32", "number", "shard_rows", "proposal")}
    if _crc32([theta, seed, *([] if world is None else [world])]) != facts["crc32"]:
        raise DamageError("theta or seeds have another checksum than when they were written")
    same = seed.shape == theta.shape[:1] and (world is None or world.shape == seed.shape)
    if theta.ndim != 2 or not same or facts["shard_rows"] < 1:
        raise DamageError(
            f"theta {theta.shape}, seeds {seed.shape} and {facts['shard_rows']} rows in a shard are no plan"
        )
    return Plan(path.stem, int(facts["number"]), str(facts["proposal"]), int(facts["shard_rows"]), theta, seed, world)


def write_rows(
    path: Path,
    plan: Plan,
    shard: int,
    *,
    fingerprint: str,
    status: Sequence[str],
    message: Sequence[str],
    seconds: Sequence[float],
    arrays: dict[str, NDArray[np.float32]],
    replace: bool = False,
) -> None:
    """Write one shard whole; an existing file is kept unless `replace`. Parameters as in `Bank.write_shard`."""
    rows = plan.rows(shard)
    # Text is of fixed length everywhere: HDF5 keeps other text in a heap without a
    # checksum, and reading a damaged heap can go on for ever.
    columns = {
        "theta": plan.theta[rows],
        "seed": plan.seed[rows],
        "round": np.full(rows.stop - rows.start, plan.number, np.int64),
        "status": _encoded(status),
        "message": _encoded(message),
        "seconds": np.asarray(seconds, np.float64),
    }
    if plan.world is not None:
        columns[WORLD] = plan.world[rows]
    with whole_hdf5(path, first_wins=not replace, libver=LAYOUT) as file:
        file.attrs.update(
            format=FORMAT,
            fingerprint=np.bytes_(fingerprint),
            crc32=_crc32(list(columns.values())),
            # With these and the rows of its shards a damaged plan can be restored.
            plan_rows=len(plan),
            **_of_plan(plan),
        )
        for name, column in columns.items():
            file.create_dataset(name, data=column, **CHECKED)
        for name, array in arrays.items():
            # One row is one chunk, so that a random row is one read.
            file.create_dataset(f"observables/{name}", data=array, chunks=(1, *array.shape[1:]), fletcher32=True)
            file.create_dataset(f"crc32/{name}", data=checksums(array), **CHECKED)


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """All of `COLUMNS`, and the worlds where there are any; whatever is wrong raises one of `DAMAGE`."""
    with _opened(path) as (file, size):
        names = (*COLUMNS, WORLD) if WORLD.encode() in file else COLUMNS
        columns = {name: _column(file, name, size) for name in names}
        crc32 = _attribute(file, "crc32")
    if _crc32(list(columns.values())) != crc32:
        raise DamageError("its rows have another checksum than when they were written")
    return columns | {name: _text(columns[name]) for name in ("status", "message")}


def attributes(path: Path) -> dict[str, Any]:
    """Read a shard's attributes, which also describe its plan; any damage raises one of `DAMAGE`."""
    with _opened(path) as (file, _):
        names = [name for name in ("fingerprint", *OF_PLAN) if h5py.h5a.exists(file, name.encode())]
        return {name: _attribute(file, name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.h5f.FileID, int]]:
    """Open a regular file for reading; with it comes its size in bytes."""
    refuse_foreign(path)
    # By h5py's lower layer: a bank of 100,000 rows has 400 shards, and they are to open in half a second.
    file = opened_id(path)
    try:
        yield file, os.stat(path).st_size
    finally:
        file.close()


def _column(file: h5py.h5f.FileID, name: str, size: int) -> NDArray[Any]:
    dataset = own_dataset(file, name, size)
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _attribute(file: h5py.h5f.FileID, name: str) -> Any:
    """Read a number or a text of fixed length; what points into a heap of the file is not read."""
    attribute = h5py.h5a.open(file, name.encode())
    if attribute.shape != () or attribute.dtype.kind not in "iuS":
        raise DamageError(f"its attribute {name} is no number or text")
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    return value.item().decode(errors="replace") if attribute.dtype.kind == "S" else value.item()


def first_line(error: Exception) -> str:
    """Return the message of an error without HDF5's stack."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _of_plan(plan: Plan) -> dict[str, Any]:
    return {"number": plan.number, "proposal": np.bytes_(plan.proposal), "shard_rows": plan.shard_rows}


def _crc32(arrays: Sequence[NDArray[Any]]) -> np.uint32:
    return np.uint32(zlib.crc32(b"".join(array.tobytes() for array in arrays)))


def _encoded(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def _text(column: NDArray[np.bytes_]) -> NDArray[np.str_]:
    # Most texts are the same, and decoding is slow.
    unique, inverse = np.unique(column, return_inverse=True)
    return np.char.decode(unique, "utf-8")[inverse]
