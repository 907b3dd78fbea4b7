"""Plans of rounds: theta and seeds to simulate. Loads no torch, so that simulating alone stays light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simulators
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.core.prior import Prior
from eorinfer.core.seeds import PRIOR_ROUND, realisation_seed, round_rng
from simulators import Simulator
from simulators.base import fingerprint_of
from simulators.worlds import first_world, worlds_of

#: Simulation time of a shard in seconds, and its largest number of rows: a stop loses little, files stay few.
SHARD_SECONDS, SHARD_ROWS = 20.0, 256
#: Largest size of a shard in bytes; it is assembled in memory.
SHARD_BYTES = 256e6
#: Simulation time of a row in seconds, for a user's simulator that declares none.
UNKNOWN_SECONDS = 2.0


def plan_round(
    number: int,
    proposal: str,
    theta: NDArray[np.float64],
    simulator: Simulator,
    seed: int,
    first_realisation: int = 0,
    share: int | None = None,
    world: int | None = None,
) -> Plan:
    """Fix seeds and shards of a round; the same arguments give the same plan.

    Parameters
    ----------
    number
        Number of the round, 1 for the prior, 0 for rows that nothing is trained on.
    proposal
        Hash of the distribution that theta was drawn from.
    theta
        Parameters (n, P) of the rows. Where several successive rows are views of one run, each run takes one of the
        first theta, and the last ones are not used.
    simulator
        Simulator, whose time for a row sets the size of the shards.
    seed
        Seed of the run.
    first_realisation
        Number of the first realisation, for a round that is continued.
    share
        Number of rows that share a realisation; by default the simulator's.
    world
        Number of the world that makes all rows; by default each realisation draws its own, if there are worlds.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import plan_round
    >>> from simulators import GaussianField
    >>> plan = plan_round(1, "mine", np.zeros((100, 2)), GaussianField(), seed=1)
    >>> len(plan), plan.number
    (100, 1)
    """
    if share is None and (views := getattr(simulator, "views_of_a_run", 1)) > 1:
        theta = np.repeat(theta[: -(-len(theta) // views)], views, axis=0)[: len(theta)]
    share = share or simulator.rows_per_realisation
    seeds = [realisation_seed(seed, number, first_realisation + i // share) for i in range(len(theta))]
    at_most = min(SHARD_ROWS, max(1, SHARD_BYTES // sum(o.nbytes for o in simulator.observables)))
    rows = int(np.clip(SHARD_SECONDS / _seconds_per_row(simulator), 1, at_most))
    rows = -(-rows // share) * share
    content: dict[str, Any] = {"proposal": proposal, "theta": theta.tolist(), "seeds": seeds}
    of_rows = None
    if (worlds := worlds_of(simulator)) is not None:
        of_rows = np.array([worlds.world_of(own) if world is None else world for own in seeds], np.int64)
        content["worlds"] = of_rows.tolist()
    id = f"{number:02d}-{fingerprint_of(content)[:12]}"
    return Plan(id, number, proposal, rows, theta, np.array(seeds, np.uint64), of_rows)


def _seconds_per_row(simulator: Simulator) -> float:
    # A subclass inherits the estimate of its parent, which may be a thousand times quicker: a stop would cost hours.
    first = first_world(simulator)
    own = first.kind in simulators.KINDS or "seconds_per_row" in vars(type(first))
    return simulator.seconds_per_row if own else max(UNKNOWN_SECONDS, simulator.seconds_per_row)


def prior_plans(bank: Bank, prior: Prior, simulator: Simulator, n: int, seed: int) -> list[tuple[Plan, int]]:
    """Return plans of the first round, and the number of rows to use of each, n in all.

    Rows of the same prior in a shared bank are used first, in the order of `Bank.plans`; the rest is planned anew.
    """
    wanted = plans_there(bank, PRIOR_ROUND, prior.hash(), n)
    done = sum(rows for _, rows in wanted)
    if left := n - done:
        rng = round_rng(seed, PRIOR_ROUND, done)
        plan = plan_round(PRIOR_ROUND, prior.hash(), prior.sample(left, rng), simulator, seed, first_realisation=done)
        wanted.append((bank.add(plan), left))
    return wanted


def plans_there(bank: Bank, number: int, proposal: str, n: int) -> list[tuple[Plan, int]]:
    """List the plans of a proposal in a bank, in the order of `Bank.plans`, and the rows to use of each, at most n."""
    wanted: list[tuple[Plan, int]] = []
    left = n
    for plan in bank.plans():
        if plan.number == number and plan.proposal == proposal and left:
            wanted.append((plan, min(left, len(plan))))
            left -= wanted[-1][1]
    return wanted


@dataclass(frozen=True)
class Used:
    """Rows of a plan that a training uses.

    Attributes
    ----------
    plan
        The plan.
    first
        Number of its first rows to use.
    further
        Shards beyond these whose rows are used as well; the bank has them.
    """

    plan: Plan
    first: int
    further: tuple[int, ...] = ()

    def rows(self, bank: Bank) -> Rows:
        """Read these rows, whatever their status."""
        return Rows.concatenate([planned_rows(bank, [(self.plan, self.first)]), _shards(bank, self.plan, self.further)])


def use_of(bank: Bank, plans: Sequence[Plan], n: int) -> list[Used]:
    """Choose n rows of some plans: those that the bank has, then those that it does not, each in the plans' order.

    A campaign that was stopped leaves shards anywhere in its plan. Where more than n rows are chosen, as shards are
    taken whole, the last ones are too many.
    """
    missing = {plan.id: set(bank.missing(plan)) for plan in plans}
    every = [(plan, shard) for plan in plans for shard in range(plan.shards)]
    taken: dict[str, dict[int, int]] = {plan.id: {} for plan in plans}
    for plan, shard in sorted(every, key=lambda one: one[1] in missing[one[0].id]):
        rows = plan.rows(shard)
        if take := min(n, rows.stop - rows.start):
            taken[plan.id][shard] = take
            n -= take
    used = []
    for plan in plans:
        shards, first = taken[plan.id], 0
        while (shard := first // plan.shard_rows) in shards:
            first += shards.pop(shard)
        if first or shards:
            used.append(Used(plan, first, tuple(sorted(shards))))
    return used


def prior_rows(bank: Bank, prior: Prior) -> int:
    """Return the number of rows planned in the bank as draws from this prior, by any run or import."""
    return sum(len(plan) for plan in bank.plans() if plan.number == PRIOR_ROUND and plan.proposal == prior.hash())


def planned_rows(bank: Bank, plans: Sequence[tuple[Plan, int]]) -> Rows:
    """Read the rows that a run uses of each plan, whatever their status."""
    used = [Rows.none(len(bank.parameters))]
    for plan, n in plans:
        shards = -(-n // plan.shard_rows)
        rows = bank.rows([plan]) if shards == plan.shards else _shards(bank, plan, range(shards))
        used.append(rows[:n])
    return Rows.concatenate(used)


def _shards(bank: Bank, plan: Plan, shards: Sequence[int]) -> Rows:
    none = Rows.none(len(bank.parameters))
    return Rows.concatenate([none, *(bank.read_rows(bank.shard_path(plan, i)) for i in shards)])
