"""Plans: which theta and seeds a round simulates, also where it is continued."""

import json
from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import SHARD_ROWS, plan_round, planned_rows, prior_plans, prior_rows, read_used, use_of
from eorinfer.core.prior import Prior
from eorinfer.training.data import validation_rows
from simulators import GaussianField
from tests.banks import a_plan, write

SIMULATOR = GaussianField(cells=8)
PRIOR = Prior(SIMULATOR.parameters)


def theta(n: int, seed: int = 1) -> np.ndarray:
    return PRIOR.sample(n, np.random.default_rng(seed))


def test_a_continued_round_repeats_no_seed(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    first = prior_plans(bank, PRIOR, SIMULATOR, 6, seed=3)
    assert [of.first for of in first] == [6]
    both = prior_plans(bank, PRIOR, SIMULATOR, 10, seed=3)
    assert sorted(of.first for of in both) == [4, 6]
    seeds = np.concatenate([of.plan.seed for of in both])
    assert len(set(seeds.tolist())) == 10
    assert len(np.unique(np.concatenate([of.plan.theta for of in both]), axis=0)) == 10
    assert prior_rows(bank, PRIOR) == 10
    again = prior_plans(bank, PRIOR, SIMULATOR, 10, seed=3)
    assert [of.plan.id for of in again] == [of.plan.id for of in both]
    narrower = PRIOR.within(PRIOR.low + 0.1, PRIOR.high)
    assert prior_rows(bank, narrower) == 0, "another prior's rows do not count"


def test_fewer_rows_than_a_bank_has_are_its_first(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    plan = prior_plans(bank, PRIOR, SIMULATOR, 6, seed=3)[0].plan
    for shard in range(plan.shards):
        write(bank, plan, shard, SIMULATOR)
    used = prior_plans(bank, PRIOR, SIMULATOR, 4, seed=8)
    assert [(of.plan.id, of.first, of.further) for of in used] == [(plan.id, 4, ())]
    assert planned_rows(bank, used).seed.tolist() == plan.seed[:4].tolist()


@pytest.mark.parametrize(
    ("n", "there", "first", "further"),
    [
        (6, {}, [6], [()]),  # nothing is there yet
        (6, {0: [0, 1, 2, 3]}, [6], [()]),
        (6, {0: [1, 3]}, [4], [(3,)]),
        (5, {0: [1, 3]}, [1], [(1, 3)]),  # shard 0 has to be made for one row
        (4, {0: [1, 3]}, [0], [(1, 3)]),
        (3, {0: [1, 3]}, [0], [(1, 3)]),
        (9, {0: [3], 1: [1, 2]}, [3, 0], [(3,), (1, 2)]),
        (14, {0: [3], 1: [1, 2]}, [8, 6], [(), ()]),
    ],
)
def test_rows_that_are_there_are_used_first(
    tmp_path: Path, n: int, there: dict[int, list[int]], first: list[int], further: list[tuple[int, ...]]
) -> None:
    bank = Bank.create(tmp_path / "bank", SIMULATOR)
    plans = [bank.add(a_plan(8, 2, number)) for number in (1, 2)]
    for plan, shards in there.items():
        for shard in shards:
            write(bank, plans[plan], shard, SIMULATOR)
    used = use_of(bank, plans, n)
    assert ([of.first for of in used], [of.further for of in used]) == (first, further)
    for of in used:
        for shard in bank.missing(of.plan, of.first):
            write(bank, of.plan, shard, SIMULATOR)
    chosen = planned_rows(bank, used)
    assert len(chosen) == n
    assert chosen.seed.tolist() == [int(of.plan.seed[place]) for of in used for place in of.places]
    content = json.loads(json.dumps([of.content() for of in used]))
    assert [(of.plan.id, of.places) for of in read_used(bank, content)] == [(of.plan.id, of.places) for of in used]
    assert len(np.unique(np.column_stack([chosen.round, chosen.seed]), axis=0)) == n


def test_rows_share_a_realisation_and_shards_do_not_cut_it() -> None:
    plan = plan_round(1, "prior", theta(10), SIMULATOR, 5, share=4)
    assert [len(set(plan.seed[i : i + 4].tolist())) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(plan.seed.tolist())) == 3
    assert plan.shard_rows % 4 == 0
    assert plan.shard_rows <= SHARD_ROWS + 3


def test_views_of_a_run_have_its_theta_and_seed_and_never_part() -> None:
    class Viewed(GaussianField):
        @property
        def rows_per_realisation(self) -> int:
            return 6

        @property
        def views_of_a_run(self) -> int:
            return 3

    given = theta(11)
    plan = plan_round(1, "prior", given, Viewed(cells=8), 5)
    np.testing.assert_array_equal(plan.theta, np.repeat(given[:4], 3, axis=0)[:11])
    assert [len(set(plan.seed[i : i + 6].tolist())) for i in (0, 6)] == [1, 1]
    assert plan.shard_rows % 6 == 0
    held = validation_rows(plan.seed, 0.5)
    assert held[:6].all() != held[6:].all()
    truths = plan_round(0, "truths", given, Viewed(cells=8), 5, share=1)
    np.testing.assert_array_equal(truths.theta, given)


@pytest.mark.parametrize("changed", [{"number": 2}, {"seed": 6}, {"first_realisation": 10}])
def test_seeds_differ_between_rounds_runs_and_continuations(changed: dict[str, int]) -> None:
    arguments = {"number": 1, "seed": 5, "first_realisation": 0}
    plans = [
        plan_round(proposal="p", theta=theta(10), simulator=SIMULATOR, **a) for a in (arguments, arguments | changed)
    ]
    assert not set(plans[0].seed.tolist()) & set(plans[1].seed.tolist())
    assert plans[0].id != plans[1].id
    same = plan_round(proposal="p", theta=theta(10), simulator=SIMULATOR, **arguments)
    assert same.id == plans[0].id
    assert plan_round(proposal="q", theta=theta(10), simulator=SIMULATOR, **arguments).id != same.id


def test_a_shard_takes_the_time_that_a_stop_may_cost() -> None:
    quick, slow = (plan_round(1, "p", theta(400), s, 5).shard_rows for s in (SIMULATOR, Slow(cells=8)))
    assert quick == SHARD_ROWS
    assert slow == 10, "twenty seconds of two seconds a row: the class does not say how long a row takes"


class Slow(GaussianField):
    """A user's own simulator, which inherits the cost of a much quicker one."""

    kind: str = "module:Slow"
