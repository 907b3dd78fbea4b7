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


@dataclass(frozen=True)
class Used:
    """Rows of a plan that are used.

    Attributes
    ----------
    plan
        The plan.
    first
        Number of its first rows to use, which are simulated where the bank lacks them.
    further
        Shards beyond these whose rows are used as well; the bank has them.
    left_out
        Rows at the end of the last of these that are not used.
    """

    plan: Plan
    first: int
    further: tuple[int, ...] = ()
    left_out: int = 0

    @property
    def places(self) -> list[int]:
        """Numbers of the rows in the plan."""
        beyond = [i for shard in self.further for i in range(self.plan.rows(shard).start, self.plan.rows(shard).stop)]
        return [*range(self.first), *beyond[: len(beyond) - self.left_out]]

    def rows(self, bank: Bank) -> Rows:
        """Read those that are there, whatever their status."""
        shards = -(-self.first // self.plan.shard_rows)
        first = bank.rows([self.plan]) if shards == self.plan.shards else _shards(bank, self.plan, range(shards))
        further = _shards(bank, self.plan, self.further)
        return Rows.concatenate([first[: self.first], further[: len(further) - self.left_out]])

    def content(self) -> list[Any]:
        """Write it for a JSON file that `read_used` reads."""
        return [self.plan.id, self.first, *([list(self.further), self.left_out] if self.further else [])]


def read_used(bank: Bank, content: Sequence[Sequence[Any]]) -> list[Used]:
    """Read what `Used.content` wrote; empty if the bank lacks one of the plans, or further shards that are used."""
    in_bank = {plan.id: plan for plan in bank.plans()}
    used = []
    for id, first, *more in content:
        further = more[0] if more else ()
        left_out = more[1] if len(more) > 1 else 0  # older files have none
        if id not in in_bank or set(further) & set(bank.missing(in_bank[id])):
            return []
        used.append(Used(in_bank[id], first, tuple(further), left_out))
    return used


def prior_plans(bank: Bank, prior: Prior, simulator: Simulator, n: int, seed: int) -> list[Used]:
    """Choose n rows of the first round, as `use_of` does.

    Rows of the same prior in a shared bank are used first, in the order of `Bank.plans`; the rest is planned anew.
    """
    plans = plans_of(bank, PRIOR_ROUND, prior.hash())
    done = sum(map(len, plans))
    if left := max(0, n - done):
        rng = round_rng(seed, PRIOR_ROUND, done)
        plan = plan_round(PRIOR_ROUND, prior.hash(), prior.sample(left, rng), simulator, seed, first_realisation=done)
        plans.append(bank.add(plan))
    return use_of(bank, plans, n)


def plans_of(bank: Bank, number: int, proposal: str) -> list[Plan]:
    """List the plans of a proposal in a bank, in the order of `Bank.plans`."""
    return [plan for plan in bank.plans() if plan.number == number and plan.proposal == proposal]


def use_of(bank: Bank, plans: Sequence[Plan], n: int) -> list[Used]:
    """Choose n rows of some plans: those that the bank has, then those that it does not, each in the plans' order.

    A campaign that was stopped leaves shards anywhere in its plan.
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
        # Only the last shard that is taken can be taken in part.
        whole = sum(plan.rows(shard).stop - plan.rows(shard).start for shard in shards)
        if first or shards:
            used.append(Used(plan, first, tuple(sorted(shards)), whole - sum(shards.values())))
    return used


def prior_rows(bank: Bank, prior: Prior) -> int:
    """Return the number of rows planned in the bank as draws from this prior, by any run or import."""
    return sum(map(len, plans_of(bank, PRIOR_ROUND, prior.hash())))


def planned_rows(bank: Bank, used: Sequence[Used]) -> Rows:
    """Read the rows that are used of some plans, whatever their status."""
    return Rows.concatenate([Rows.none(len(bank.parameters)), *(of.rows(bank) for of in used)])


def _shards(bank: Bank, plan: Plan, shards: Sequence[int]) -> Rows:
    none = Rows.none(len(bank.parameters))
    return Rows.concatenate([none, *(bank.read_rows(bank.shard_path(plan, i)) for i in shards)])
