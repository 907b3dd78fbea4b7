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
import json
import math
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simulators
from eorinfer.bank.chunks import Chunks, DamageError
from eorinfer.bank.claims import claim
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.shards import (
    DAMAGE,
    FORMAT,
    attributes,
    first_line,
    read_columns,
    read_plan,
    write_plan,
    write_rows,
)
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder, read_versioned, remove_leftovers, write_json
from eorinfer.core.reading import refuse_surroundings
from simulators import Observable, Parameter, Simulator
from simulators.registry import earlier_fingerprints, own_sources
from simulators.sources import digests, root_of

FOLDERS = ("shards", "rounds", "claims")
#: Largest size of one array of a row in bytes.
MOST_OF_A_ROW = 64e9


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
            bank.refuse_other(simulator)
            if not bank.writable:
                return bank
        for name in FOLDERS:
            make_folder(path / name)
        if not (path / "bank.json").exists():
            content = _describe(simulator)
            content["fingerprint"] = _fingerprint_of_shards(path, simulator)
            write_json(path / "bank.json", content, first_wins=True)
        bank = cls.open(path)
        bank.refuse_other(simulator)
        for folder in (path, *(path / name for name in FOLDERS)):
            remove_leftovers(folder)
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
            raise InputError(f"{path}: no bank here (bank.json is missing)")
        for name in FOLDERS[:2]:
            folder = path / name
            if folder.is_symlink():  # what is set aside must not come from elsewhere
                raise InputError(f"{folder}: is a symbolic link, not a folder; link the bank as a whole")
            if os.path.lexists(folder) and not folder.is_dir():
                raise InputError(f"{folder}: is not a folder")
        bank = cls(path, read_versioned(file, FORMAT, links=False))
        try:
            bank.check_description()
        except DAMAGE as error:
            raise InputError(f"{file}: cannot be read as a bank's description ({first_line(error)})") from error
        return bank

    def check_description(self) -> None:
        """Make sure that the description has what a bank needs, and no name or size that is none.

        Raises
        ------
        DamageError, and others of `DAMAGE`
            If it does not.
        """
        if not (self.parameters and self.observables and self.fingerprint and isinstance(self.simulator_kind, str)):
            raise DamageError("parameters, observables, simulator or fingerprint are missing")
        for note in self.description.get("notes", {}).values():
            texts = [note["proposal"], *note["warnings"]]
            if not all(isinstance(text, str) and text.isprintable() for text in texts):
                raise DamageError("a note of an import is no plain text")
        for o in self.observables:
            if not isinstance(o.name, str) or not o.name or "/" in o.name or o.name in (".", ".."):
                raise DamageError(f"{o.name!r} is no name of an observable")
            sizes = all(isinstance(n, int) and n > 0 for n in o.shape)
            if len(o.shape) < 2 or not sizes or 4 * math.prod(o.shape) > MOST_OF_A_ROW:
                raise DamageError(f"{o.name} of a row cannot have the shape {o.shape}")

    @property
    def simulator_kind(self) -> str:
        """Kind of the simulator that fills the bank."""
        kind: str = self.description["simulator"]["kind"]
        return kind

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The P parameters, in the order of theta."""
        return tuple(Parameter(**p) for p in self.description["parameters"])

    @cached_property
    def observables(self) -> tuple[Observable, ...]:
        """The arrays of a row; the first one is the image."""
        return tuple(observable_from_json(o) for o in self.description["observables"])

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
        """Keep what was said of a round's rows when they were imported, or that nothing was, in ``bank.json``."""
        content = Bank.open(self.path).description
        notes = content.get("notes", {})
        now = {key: note for key, note in notes.items() if key != plan.id}
        if warnings:
            now[plan.id] = {"proposal": plan.proposal, "warnings": list(warnings)}
        if now != notes:
            write_json(self.path / "bank.json", content | {"notes": now})
            self.description = content | {"notes": now}

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
        """Read the plans of all rounds, in the order of their names."""
        return [self.plan(path.stem) for path in sorted((self.path / "rounds").glob("[!.]*.h5"))]

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
            If a shard is damaged; the message names it.
        """
        shape = next(o.shape for o in self.observables if o.name == observable)
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
        return InputError(
            f"{file}: {problem} ({first_line(error)}); `eorinfer bank verify {self.path} --repair` sets it aside"
        )

    def refuse_other(self, simulator: Simulator) -> None:
        """Compare the simulator with the bank's.

        Raises
        ------
        InputError
            If it is another one; the message names the settings that differ.
        """
        ours = simulators.fingerprint(simulator)
        if self.fingerprint in (ours, *earlier_fingerprints(simulator)) or self._differs_in_texts(simulator):
            return
        old, new = self.description["simulator"], json.loads(json.dumps(simulator.settings()))
        # A setting that an old bank does not know, at the value that changes nothing, is no difference.
        later = getattr(type(simulator), "later", {})
        changed = [
            f"{k}: bank {_brief(old.get(k))}, config {_brief(new.get(k))}"
            for k in sorted({*old, *new})
            if old.get(k, later.get(k)) != new.get(k)
        ]
        if "sources" in self.description:
            files = own_sources(simulator)
            before, now = self.description["sources"], digests(files)
            edited = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
            changed += [f"{_shown(name, files.get(name))} has been edited" for name in edited]
        remedy = simulator.remedy(old) if hasattr(simulator, "remedy") else ""
        raise InputError(
            f"{self.path}: holds the bank of another simulator (fingerprint {self.fingerprint}, "
            f"yours {ours}; {'; '.join(changed) or 'same settings, other version or source'}); "
            f"{remedy and remedy + '; else '}give another --out or [bank] path"
        )

    def _differs_in_texts(self, simulator: Simulator) -> bool:
        """Tell whether an older version's bank of imported cubes has other labels or units alone."""
        if simulator.kind != "imported" or self.description["simulator"].get("kind") != "imported":
            return False
        try:
            return simulators.build(self.description["simulator"]).fingerprint() == simulator.fingerprint()
        except ValueError:
            return False


