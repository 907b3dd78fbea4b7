"""The simulation bank: a folder of immutable HDF5 shards that any number of processes may fill.

Layout::

    bank.json            format, simulator and fingerprint, parameters, observables, versions
    rounds/ID.h5         plan of a round: theta, seeds, hash of the proposal
    shards/ID-00000.h5   simulations: one row a simulation, one chunk an array
    claims/              empty files: shards in the making, a hint for other campaigns

Every file is written whole and never changed afterwards; listing the files shows what is missing. A shard is replaced
as a whole where rows that failed are simulated again; its other rows stay the same, bit for bit.
"""

import itertools
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank import description
from eorinfer.bank.chunks import Chunks
from eorinfer.bank.claims import claim
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.shards import (
    DAMAGE,
    FORMAT,
    first_line,
    read_columns,
    read_plan,
    write_plan,
    write_rows,
)
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import elsewhere, make_folder, read_versioned, write_json
from eorinfer.core.reading import refuse_surroundings
from simulators import Observable, Parameter, Simulator

FOLDERS = ("shards", "rounds", "claims")


class Bank:
    """A bank on disk; the module's docstring lists its files.

    Examples
    --------
    >>> from eorinfer import Bank
    >>> bank = Bank.open("runs/gaussian/bank")
    >>> rows = bank.rows().ok
    >>> bank.read("field", rows[:2]).shape
    (2, 1, 8, 8)
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        # Places of the arrays of a shard, and which of its rows have been checked.
        self._chunks: dict[tuple[str, str], tuple[Chunks, NDArray[np.bool_]]] = {}

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in self.rows().counts().items()) or "no rows yet"
        arrays = ", ".join(f"{o.name} {' x '.join(map(str, o.shape))}" for o in self.observables)
        size = sum(file.lstat().st_size for file in (self.path / "shards").glob("*.h5"))
        return f"Bank({self.path}: {counts}; {arrays}; {size / 1e6:.1f} MB)"

    @classmethod
    def create(cls, path: Path, simulator: Simulator) -> "Bank":
        """Open the bank at `path` for this simulator; make it if it does not exist.

        A bank that cannot be written is opened for what it has.

        Raises
        ------
        InputError
            If the folder holds the bank of another simulator, or cannot be written.
        """
        path = Path(path)
        if os.path.lexists(path / "bank.json"):
            bank = cls.open(path)
            description.refuse_other(path, bank.description, simulator)
            if not bank.writable:
                return bank
        for folder in (path, *(path / name for name in FOLDERS)):
            make_folder(folder)
        if not (path / "bank.json").exists():
            content = description.describe(simulator)
            content["fingerprint"] = description.fingerprint_of_shards(path, simulator)
            write_json(path / "bank.json", content, first_wins=True)
        bank = cls.open(path)
        description.refuse_other(path, bank.description, simulator)
        return bank

    @classmethod
    def open(cls, path: Path) -> "Bank":
        """Open an existing bank.

        Raises
        ------
        InputError
            If there is no bank, or this version does not read its format.
        """
        path = Path(path)
        file = path / "bank.json"
        if not os.path.lexists(file):
            raise InputError(f"{path}: no bank here (bank.json is missing){elsewhere(path, 'bank.json')}")
        for name in FOLDERS[:2]:
            folder = path / name
            if folder.is_symlink():  # what is set aside must not come from elsewhere
                raise InputError(f"{folder}: is a symbolic link, not a folder; link the bank as a whole")
            if os.path.lexists(folder) and not folder.is_dir():
                raise InputError(f"{folder}: is not a folder")
        bank = cls(path, read_versioned(file, FORMAT, links=False))
        try:
            description.check(bank.description)
        except DAMAGE as error:
            raise InputError(f"{file}: cannot be read as a bank's description ({first_line(error)})") from error
        return bank

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The P parameters, in the order of theta."""
        return description.parameters_of(self.description)

    @cached_property
    def observables(self) -> tuple[Observable, ...]:
        """The arrays of a row; the first one is the image."""
        return description.observables_of(self.description)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the simulator that fills the bank."""
        return str(self.description["fingerprint"])

    @property
    def writable(self) -> bool:
        """Whether plans and shards can be added, as far as the permissions of the folders tell."""
        folders = (self.path, *(self.path / name for name in FOLDERS))
        return all(os.access(folder, os.W_OK) for folder in folders if folder.exists())

    @property
    def bytes_per_row(self) -> int:
        """Size of one row on disk in bytes."""
        return sum(o.nbytes for o in self.observables)

    def add(self, plan: Plan) -> Plan:
        """Write a plan whole; the same plan is kept if it exists already."""
        path = self.path / "rounds" / f"{plan.id}.h5"
        if not os.path.lexists(path):
            write_plan(path, plan)
        return self.plan(plan.id)

    def has(self, plan: Plan) -> bool:
        """Tell whether the bank has a plan and all of its shards."""
        return os.path.lexists(self.path / "rounds" / f"{plan.id}.h5") and not self.missing(plan)

    def note(self, plan: Plan, warnings: Sequence[str]) -> None:
        """Keep in ``bank.json`` that a round was imported, after those before it, and what was said of its rows."""
        content = Bank.open(self.path).description
        notes, imports = content.get("notes", {}), content.get("imports", [])
        now = {key: note for key, note in notes.items() if key != plan.id}
        if warnings:
            now[plan.id] = {"proposal": plan.proposal, "warnings": list(warnings)}
        changed = content | {"notes": now, "imports": imports if plan.id in imports else [*imports, plan.id]}
        if changed != content:
            write_json(self.path / "bank.json", changed)
            self.description = changed

    def notes(self, proposal: str) -> list[str]:
        """Return what was said at the import of rows of this proposal."""
        kept = self.description.get("notes", {}).values()
        return [text for note in kept if note["proposal"] == proposal for text in note["warnings"]]

    def plan(self, id: str) -> Plan:
        """Read the plan of one round."""
        path = self.path / "rounds" / f"{id}.h5"
        if path.name != f"{id}.h5":  # with a slash or dots it would be a file elsewhere
            raise InputError(f"{self.path}: {id!r} is no name of a round")
        try:
            return read_plan(path)
        except DAMAGE as error:
            refuse_surroundings(path, error)
            raise self._damaged(path, "cannot be read as the plan of a round", error) from error

    def plans(self) -> list[Plan]:
        """Read the plans of all rounds, in the order of their names, and imports in that of their coming."""
        place = {id: i for i, id in enumerate(self.description.get("imports", []))}
        ids = [path.stem for path in (self.path / "rounds").glob("[!.]*.h5")]
        return [self.plan(id) for id in sorted(ids, key=lambda id: (place.get(id, -1), id))]

    def shard_path(self, plan: Plan, shard: int) -> Path:
        """Return the file of one shard."""
        return self.path / "shards" / f"{plan.id}-{shard:05d}.h5"

    def missing(self, plan: Plan, rows: int | None = None) -> list[int]:
        """List the missing shards of a plan's first `rows` rows; by default of all rows."""
        shards = plan.shards if rows is None else -(-min(rows, len(plan)) // plan.shard_rows)
        # A copy may lack an empty folder.
        there = set(os.listdir(self.path / "shards")) if (self.path / "shards").is_dir() else set()
        return [i for i in range(shards) if self.shard_path(plan, i).name not in there]

    def write_shard(
        self,
        plan: Plan,
        shard: int,
        *,
        status: Sequence[str],
        message: Sequence[str],
        seconds: Sequence[float],
        arrays: dict[str, NDArray[np.float32]],
        replace: bool = False,
    ) -> None:
        """Write one shard whole. If another process was first, its shard is kept.

        Parameters
        ----------
        plan, shard
            Plan of the round, and number of the shard in it.
        status, message, seconds
            Status, message and seconds of each of the shard's n rows.
        arrays
            Array (n, C, *cells) of each observable; rows that are not ``ok`` hold zeros.
        replace
            Replace a shard in one step, by one whose rows that were ``ok`` are the same.
        """
        write_rows(
            self.shard_path(plan, shard),
            plan,
            shard,
            fingerprint=self.fingerprint,
            status=status,
            message=message,
            seconds=seconds,
            arrays={o.name: np.asarray(arrays[o.name], np.float32) for o in self.observables},
            replace=replace,
        )

    def rows(self, plans: Sequence[Plan] | None = None) -> Rows:
        """Read all simulated rows of these plans; by default of all plans."""
        plans = self.plans() if plans is None else plans
        shards = [
            self.read_rows(self.shard_path(plan, i))
            for plan in plans
            for i in range(plan.shards)
            if os.path.lexists(self.shard_path(plan, i))
        ]
        return Rows.concatenate(shards) if shards else Rows.none(len(self.parameters))

    def read_rows(self, path: Path) -> Rows:
        """Read the rows of one shard without their arrays.

        Raises
        ------
        InputError
            If the file is not a whole shard.
        """
        try:
            columns = read_columns(path)
        except DAMAGE as error:
            refuse_surroundings(path, error)
            raise self._damaged(path, "not a whole shard", error) from error
        n = len(columns["theta"])
        return Rows(**columns, shard=np.full(n, path.name), index=np.arange(n))

    def read(self, observable: str, rows: Rows, *, check: bool = False) -> NDArray[np.float32]:
        """Read the arrays (n, C, *cells) of these rows, in their order.

        Parameters
        ----------
        observable
            Name of the observable.
        rows
            Rows to read.
        check
            Compare every checksum; else each row's is compared once while the bank is open.

        Raises
        ------
        InputError
            If there is no such observable, or a shard is damaged; the message names it.
        """
        shape = next((o.shape for o in self.observables if o.name == observable), None)
        if shape is None:
            there = ", ".join(o.name for o in self.observables)
            raise InputError(f"{self.path}: has no observable {observable!r}, but {there}")
        if not isinstance(rows, Rows):
            raise InputError(
                f"{self.path}: rows are those of bank.rows(), such as bank.rows().ok[:8], not {rows!r:.40}"
            )
        try:
            out = np.empty((len(rows), *shape), np.float32)
        except MemoryError as error:
            size = 4e-9 * len(rows) * math.prod(shape)
            raise WorkError(f"{self.path}: {len(rows)} rows of {observable} take {size:.3g} GB of memory") from error
        folder = str(self.path / "shards")  # a batch opens as many files as it has rows: pathlib would count
        # In the order on disk.
        order = np.lexsort((rows.index, rows.shard))
        names, indices = rows.shard.tolist(), rows.index.tolist()
        for name, group in itertools.groupby(order.tolist(), key=names.__getitem__):
            try:
                file = os.open(f"{folder}/{name}", os.O_RDONLY)
                try:
                    chunks, seen = self._chunks_of(name, observable, shape, file)
                    for i in group:
                        row = indices[i]
                        chunks.read(file, row, out[i], check=check or not seen[row])
                        seen[row] = True
                finally:
                    os.close(file)
            except DAMAGE as error:
                refuse_surroundings(f"{folder}/{name}", error)
                raise self._damaged(f"{folder}/{name}", f"{observable} cannot be read", error) from error
        return out

    def checksums(self, observable: str, rows: Rows) -> NDArray[np.uint32]:
        """Read the CRC-32 (n,) of these rows' arrays, as they were written; the arrays are not read."""
        shape = next(o.shape for o in self.observables if o.name == observable)
        out = np.empty(len(rows), np.uint32)
        for name in np.unique(rows.shard).tolist():
            path, own = self.path / "shards" / name, rows.shard == name
            try:
                out[own] = Chunks.from_file(path, observable, shape).checksums[rows.index[own]]
            except DAMAGE as error:
                refuse_surroundings(path, error)
                raise self._damaged(path, f"{observable} cannot be read", error) from error
        return out

    def claim(self, plan: Plan, shard: int) -> AbstractContextManager[bool]:
        """Claim a shard for the block, which receives whether nobody else had claimed it."""
        return claim(self.path / "claims", self.shard_path(plan, shard).stem)

    def _chunks_of(
        self, name: str, observable: str, shape: tuple[int, ...], file: int
    ) -> tuple[Chunks, NDArray[np.bool_]]:
        indexed = self._chunks.get((name, observable))
        # A shard that was set aside and simulated again has another index.
        if indexed is None or not indexed[0].fits(file):
            chunks = Chunks.from_file(self.path / "shards" / name, observable, shape)
            indexed = self._chunks[name, observable] = chunks, np.zeros(len(chunks.offsets), bool)
        return indexed

    def _damaged(self, file: Path | str, problem: str, error: Exception) -> InputError:
        """Return the error to raise for a damaged file of the bank."""
        command = f"eorinfer bank verify {quote(str(self.path))} --repair"
        return InputError(f"{file}: {problem} ({first_line(error)}); `{command}` sets it aside")
