"""Check every byte of a bank, and set aside what is damaged so that it is simulated again."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eorinfer.bank.description import check
from eorinfer.bank.rows import STATUSES, Plan, Rows
from eorinfer.bank.shards import DAMAGE, FORMAT, attributes, first_line
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder, read_json
from eorinfer.core.reading import refuse_foreign, refuse_surroundings
from simulators.worlds import world_names

#: Number of threads: one computes checksums while the other waits for the disk.
THREADS = 2
#: Bytes of arrays to read at a time.
PIECE = 4e6


@dataclass(frozen=True)
class Problem:
    """One file of a bank that is not as it was written.

    Attributes
    ----------
    name
        Path of the file in the bank's folder.
    text
        Damage, and what was done about it.
    unread
        Whether it could not be read at all, so that nothing is known of it; such a file is never moved.
    """

    name: str
    text: str
    unread: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def verify(path: Path, repair: bool = False) -> list[Problem]:
    """Read every byte of the bank at `path`.

    Parameters
    ----------
    path
        Folder of the bank.
    repair
        Move damaged files to ``set-aside/`` in the bank. The next run writes ``bank.json`` and plans again, and
        simulates the rows of lost shards. A plan whose shards are all whole is made again from them, here and now.

    Returns
    -------
    list
        Damaged files, and files that could not be read; empty if there are none.

    Raises
    ------
    InputError
        If there is no bank, or one of another format, or `repair` cannot write.
    """
    path = Path(path)
    description = _description_problem(path)
    if description is not None:
        return [_set_aside(path, description) if repair and not description.unread else description]
    bank = Bank.open(path)
    plans: dict[str, Plan] = {}
    unread: set[str] = set()
    problems = []
    for file in sorted((path / "rounds").glob("[!.]*.h5")):
        try:
            plans[file.stem] = bank.plan(file.stem)
        except InputError as error:
            problem = Problem(f"rounds/{file.name}", _short(error, file))
            problems.append(_set_aside(path, problem) if repair else problem)
        except WorkError as error:
            problems.append(Problem(f"rounds/{file.name}", _short(error, file), unread=True))
            unread.add(file.stem)
    files = sorted((path / "shards").glob("[!.]*.h5"))
    orphans: dict[str, list[Path]] = {}
    threads = ThreadPoolExecutor(THREADS)
    try:
        checked = threads.map(lambda file: _shard_problem(bank, file, plans), files)
        for file, damage in zip(files, checked, strict=True):
            if damage is not None:
                problems.append(_set_aside(path, damage) if repair and not damage.unread else damage)
            elif _round(file) not in plans.keys() | unread:
                orphans.setdefault(_round(file), []).append(file)
    finally:
        threads.shutdown(cancel_futures=True)  # otherwise Ctrl-C waits until every file is read
    return problems + [problem for id in orphans for problem in _orphans(bank, id, orphans[id], repair)]


def _description_problem(path: Path) -> Problem | None:
    """Find damage of ``bank.json``; one of another version, or no bank at all, raises."""
    if not os.path.lexists(path / "bank.json"):
        return None
    try:
        content = read_json(path / "bank.json", links=False)
        if content.get("format", FORMAT) != FORMAT:
            return None
        check(content)
        if "format" not in content:
            return Problem("bank.json", "cannot be read as a bank's description (no format)")
    except InputError as error:
        return Problem("bank.json", _short(error, path / "bank.json"))
    except WorkError as error:
        return Problem("bank.json", _short(error, path / "bank.json"), unread=True)
    except DAMAGE as error:
        return Problem("bank.json", f"cannot be read as a bank's description ({first_line(error)})")
    return None


def _shard_problem(bank: Bank, path: Path, plans: dict[str, Plan]) -> Problem | None:
    """Find what is wrong with a shard, or that it could not be read."""
    name = f"shards/{path.name}"
    try:
        text = _damage(bank, path, plans)
    except WorkError as error:
        return Problem(name, _short(error, path), unread=True)
    return None if text is None else Problem(name, text)


def _damage(bank: Bank, path: Path, plans: dict[str, Plan]) -> str | None:
    """Say what is wrong with a shard in itself and beside its plan, if that is there."""
    plan, number = plans.get(_round(path)), path.stem.rpartition("-")[2]
    if not number.isdecimal() or (plan is not None and int(number) >= plan.shards):
        return f"belongs to no round in {bank.path / 'rounds'}"
    try:
        refuse_foreign(path)
        fingerprint = attributes(path)["fingerprint"]
        _fetch(path)
        rows = bank.read_rows(path)
        finite = dict(_finite(bank, rows))
    except DAMAGE as error:
        refuse_surroundings(path, error)
        return f"not a whole shard ({first_line(error)})"
    except InputError as error:
        return _short(error, path)
    if fingerprint != bank.fingerprint:
        return f"is of another simulator (fingerprint {fingerprint}, the bank's {bank.fingerprint})"
    if not np.isin(rows.status, STATUSES).all():
        return f"a status is none of {', '.join(STATUSES)}"
    if plan is not None:
        wanted = plan.rows(int(number))
        same_theta = np.array_equal(rows.theta, plan.theta[wanted])
        same_world = plan.world is None or np.array_equal(rows.world, plan.world[wanted])
        if not (same_theta and same_world and np.array_equal(rows.seed, plan.seed[wanted])):
            return "theta or seeds differ from the plan of the round"
    return next((f"{name} has values that are not finite" for name, ok in finite.items() if not ok), None)


def _short(error: Exception, file: Path) -> str:
    """Return an error without the file's name before it and the advice after it."""
    return str(error).removeprefix(f"{file}: ").partition("; `")[0]


