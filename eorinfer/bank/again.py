"""Rows that are worth another try: a limit that ended them was raised, or `bank retry` has marked them."""

import re

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError

#: Beginning of the message of a row that `bank retry` has marked.
MARK = "to be tried again: "
#: Limits in the messages of rows that met one, as `timeout_message` and `with_memory_limit` write them.
_SECONDS = re.compile(r"no result within (\S+) s$")
_MEMORY = re.compile(r" \(memory limit (\S+) GB\)$")
#: A raised limit exceeds the one in a message, which has six digits, by more than this share.
ROUNDING = 1e-5


def timeout_message(seconds: float) -> str:
    """Say that a row met its time limit."""
    return f"no result within {seconds:g} s"


def with_memory_limit(message: str, memory_gb: float | None) -> str:
    """Add the memory limit in GB to the message of a row that may have met it."""
    return message if memory_gb is None else f"{message} (memory limit {memory_gb:g} GB)"


def to_try_again(rows: Rows, seconds: float | None, memory_gb: float | None) -> NDArray[np.bool_]:
    """Tell which rows (n,) to simulate again: those marked, and those that met a limit lower than the one now.

    Limits are in seconds and GB, None for no limit.
    """
    again = np.zeros(len(rows), bool)
    for i in np.flatnonzero(rows.status != "ok"):
        status, message = str(rows.status[i]), str(rows.message[i])
        again[i] = (
            message.startswith(MARK)
            or (status == "timeout" and _is_lower(_SECONDS.search(message), seconds))
            or (status in ("failed", "killed") and _is_lower(_MEMORY.search(message), memory_gb))
        )
    return again


def shards_again(
    bank: Bank, plan: Plan, n: int | None, seconds: float | None, memory_gb: float | None
) -> dict[int, int]:
    """Count the rows to simulate again in each shard, among those with a plan's first `n` rows that the bank has."""
    shards = plan.shards if n is None else -(-min(n, len(plan)) // plan.shard_rows)
    missing = set(bank.missing(plan, n))
    counts = {}
    for shard in range(shards):
        if shard in missing:
            continue
        try:
            rows = bank.read_rows(bank.shard_path(plan, shard))
        except InputError:
            continue  # who uses its rows is told
        if (again := to_try_again(rows, seconds, memory_gb)).any():
            counts[shard] = int(again.sum())
    return counts


def mark(bank: Bank, *, everything: bool = False) -> dict[str, int]:
    """Mark rows so that the next campaign simulates them again.

    Parameters
    ----------
    bank
        The bank; shards with such rows are replaced by ones with the mark in these rows' messages.
    everything
        Mark all rows that are not ``ok``, and not only those that ended by a limit or by a signal.

    Returns
    -------
    dict
        Number of rows marked, by status.

    Raises
    ------
    InputError
        If the bank has imported cubes.
    WorkError
        If the bank cannot be written.
    """
    if bank.description["simulator"]["kind"] == "imported":
        raise InputError(
            f"{bank.path}: has imported cubes, which cannot be simulated again; give the same `eorinfer bank import` "
            "again, which writes rows that are not there or not ok"
        )
    counts: dict[str, int] = {}
    for plan in bank.plans():
        for shard in sorted(set(range(plan.shards)) - set(bank.missing(plan))):
            rows = bank.read_rows(bank.shard_path(plan, shard))
            out_of_memory = np.char.find(rows.message, "out of memory") >= 0
            wanted = np.isin(rows.status, ("timeout", "killed")) | ((rows.status == "failed") & out_of_memory)
            wanted = (rows.status != "ok") if everything else wanted
            fresh = wanted & ~np.char.startswith(rows.message, MARK)
            if fresh.any():
                message = [MARK + m if new else m for m, new in zip(rows.message.tolist(), fresh, strict=True)]
                bank.write_shard(
                    plan,
                    shard,
                    status=rows.status.tolist(),
                    message=message,
                    seconds=rows.seconds.tolist(),
                    arrays={o.name: bank.read(o.name, rows) for o in bank.observables},
                    replace=True,
                )
            for status, n in rows[wanted].counts().items():
                counts[status] = counts.get(status, 0) + n
    return counts


def _is_lower(found: re.Match[str] | None, limit: float | None) -> bool:
    """Tell whether the limit in a message is lower than the one now; a message without a number says nothing."""
    try:
        return found is not None and (limit is None or float(found[1]) * (1 + ROUNDING) < limit)
    except ValueError:
        return False
