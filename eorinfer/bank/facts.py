"""Counts and sizes of a bank, for ``eorinfer bank info`` and for the page."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank

#: Reasons of failures that are told apart, the most frequent ones.
REASONS = 8


@dataclass(frozen=True)
class RoundFacts:
    """A round's id, how many rows are planned in it, and how many there are by status."""

    id: str
    planned: int
    counts: dict[str, int]


@dataclass(frozen=True)
class BankFacts:
    """Counts and sizes of a bank.

    Attributes
    ----------
    bank
        It.
    rounds
        Facts of the rounds, in order.
    rows
        Number of rows.
    megabytes
        Size of the shards.
    seconds
        Seconds of simulating, all rows together.
    reasons
        Status, message and number of rows of each kind of failure.
    """

    bank: Bank
    rounds: tuple[RoundFacts, ...]
    rows: int
    megabytes: float
    seconds: float
    reasons: tuple[tuple[str, str, int], ...]

    @classmethod
    def of(cls, bank: Bank) -> "BankFacts":
        """Read them."""
        plans = bank.plans()
        read = [bank.rows([plan]) for plan in plans]
        everything = Rows.concatenate([Rows.none(len(bank.parameters)), *read])
        size = sum(f.stat().st_size for f in (bank.path / "shards").glob("*.h5"))
        return cls(
            bank,
            tuple(RoundFacts(plan.id, len(plan), rows.counts()) for plan, rows in zip(plans, read, strict=True)),
            len(everything),
            size / 1e6,
            float(everything.seconds.sum()),
            _reasons(everything),
        )

    def lines(self) -> Iterator[str]:
        """Say the facts in plain words."""
        yield f"{self.bank.path}: {self.bank.description['simulator']['kind']}, fingerprint {self.bank.fingerprint}"
        for p in self.bank.parameters:
            yield f"  {p.name:18s} {p.low:g} to {p.high:g} {p.unit}"
        for o in self.bank.observables:
            yield f"  {o.name:18s} {' x '.join(map(str, o.shape))} {o.unit}"
        for one in self.rounds:
            counts = ", ".join(f"{n} {s}" for s, n in one.counts.items()) or "none yet"
            yield f"round {one.id}: {one.planned} planned; {counts}"
        if self.rows:
            yield f"{self.rows} rows, {self.megabytes:.1f} MB, {self.seconds / self.rows:.3g} s each"


def _reasons(rows: Rows) -> tuple[tuple[str, str, int], ...]:
    bad = rows[rows.status != "ok"]
    counted = Counter(zip(bad.status.tolist(), bad.message.tolist(), strict=True))
    return tuple((status, message, n) for (status, message), n in counted.most_common(REASONS))