def _shown(name: str, file: Path | None) -> str:
    """Name a module by its file, from the folder that its imports start from."""
    return name if file is None else str(file.relative_to(root_of(file, name)))


def _brief(value: object) -> str:
    """Write a setting; of a long list its length and ends."""
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} values from {value[0]!r} to {value[-1]!r}"
    return repr(value)


def observable_from_json(content: dict[str, Any]) -> Observable:
    """Make an observable from the JSON of its `dataclasses.asdict`."""
    fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    symmetry = fixed.pop("symmetry")
    return Observable(**fixed, symmetry=simulators.Symmetry(tuple(symmetry["periodic"]), symmetry["rotations"]))


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in ("eorinfer", "21cmFAST", "numpy", "scipy", "h5py", "torch", "sbi", "lightning", "emcee"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _describe(simulator: Simulator) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "simulator": simulator.settings(),
        "fingerprint": simulators.fingerprint(simulator),
        "parameters": [asdict(p) for p in simulator.parameters],
        "observables": [asdict(o) for o in simulator.observables],
        "packages": package_versions(),
    } | ({"sources": digests(files)} if (files := own_sources(simulator)) else {})


def _fingerprint_of_shards(path: Path, simulator: Simulator) -> str:
    """Return the fingerprint for a new description: that of the shards, where a bank has lost its own.

    Raises
    ------
    InputError
        If they are of another simulator.
    """
    ours = simulators.fingerprint(simulator)
    for shard in sorted((path / "shards").glob("[!.]*.h5"))[:1]:
        try:
            theirs = str(attributes(shard)["fingerprint"])
        except DAMAGE as error:
            refuse_surroundings(shard, error)
            theirs = f"not readable: {first_line(error)}"
        if theirs not in (ours, *earlier_fingerprints(simulator)):
            raise InputError(
                f"{path}: bank.json is missing, and {shard.name} is of another simulator (fingerprint {theirs}, "
                f"yours {ours}); give another --out or [bank] path"
            )
        return theirs
    return ours
