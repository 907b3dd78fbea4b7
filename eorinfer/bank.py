"""The simulation bank: a folder of immutable HDF5 shards that any number of processes may fill.

Layout::

    bank.json            format, simulator and fingerprint, parameters, observables, versions
    rounds/ID.h5         what is to be simulated: theta, seeds, hash of the proposal
    shards/ID-00000.h5   what was simulated: one row a simulation, one chunk an array

Every file is written whole and never changed afterwards; what is missing is found by listing.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import simulators
from eorinfer.errors import InputError
from eorinfer.files import make_folder, read_versioned, remove_leftovers, whole_file
from eorinfer.rows import STATUSES, Plan, Rows
from simulators import Observable, Parameter, Simulator

FORMAT = 1
#: A checksum for each chunk; only chunks can have one.
_CHECKED: dict[str, Any] = {"chunks": True, "fletcher32": True}
#: What h5py raises when a file is not what it was.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError)


class Bank:
    """A bank on disk; see the module's docstring for the files."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description

    @classmethod
    def create(cls, path: Path, simulator: Simulator) -> "Bank":
        """Open the bank at `path` for this simulator, and make it if there is none.

        Raises
        ------
        InputError
            If the folder holds the bank of another simulator, or cannot be written.
        """
        path = Path(path)
        make_folder(path / "shards")
        make_folder(path / "rounds")
        if not (path / "bank.json").exists():
            content = _describe(simulator)
            with whole_file(path / "bank.json", first_wins=True) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        bank = cls.open(path)
        bank._refuse_other(simulator)
        for folder in (path, path / "shards", path / "rounds"):
            remove_leftovers(folder)
        return bank

    @classmethod
    def open(cls, path: Path) -> "Bank":
        """Open a bank that exists.

        Raises
        ------
        InputError
            If there is none, or it has a format that this version does not read.
        """
        path = Path(path)
        if not (path / "bank.json").is_file():
            raise InputError(f"{path}: no bank here (bank.json is missing)")
        description = read_versioned(path / "bank.json", FORMAT)
        return cls(path, description)

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
    def bytes_per_row(self) -> int:
        """Disk that one row takes."""
        return sum(o.nbytes for o in self.observables)

    def add(self, plan: Plan) -> Plan:
        """Write a plan whole; if the same one is there already it is kept."""
        path = self.path / "rounds" / f"{plan.id}.h5"
        if not path.exists():
            with whole_file(path, first_wins=True) as temporary, _new_file(temporary) as file:
                file.attrs.update(
                    format=FORMAT,
                    number=plan.number,
                    proposal=np.bytes_(plan.proposal),
                    shard_rows=plan.shard_rows,
                )
                file.create_dataset("theta", data=plan.theta, **_CHECKED)
                file.create_dataset("seed", data=plan.seed, **_CHECKED)
        return self.plan(plan.id)

    def plan(self, id: str) -> Plan:
        """Read the plan of one round."""
        path = self.path / "rounds" / f"{id}.h5"
        try:
            with h5py.File(path, "r") as file:
                attrs = file.attrs
                return Plan(
                    id,
                    int(attrs["number"]),
                    attrs["proposal"].decode(),
                    int(attrs["shard_rows"]),
                    file["theta"][:],
                    file["seed"][:],
                )
        except _DAMAGE as error:
            raise InputError(f"{path}: cannot be read as the plan of a round ({_first_line(error)})") from error

    def plans(self) -> list[Plan]:
        """Plans of all rounds, in order of their names."""
        return [self.plan(path.stem) for path in sorted((self.path / "rounds").glob("[!.]*.h5"))]

    def shard_path(self, plan: Plan, shard: int) -> Path:
        """File of one shard."""
        return self.path / "shards" / f"{plan.id}-{shard:05d}.h5"

    def missing(self, plan: Plan, rows: int | None = None) -> list[int]:
        """Shards of the plan's first `rows` rows that are not there yet."""
        shards = plan.shards if rows is None else -(-min(rows, len(plan)) // plan.shard_rows)
        there = set(os.listdir(self.path / "shards"))
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
    ) -> None:
        """Write one shard whole. If another process was first, its shard stays.

        Parameters
        ----------
        status, message, seconds
            One for each of the shard's n rows.
        arrays
            For each observable (n, C, *cells); rows that are not ``ok`` hold zeros.
        """
        rows = plan.rows(shard)
        n = rows.stop - rows.start
        path = self.shard_path(plan, shard)
        with whole_file(path, first_wins=True) as temporary, _new_file(temporary) as file:
            # Text is of fixed length everywhere: HDF5 keeps other text in a heap without a
            # checksum, and reading a damaged heap can go on for ever.
            file.attrs.update(format=FORMAT, fingerprint=np.bytes_(self.fingerprint))
            file.create_dataset("theta", data=plan.theta[rows], **_CHECKED)
            file.create_dataset("seed", data=plan.seed[rows], **_CHECKED)
            file.create_dataset("round", data=np.full(n, plan.number, np.int64), **_CHECKED)
            file.create_dataset("seconds", data=np.asarray(seconds, np.float64), **_CHECKED)
            for name, texts in (("status", status), ("message", message)):
                length = max(1, *(len(text.encode()) for text in texts))
                dtype = h5py.string_dtype("utf-8", length)
                file.create_dataset(name, data=[t.encode() for t in texts], dtype=dtype, **_CHECKED)
            for observable in self.observables:
                # One row is one chunk, so that a random row is one read.
                file.create_dataset(
                    f"observables/{observable.name}",
                    data=np.asarray(arrays[observable.name], np.float32),
                    chunks=(1, *observable.shape),
                    fletcher32=True,
                )

    def rows(self, plans: Sequence[Plan] | None = None) -> Rows:
        """All rows that are there, of these plans or of all."""
        plans = self.plans() if plans is None else plans
        found = [
            self.read_rows(self.shard_path(plan, i))
            for plan in plans
            for i in range(plan.shards)
            if self.shard_path(plan, i).exists()
        ]
        return Rows.concatenate(found) if found else Rows.none(len(self.parameters))

    def read_rows(self, path: Path) -> Rows:
        """Everything of one shard but its arrays.

        Raises
        ------
        InputError
            If the file is not a whole shard.
        """
        try:
            with h5py.File(path, "r") as file:
                n = len(file["theta"])
                return Rows(
                    theta=file["theta"][:],
                    seed=file["seed"][:],
                    round=file["round"][:],
                    status=np.array(file["status"].asstr()[:], dtype=np.str_),
                    message=np.array(file["message"].asstr()[:], dtype=np.str_),
                    seconds=file["seconds"][:],
                    shard=np.full(n, path.name),
                    index=np.arange(n),
                )
        except _DAMAGE as error:
            raise InputError(
                f"{path}: not a whole shard ({_first_line(error)}); "
                f"`eorinfer bank verify {self.path} --repair` sets it aside"
            ) from error

    def read(self, observable: str, rows: Rows) -> NDArray[np.float32]:
        """Arrays of these rows, (n, C, *cells), in their order."""
        shape = next(o.shape for o in self.observables if o.name == observable)
        out = np.empty((len(rows), *shape), np.float32)
        for name in np.unique(rows.shard):
            here = np.flatnonzero(rows.shard == name)
            path = self.path / "shards" / str(name)
            try:
                with h5py.File(path, "r") as file:
                    data = file[f"observables/{observable}"]
                    for i in here:
                        out[i] = data[rows.index[i]]
            except _DAMAGE as error:
                raise InputError(
                    f"{path}: {observable} cannot be read ({_first_line(error)}); "
                    f"`eorinfer bank verify {self.path} --repair` sets the shard aside"
                ) from error
        return out

    def verify(self, repair: bool = False) -> list[str]:
        """Read every byte; return one line for each shard that is damaged.

        Parameters
        ----------
        repair
            Move damaged shards to ``set-aside/``; the next run simulates their rows again.
        """
        problems = []
        plans = {plan.id: plan for plan in self.plans()}
        for path in sorted((self.path / "shards").glob("[!.]*.h5")):
            problem = self._problem(path, plans)
            if problem is None:
                continue
            if repair:
                make_folder(self.path / "set-aside")
                os.replace(path, self.path / "set-aside" / path.name)
                problem += " (set aside)"
            problems.append(f"{path.name}: {problem}")
        return problems

    def _problem(self, path: Path, plans: dict[str, Plan]) -> str | None:
        id, _, shard = path.stem.rpartition("-")
        if id not in plans or not shard.isdecimal() or int(shard) >= plans[id].shards:
            return f"belongs to no round in {self.path / 'rounds'}"
        plan, wanted = plans[id], plans[id].rows(int(shard))
        try:
            with h5py.File(path, "r") as file:
                fingerprint = file.attrs["fingerprint"].decode(errors="replace")
            rows = self.read_rows(path)
            arrays = {o.name: self.read(o.name, rows) for o in self.observables}
        except _DAMAGE as error:
            return f"not a whole shard ({_first_line(error)})"
        except InputError as error:
            return str(error).removeprefix(f"{path}: ").partition("; `")[0]
        if fingerprint != self.fingerprint:
            return f"is of another simulator (fingerprint {fingerprint}, the bank's {self.fingerprint})"
        if not np.isin(rows.status, STATUSES).all():
            return f"a status is none of {', '.join(STATUSES)}"
        same_theta = np.array_equal(rows.theta, plan.theta[wanted])
        if not (same_theta and np.array_equal(rows.seed, plan.seed[wanted])):
            return "theta or seeds differ from the plan of the round"
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                return f"{name} has values that are not finite"
        return None

    def _refuse_other(self, simulator: Simulator) -> None:
        ours = simulators.fingerprint(simulator)
        if ours == self.fingerprint:
            return
        old, new = self.description["simulator"], json.loads(json.dumps(simulator.settings()))
        changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
        detail = "; ".join(f"{k}: bank {old.get(k)!r}, config {new.get(k)!r}" for k in changed)
        raise InputError(
            f"{self.path}: holds the bank of another simulator (fingerprint {self.fingerprint}, "
            f"yours {ours}; {detail or 'same settings, other version or source'}); "
            "give another --out or [bank] path"
        )


def observable_from_json(content: dict[str, Any]) -> Observable:
    """Undo `dataclasses.asdict` and JSON's lists."""
    fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    symmetry = fixed.pop("symmetry")
    return Observable(**fixed, symmetry=simulators.Symmetry(tuple(symmetry["periodic"]), symmetry["rotations"]))


def package_versions() -> dict[str, str]:
    """Versions that belong beside results."""
    found = {"python": platform.python_version()}
    for name in ("eorinfer", "21cmFAST", "numpy", "scipy", "h5py", "torch", "sbi", "lightning", "emcee"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _new_file(path: Path) -> h5py.File:
    """A new HDF5 file whose index of chunks has checksums too, which HDF5's oldest format lacks."""
    return h5py.File(path, "w", libver=("v110", "v110"))


def _describe(simulator: Simulator) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "simulator": simulator.settings(),
        "fingerprint": simulators.fingerprint(simulator),
        "parameters": [asdict(p) for p in simulator.parameters],
        "observables": [asdict(o) for o in simulator.observables],
        "packages": package_versions(),
    }


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