def _finite(bank: Bank, rows: Rows) -> Iterator[tuple[str, bool]]:
    """Yield each observable and whether its arrays in these rows are finite; read and check every byte."""
    for observable in bank.observables:
        step = max(1, int(PIECE / observable.nbytes))
        yield (
            observable.name,
            all(
                bool(np.isfinite(bank.read(observable.name, rows[i : i + step], check=True)).all())
                for i in range(0, len(rows), step)
            ),
        )


def _fetch(path: Path) -> None:
    """Ask the operating system to read the whole file ahead."""
    if hasattr(os, "posix_fadvise"):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def _orphans(bank: Bank, id: str, files: list[Path], repair: bool) -> list[Problem]:
    """Return the problem of whole shards without a plan; they are kept, since a run may plan the round again."""
    plan = _plan_again(bank, id, files)
    name = f"rounds/{id}.h5"
    if plan is not None:
        text = f"is missing, and its {len(files)} shard(s) say what it was"
        if repair:
            bank.add(plan)
            text += " (made again)"
        return [Problem(name, text)]
    text = f"is missing, and {len(files)} whole shard(s) are of this round"
    if repair:
        text += " (kept: a run that plans the round again uses them)"
    return [Problem(name, text)]


def _plan_again(bank: Bank, id: str, files: list[Path]) -> Plan | None:
    """Restore a plan from all of its shards; None if one is missing."""
    try:
        facts = attributes(files[0])
        number, proposal = int(facts["number"]), str(facts["proposal"])
        shard_rows, n = int(facts["shard_rows"]), int(facts["plan_rows"])
        if [int(file.stem.rpartition("-")[2]) for file in files] != list(range(-(-n // shard_rows))):
            return None
        rows = Rows.concatenate([bank.read_rows(file) for file in files])
    except (*DAMAGE, InputError):
        return None
    world = rows.world if world_names(bank.description["simulator"]) else None
    return Plan(id, number, proposal, shard_rows, rows.theta, rows.seed, world) if len(rows) == n else None


def _set_aside(bank: Path, problem: Problem) -> Problem:
    file, aside = bank / problem.name, bank / "set-aside"
    if aside.is_symlink():
        raise InputError(f"{aside}: is a symbolic link, not a folder; nothing was moved")
    target, number = make_folder(aside) / file.name, 1
    while os.path.lexists(target):  # of an earlier repair
        target, number = aside / f"{file.name}.{number}", number + 1
    os.replace(file, target)
    return Problem(problem.name, f"{problem.text} (set aside)")


def _round(shard: Path) -> str:
    return shard.stem.rpartition("-")[0]
