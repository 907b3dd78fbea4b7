"""Plans of the rounds of a bank, and its rows without their arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATUSES = ("ok", "failed", "invalid", "timeout", "killed")


@dataclass(frozen=True)
class Plan:
    """A round before it is simulated.

    Attributes
    ----------
    id
        ``NN-HASH``: number of the round and a hash of everything that determines it.
    number
        Number of the round, 1 for draws from the prior, 0 for rows of no round.
    proposal
        Hash of the distribution that theta was drawn from.
    shard_rows
        Rows in each shard but the last.
    theta
        (n, P) float64.
    seed
        (n,) uint64; rows of one realisation share it.
    world
        (n,) int64 number of the world that makes each row; None for a simulator without worlds.

    Examples
    --------
    >>> from eorinfer import Bank
    >>> plan = Bank.open("runs/gaussian/bank").plans()[1]
    >>> len(plan), plan.number
    (48, 1)
    """

    id: str
    number: int
    proposal: str
    shard_rows: int
    theta: NDArray[np.float64]
    seed: NDArray[np.uint64]
    world: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def shards(self) -> int:
        """Number of shards of the round."""
        return -(-len(self) // self.shard_rows)

    def rows(self, shard: int) -> slice:
        """Return which rows of the plan are in a shard."""
        return slice(shard * self.shard_rows, min((shard + 1) * self.shard_rows, len(self)))


@dataclass(frozen=True)
class Rows:
    """Rows of a bank without their arrays.

    Attributes
    ----------
    theta
        (n, P) float64.
    seed
        (n,) uint64.
    round
        (n,) int64.
    status, message
        (n,) text; a status is one of `STATUSES`.
    seconds
        (n,) float64.
    shard
        (n,) file names in ``shards/``.
    index
        (n,) row in that shard.
    world
        (n,) int64 number of the world that made the row; 0 for a simulator without worlds.
    """

    theta: NDArray[np.float64]
    seed: NDArray[np.uint64]
    round: NDArray[np.int64]
    status: NDArray[np.str_]
    message: NDArray[np.str_]
    seconds: NDArray[np.float64]
    shard: NDArray[np.str_]
    index: NDArray[np.int64]
    world: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.world) != len(self.theta):  # rows without worlds
            object.__setattr__(self, "world", np.zeros(len(self.theta), np.int64))

    def __len__(self) -> int:
        return len(self.theta)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in self.counts().items())
        return f"Rows({counts or 'none'})"

    def __getitem__(self, rows: int | slice | list[int] | NDArray[np.bool_] | NDArray[np.integer[Any]]) -> "Rows":
        if isinstance(rows, int | np.integer):
            rows = [int(rows)]
        return Rows(**{name: getattr(self, name)[rows] for name in Rows.__dataclass_fields__})

    @classmethod
    def concatenate(cls, several: Sequence["Rows"]) -> "Rows":
        """Join rows, one after the other."""
        return cls(
            **{name: np.concatenate([getattr(rows, name) for rows in several]) for name in cls.__dataclass_fields__}
        )

    @classmethod
    def none(cls, parameters: int) -> "Rows":
        """Return no rows, for a given number of parameters."""
        return cls(
            theta=np.empty((0, parameters)),
            seed=np.empty(0, np.uint64),
            round=np.empty(0, np.int64),
            status=np.empty(0, np.str_),
            message=np.empty(0, np.str_),
            seconds=np.empty(0),
            shard=np.empty(0, np.str_),
            index=np.empty(0, np.int64),
        )

    @property
    def ok(self) -> "Rows":
        """The rows whose arrays are valid."""
        return self[self.status == "ok"]

    def counts(self) -> dict[str, int]:
        """Count the rows by status; statuses without rows are left out."""
        return {status: int(n) for status in STATUSES if (n := np.count_nonzero(self.status == status))}
