"""Contents of a bank in numbers, for ``eorinfer bank info`` and for the report."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from simulators.worlds import world_names

#: Number of reasons of failures to list, the most frequent first.
REASONS = 8


@dataclass(frozen=True)
class RoundFacts:
    """A round's id, its number of planned rows, and the number of simulated rows by status."""

    id: str
    planned: int
    counts: dict[str, int]


@dataclass(frozen=True)
class BankFacts:
    """Contents of a bank in numbers.

    Attributes
    ----------
    bank
        The bank.
    rounds
        Rounds of the bank, in order.
    rows
        Number of rows.
    megabytes
        Size of the shards in MB.
    seconds
        Simulation time of all rows together.
    reasons
        Status, message and number of rows of each kind of failure.
    worlds
        Rows of each world by status; empty for a simulator without worlds.
    """

    bank: Bank
    rounds: tuple[RoundFacts, ...]
    rows: int
    megabytes: float
    seconds: float
    reasons: tuple[tuple[str, str, int], ...]
    worlds: dict[str, dict[str, int]]

    @classmethod
    def from_bank(cls, bank: Bank) -> "BankFacts":
        """Read all rows of a bank and count them."""
        plans = bank.plans()
        read = [bank.rows([plan]) for plan in plans]
        everything = Rows.concatenate([Rows.none(len(bank.parameters)), *read])
        size = sum(f.lstat().st_size for f in (bank.path / "shards").glob("*.h5"))
        return cls(
            bank,
            tuple(RoundFacts(plan.id, len(plan), rows.counts()) for plan, rows in zip(plans, read, strict=True)),
            len(everything),
            size / 1e6,
            float(everything.seconds.sum()),
            _reasons(everything),
            {
                name: everything[everything.world == number].counts()
                for number, name in enumerate(world_names(bank.description["simulator"]))
            },
        )

    def lines(self) -> Iterator[str]:
        """Yield the facts as lines of text."""
        yield f"{self.bank.path}: {self.bank.description['simulator']['kind']}, fingerprint {self.bank.fingerprint}"
        for p in self.bank.parameters:
            yield f"  {p.name:18s} {p.low:g} to {p.high:g} {p.unit}".rstrip()
        for o in self.bank.observables:
            yield f"  {o.name:18s} {' x '.join(map(str, o.shape))} {o.unit}".rstrip()
        for facts in self.rounds:
            counts = ", ".join(f"{n} {s}" for s, n in facts.counts.items()) or "none yet"
            yield f"round {facts.id}: {facts.planned} planned; {counts}"
        if any(facts.id.startswith("00-") for facts in self.rounds):
            yield "  (round 00: truths of tests, predictive checks, mocks for a separator; no posterior trains on them)"
        for world, rows in self.worlds.items():
            yield f"world {world}: " + (", ".join(f"{n} {s}" for s, n in rows.items()) or "no rows yet")
        for note in self.bank.description.get("notes", {}).values():
            yield from note["warnings"]
        if self.rows:
            yield f"{self.rows} rows, {self.megabytes:.1f} MB, {self.seconds / self.rows:.3g} s each"


def _reasons(rows: Rows) -> tuple[tuple[str, str, int], ...]:
    bad = rows[rows.status != "ok"]
    counted = Counter(zip(bad.status.tolist(), bad.message.tolist(), strict=True))
    return tuple((status, message, n) for (status, message), n in counted.most_common(REASONS))
