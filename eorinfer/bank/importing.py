"""Import of cubes and parameters that were simulated elsewhere."""

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.chunks import checksums
from eorinfer.bank.given import HDF5, GivenCubes, given_cubes, load, load_theta, load_world, numbers
from eorinfer.bank.plausible import far_rows, far_warning, prior_warning, unlike_prior
from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.seeds import PRIOR_ROUND, item_seed
from simulators.base import fingerprint_of
from simulators.worlds import split_table

#: Largest number of rows and of bytes in a shard.
SHARD_ROWS, SHARD_BYTES = 64, 256e6
#: Largest size of theta and of seeds in bytes.
THETA_BYTES = 4e9


def import_rows(
    bank: Bank,
    prior: Prior,
    theta_file: Path,
    cubes: list[str],
    seed_file: Path | None = None,
    warn: Callable[[str], None] = lambda text: None,
    unit: str | None = None,
) -> int:
    """Write rows of the first round from files.

    Parameters
    ----------
    bank
        Bank whose observables the cubes must match.
    prior
        Prior that theta was drawn from.
    theta_file
        Array theta (n, P): npy, or HDF5 with the dataset ``theta``, and with ``world`` for a simulator with worlds.
    cubes
        Cubes as `given_cubes` takes them: ``FILE`` for a bank with one observable, else ``NAME=FILE`` for each. One
        HDF5 file may have all.
    seed_file
        Whole numbers (n,), equal where initial conditions are shared; by default all differ. npy, or HDF5 with the
        dataset ``seed``.
    warn
        Receives a line for what is unlikely: theta that was not drawn from the prior, rows far from all others. The
        bank keeps these lines, and each later run says them.
    unit
        Unit of cubes in npy files; by default that of the bank's observable.

    Returns
    -------
    int
        Number of rows that were not there yet.

    Raises
    ------
    InputError
        If a file does not fit, an export has rows that were not drawn from the prior, theta is outside of it, a
        value is not finite, or a row's world is not among those that the simulator trains on.
    """
    theta, note = _theta(theta_file, prior)
    world, of_worlds = _worlds(theta_file, len(theta), bank)
    n, notes = len(theta), [note, of_worlds]
    seed = _seeds(seed_file, theta)
    # All is checked before anything is written: a plan without its cubes would be simulated.
    warnings = [prior_warning(problem)] if (problem := unlike_prior(theta, seed, prior)) else []
    with ExitStack() as files:
        arrays = {}
        for o in bank.observables:
            arrays[o.name] = files.enter_context(given_cubes(_file_of(o.name, cubes, bank), o, n, unit))
            notes.append(arrays[o.name].note)
            if far := _far(arrays[o.name]):
                warnings.append(far_warning(o.name, [f"row {i}" for i in far]))
        content = {"import": theta.tolist(), "seed": seed.tolist()}
        content |= {} if world is None else {"worlds": world.tolist()}
        id = f"{PRIOR_ROUND:02d}-{fingerprint_of(content)[:12]}"
        shard_rows = int(min(SHARD_ROWS, max(1, SHARD_BYTES // bank.bytes_per_row)))
        wanted = Plan(id, PRIOR_ROUND, prior.hash(), shard_rows, theta, seed, world)
        _refuse_same_cubes(bank, wanted, arrays)
        _refuse_other_theta(bank, wanted, arrays, theta_file)
        _refuse_same_rows(bank, wanted, arrays, theta_file)
        plan = bank.add(wanted)
        bank.note(plan, warnings)
        for text in [*filter(None, dict.fromkeys(notes)), *warnings]:
            warn(text)
        missing = bank.missing(plan)
        there = [shard for shard in range(plan.shards) if shard not in missing]
        _refuse_other_cubes(bank, plan, there, arrays)
        failed = [shard for shard in there if len(bank.read_rows(bank.shard_path(plan, shard)).ok) < _size(plan, shard)]
        for shard in (*missing, *failed):
            own = {name: given.float32(plan.rows(shard)) for name, given in arrays.items()}
            size = _size(plan, shard)
            texts = {"status": ["ok"] * size, "message": [""] * size}
            bank.write_shard(plan, shard, **texts, seconds=[0.0] * size, arrays=own, replace=shard in failed)
    return sum(_size(plan, shard) for shard in (*missing, *failed))


def _size(plan: Plan, shard: int) -> int:
    rows = plan.rows(shard)
    return rows.stop - rows.start


def _theta(file: Path, prior: Prior) -> tuple[NDArray[np.float64], str]:
    """Read theta (n, P), with a line if its columns were put in order, and refuse rows outside the prior."""
    given, note = load_theta(file, prior.names, THETA_BYTES)
    theta = numbers(file, given)
    n, p = len(theta) if theta.ndim else 0, len(prior.parameters)
    if theta.ndim != 2 or theta.shape[1] != p or not n:
        raise InputError(f"{file}: shape {theta.shape}, expected (n, {p}): {', '.join(prior.names)}")
    outside = np.flatnonzero(~prior.contains(theta))
    if len(outside):
        raise InputError(
            f"{file}: {len(outside)} of {n} rows are outside the prior or not finite, the first is row "
            f"{outside[0]}, {theta[outside[0]].tolist()}; [prior] must be what theta was drawn from"
        )
    return theta, note


def _seeds(file: Path | None, theta: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Read the seeds (n,), or make one for each row of theta."""
    n = len(theta)
    if file is None:
        tag = int(fingerprint_of({"theta": theta.tolist()})[:8], 16)
        return np.array([item_seed(tag, i) for i in range(n)], np.uint64)
    seed = load(file, "seed", THETA_BYTES)
    if seed.shape != (n,) or not np.issubdtype(seed.dtype, np.integer):
        raise InputError(f"{file}: must hold {n} whole numbers, one for each row of theta")
    return seed.astype(np.uint64)


def _worlds(file: Path, n: int, bank: Bank) -> tuple[NDArray[np.int64] | None, str]:
    """Read each row's world as its number in the bank's simulator; with a line where that is not known, or not kept.

    Raises
    ------
    InputError
        If the simulator does not have a row's world, or does not train on it.
    """
    simulator = bank.description["simulator"]
    names, _, trained = split_table(simulator) if simulator.get("worlds") else ([], [], [])
    given = load_world(file, n, THETA_BYTES)
    if given is None:
        unsaid = f"{file}: does not say which world made its rows; all count as made by {''.join(names[:1])}"
        return None, unsaid if len(names) > 1 else ""
    numbers_there, theirs = given
    used = {number: theirs[number] if theirs else f"number {number}" for number in np.unique(numbers_there).tolist()}
    if not names:
        unkept = f"{file}: its rows are of worlds {', '.join(used.values())}; [simulator] has no worlds to keep them by"
        return None, unkept if len(used) > 1 else ""
    ours = {}
    for number, name in used.items():
        if theirs and name in names:
            number = names.index(name)
        elif theirs or number >= len(names):
            raise InputError(
                f"{file}: has rows of world {name}, but [simulator] worlds are {', '.join(names)}; "
                "give a world there the name that the file has"
            )
        if number not in trained:
            raise InputError(
                f"{file}: has rows of world {names[number]}, which [simulator] worlds has with train = false; leave "
                "them out, as all that is imported is trained on"
            )
        ours[name] = number
    return np.array([ours[used[number]] for number in numbers_there.tolist()], np.int64), ""


def _refuse_other_cubes(bank: Bank, plan: Plan, shards: list[int], arrays: dict[str, GivenCubes]) -> None:
    """Compare what is given with shards of an earlier import of the same theta and seeds.

    Raises
    ------
    InputError
        If the bank has other cubes for them.
    """
    for shard in shards:
        rows, there = plan.rows(shard), bank.read_rows(bank.shard_path(plan, shard))
        ok = there.status == "ok"  # in place of those that were never imported a run has written failures
        for name, cubes in arrays.items():
            kept, given = bank.read(name, there), cubes.float32(rows)
            if not np.array_equal(kept[ok], given[ok]):
                row = rows.start + int(np.argmax((kept != given).reshape(len(kept), -1).any(1) & ok))
                raise InputError(
                    f"{bank.path}: has other cubes for the same theta and seeds (the first is row {row} of {name}); "
                    "give another --out, or delete the bank to import these instead"
                )


def _refuse_same_cubes(bank: Bank, wanted: Plan, arrays: dict[str, GivenCubes]) -> None:
    """Refuse cubes that the bank has with other parameters: a run would train on both, or on the wrong ones alone.

    Raises
    ------
    InputError
        If an earlier import of as many rows has the same cubes in its first shard.
    """
    for plan in bank.plans():
        if plan.id == wanted.id or len(plan.theta) != len(wanted.theta) or 0 in bank.missing(plan):
            continue
        there = bank.read_rows(bank.shard_path(plan, 0))
        rows = plan.rows(0)
        if all(np.array_equal(bank.read(name, there), given.float32(rows)) for name, given in arrays.items()):
            raise InputError(
                f"{bank.path}: has these cubes already, with other theta or seeds, or of other worlds; give another "
                "--out, or delete the bank where the earlier import was wrong"
            )


def _refuse_other_theta(bank: Bank, wanted: Plan, arrays: dict[str, GivenCubes], file: Path) -> None:
    """Refuse rows whose cubes the bank has with other theta, among however many: a file that has grown, or a part.

    Cubes of one value say nothing: in an ionized box there is no signal, at many theta.

    Raises
    ------
    InputError
        If there are such rows.
    """
    others = [plan for plan in bank.plans() if plan.id != wanted.id]
    if not len(there := bank.rows(others).ok):
        return
    # Checksums stand in the bank, so that no more of its cubes are read than those that seem the same.
    first: dict[tuple[int, ...], int] = {}
    for i, sums in enumerate(zip(*(bank.checksums(name, there).tolist() for name in arrays), strict=True)):
        first.setdefault(sums, i)
    found: list[tuple[int, int]] = []
    for i, theta in enumerate(wanted.theta):
        own = {name: given.float32(slice(i, i + 1)) for name, given in arrays.items()}
        j = first.get(tuple(int(checksums(cube)[0]) for cube in own.values()))
        if j is None or np.array_equal(there.theta[j], theta) or all(cube.min() == cube.max() for cube in own.values()):
            continue
        if all(np.array_equal(bank.read(name, there[j]), cube) for name, cube in own.items()):
            found.append((i, j))
    if found:
        i, j = found[0]
        raise InputError(
            f"{file}: row {i} has theta {wanted.theta[i].tolist()}, but {bank.path} has its cube with theta "
            f"{there.theta[j].tolist()} ({len(found)} such rows). Leave them out, or give another --out where the "
            "earlier import was wrong"
        )


def _refuse_same_rows(bank: Bank, wanted: Plan, arrays: dict[str, GivenCubes], file: Path) -> None:
    """Refuse rows that are there twice, of the same theta and cubes: one would be trained on, the other held out.

    Views of one run have its seed, so that they never part, and where it has no signal all are the same.

    Raises
    ------
    InputError
        If two rows of the files are the same, or rows of the files are those of an earlier import.
    """
    often = Counter(theta.tobytes() for theta in wanted.theta)
    first: dict[bytes, int] = {}  # rows of the bank count as -1
    known: set[bytes] = set()
    for plan in (plan for plan in bank.plans() if plan.id != wanted.id):
        alike = [i for i, theta in enumerate(plan.theta) if theta.tobytes() in often]
        known |= {plan.theta[i].tobytes() for i in alike}
        for shard in sorted({i // plan.shard_rows for i in alike} - set(bank.missing(plan))):
            there = bank.read_rows(bank.shard_path(plan, shard)).ok
            there = there[np.array([theta.tobytes() in often for theta in there.theta], bool)]
            kept = [bank.read(name, there) for name in arrays]
            first |= {_digest(there.theta[i], [cubes[i] for cubes in kept]): -1 for i in range(len(there))}
    twice: list[tuple[int, int]] = []
    for i, theta in enumerate(wanted.theta):
        if often[theta.tobytes()] > 1 or theta.tobytes() in known:
            cubes = [given.float32(slice(i, i + 1))[0] for given in arrays.values()]
            digest = _digest(theta, cubes)
            other = first.setdefault(digest, i)
            views = other >= 0 and wanted.seed[other] == wanted.seed[i] and all(x.min() == x.max() for x in cubes)
            if other != i and not views:
                twice.append((i, other))
    if twice:
        i, other = twice[0]
        where = f"row {i} is row {other} again" if other >= 0 else f"row {i} is in {bank.path} already"
        raise InputError(
            f"{file}: {where}, theta and cubes ({len(twice)} such rows): what is there twice would be trained on and "
            "held out as well; give the others alone"
        )


def _digest(theta: NDArray[np.float64], cubes: list[NDArray[np.float32]]) -> bytes:
    digest = hashlib.blake2b(theta.tobytes(), digest_size=16)
    for cube in cubes:
        digest.update(np.ascontiguousarray(cube).tobytes())
    return digest.digest()


def _file_of(observable: str, cubes: list[str], bank: Bank) -> Path:
    named = dict(c.split("=", 1) for c in cubes if "=" in c)
    if observable in named:
        return Path(named[observable])
    if len(cubes) == 1 and not named and (len(bank.observables) == 1 or Path(cubes[0]).suffix.lower() in HDF5):
        return Path(cubes[0])
    wanted = " ".join(f"--cubes {o.name}=FILE" for o in bank.observables)
    raise InputError(f"no cubes given for {observable}; this bank needs {wanted}")


def _far(cubes: GivenCubes) -> list[int]:
    """Check each cube, and list the rows that are far from all others."""
    facts = [(cube.min(), cube.max(), cube.mean(), cube.std()) for cube in cubes.checked()]
    return far_rows(*zip(*facts, strict=True))
