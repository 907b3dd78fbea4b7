"""Import of cubes and parameters that were simulated elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.plausible import far_rows, far_warning, prior_warning, unlike_prior
from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.numbers import UnusableError, usable
from eorinfer.core.prior import Prior
from eorinfer.core.reading import ForeignFileError, refuse_foreign, refuse_surroundings
from eorinfer.core.seeds import PRIOR_ROUND, item_seed
from simulators.base import fingerprint_of

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
) -> int:
    """Write rows of the first round from npy files.

    Parameters
    ----------
    bank
        Bank whose observables the cubes must match.
    prior
        Prior that theta was drawn from.
    theta_file
        Array theta (n, P).
    cubes
        Arrays (n, C, *cells): ``FILE`` for a bank with one observable, else ``NAME=FILE`` for each.
    seed_file
        Whole numbers (n,), equal where initial conditions are shared; by default all differ.
    warn
        Receives a line for what is unlikely: theta that was not drawn from the prior, rows far from all others. The
        bank keeps these lines, and each later run says them.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    InputError
        If a file does not fit, theta is outside the prior, or a value is not finite.
    """
    p = len(prior.parameters)
    theta = _numbers(theta_file, _load(theta_file, THETA_BYTES)).astype(np.float64)
    n = len(theta) if theta.ndim else 0
    if theta.ndim != 2 or theta.shape[1] != p or not n:
        raise InputError(f"{theta_file}: shape {theta.shape}, expected (n, {p}): {', '.join(prior.names)}")
    outside = np.flatnonzero(~prior.contains(theta))
    if len(outside):
        raise InputError(
            f"{theta_file}: {len(outside)} of {n} rows are outside the prior or not finite, the first is row "
            f"{outside[0]}, {theta[outside[0]].tolist()}; [prior] must be what theta was drawn from"
        )
    # All is checked before anything is written: a plan without its cubes would be simulated.
    warnings = [prior_warning(problem)] if (problem := unlike_prior(theta, prior)) else []
    arrays = {}
    for o in bank.observables:
        arrays[o.name], far = _cubes(_file_of(o.name, cubes, bank), n, o.shape)
        warnings += [far_warning(o.name, [f"row {i}" for i in far])] if far else []
    if seed_file is None:
        tag = int(fingerprint_of({"theta": theta.tolist()})[:8], 16)
        seed = np.array([item_seed(tag, i) for i in range(n)], np.uint64)
    else:
        seed = _load(seed_file, THETA_BYTES)
        if seed.shape != (n,) or not np.issubdtype(seed.dtype, np.integer):
            raise InputError(f"{seed_file}: must hold {n} whole numbers, one for each row of theta")
        seed = seed.astype(np.uint64)
    id = f"{PRIOR_ROUND:02d}-{fingerprint_of({'import': theta.tolist(), 'seed': seed.tolist()})[:12]}"
    shard_rows = int(min(SHARD_ROWS, max(1, SHARD_BYTES // bank.bytes_per_row)))
    plan = bank.add(Plan(id, PRIOR_ROUND, prior.hash(), shard_rows, theta, seed))
    bank.note(plan, warnings)
    for text in warnings:
        warn(text)
    missing = bank.missing(plan)
    _refuse_other_cubes(bank, plan, [shard for shard in range(plan.shards) if shard not in missing], arrays)
    for shard in missing:
        rows = plan.rows(shard)
        size = rows.stop - rows.start
        own = {name: np.asarray(array[rows], np.float32) for name, array in arrays.items()}
        bank.write_shard(plan, shard, status=["ok"] * size, message=[""] * size, seconds=[0.0] * size, arrays=own)
    return n


def _refuse_other_cubes(bank: Bank, plan: Plan, shards: list[int], arrays: dict[str, NDArray[Any]]) -> None:
    """Compare what is given with shards of an earlier import of the same theta and seeds.

    Raises
    ------
    InputError
        If the bank has other cubes for them.
    """
    for shard in shards:
        rows, there = plan.rows(shard), bank.read_rows(bank.shard_path(plan, shard))
        for name, array in arrays.items():
            kept, given = bank.read(name, there), np.asarray(array[rows], np.float32)
            if not np.array_equal(kept, given):
                row = rows.start + int(np.argmax((kept != given).reshape(len(kept), -1).any(1)))
                raise InputError(
                    f"{bank.path}: has other cubes for the same theta and seeds (the first is row {row} of {name}); "
                    "give another --out, or delete the bank to import these instead"
                )


def _file_of(observable: str, cubes: list[str], bank: Bank) -> Path:
    named = dict(c.split("=", 1) for c in cubes if "=" in c)
    if observable in named:
        return Path(named[observable])
    if len(bank.observables) == 1 and len(cubes) == 1 and not named:
        return Path(cubes[0])
    wanted = " ".join(f"--cubes {o.name}=FILE" for o in bank.observables)
    raise InputError(f"no cubes given for {observable}; this bank needs {wanted}")


def _cubes(path: Path, n: int, shape: tuple[int, ...]) -> tuple[NDArray[Any], list[int]]:
    """Open cubes (n, *shape) and check each; also list the rows that are far from all others."""
    array = _load(path)
    if array.shape != (n, *shape):
        raise InputError(f"{path}: shape {array.shape}, expected {(n, *shape)}: rows, channels, cells")
    facts = []
    for i, cube in enumerate(array):
        values = _numbers(path, cube, f", row {i}", "; leave such rows out").astype(np.float64)
        facts.append((values.min(), values.max(), values.mean(), values.std()))
    return array, far_rows(*zip(*facts, strict=True))


def _numbers(path: Path, values: NDArray[Any], where: str = "", advice: str = "") -> NDArray[Any]:
    try:
        return usable(values, f"{path}{where}")
    except UnusableError as error:
        raise InputError(f"{error}{advice}") from error


def _load(path: Path, most_bytes: float = np.inf) -> NDArray[Any]:
    """Open an npy file; what it holds is read when it is used, and is never more than the file has.

    Raises
    ------
    InputError
        If it is no regular file, no npy of plain values, or larger than `most_bytes`.
    WorkError
        If the operating system refused.
    """
    try:
        if path.suffix == ".npz":
            raise InputError(f"{path}: is an npz archive of several arrays; give one array as npy")
        refuse_foreign(path, links=True)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, ForeignFileError, SyntaxError, TypeError, OverflowError) as error:
        refuse_surroundings(path, error)
        raise InputError(f"{path}: cannot be read as npy ({error})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path}: is an archive of several arrays; give one array as npy")
    if not array.dtype.itemsize or array.nbytes > most_bytes:
        raise InputError(
            f"{path}: holds {array.dtype} {array.shape}, {array.nbytes / 1e9:.3g} GB; not what is expected"
        )
    return array
