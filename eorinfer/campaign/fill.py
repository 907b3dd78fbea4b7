"""Fill a bank through any `concurrent.futures.Executor`, and survive what goes wrong.

A task is one shard. The worker reads theta and seeds from the bank, runs the
simulator in a child process of its own, writes the shard, and reports
counts only. Locally the workers are threads, each driving one child process
that loads no torch; with Dask they are Dask's own workers.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.again import shards_again, to_try_again
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.child import RowResult
from eorinfer.campaign.children import (
    Child,
    ChildStartError,
    StoppedError,
    child_of_this_thread,
    end_all,
    stop_all,
    stopping,
)
from eorinfer.campaign.signals import held_back
from eorinfer.core.errors import InputError, WorkError
from simulators import Simulator

#: Number of rows after which a child is replaced, in case the simulator leaks memory.
RECYCLE_ROWS = 2000
#: Number of times that a shard is submitted before the campaign gives up.
TRIES = 3
#: Number of submitted tasks at a time, so that a long campaign takes no more memory than a short one.
IN_FLIGHT = 1000


@dataclass(frozen=True)
class Limits:
    """Limits of one row.

    Attributes
    ----------
    seconds
        Time limit in seconds; None for no limit.
    memory_gb
        Memory limit of the simulator's process in GB; None for no limit.
    """

    seconds: float | None = 3600.0
    memory_gb: float | None = None


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make one shard; small, and the same on any machine."""

    bank: str
    round: str
    shard: int
    simulator: dict[str, Any]
    beside: str | None
    limits: Limits
    #: Leave the shard alone if another campaign has claimed it.
    heed_claims: bool
    #: Number of successive rows that are views of one run.
    views: int = 1
    #: Simulate rows of a shard that is there again, see `eorinfer.bank.again`.
    again: bool = False


@dataclass(frozen=True)
class ShardReport:
    """A worker's report on a shard.

    Attributes
    ----------
    shard
        Number of the shard in the plan.
    rows
        Number of its rows that the bank has now; 0 if another campaign is making them just now.
    counts
        Number of rows simulated for this report, by status; empty if another campaign simulated them.
    seconds
        Simulation time of these rows together.
    """

    shard: int
    rows: int
    counts: dict[str, int]
    seconds: float = 0.0


@contextmanager
def local_executor(workers: int | None = None) -> Iterator[Executor]:
    """Start threads that drive one simulator process each; all end with the block.

    Parameters
    ----------
    workers
        Number of processes; by default one for each core this process may use.

    Examples
    --------
    >>> from eorinfer import local_executor
    >>> with local_executor(2) as executor:
    ...     print(list(executor.map(abs, [-1, 2])))
    [1, 2]
    """
    executor = ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="simulate")
    try:
        yield executor
    except BaseException:
        stop_all()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        end_all()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(
    bank: Bank,
    plan: Plan,
    simulator: Simulator,
    executor: Executor,
    *,
    rows: int | None = None,
    beside: Path | None = None,
    limits: Limits | None = None,
    report: Callable[[ShardReport], None] = lambda report: None,
) -> Counter[str]:
    """Simulate the missing shards of a plan, and in existing ones the rows that are worth another try.

    Parameters
    ----------
    bank, plan
        Bank to fill, and plan with theta and seeds.
    simulator
        The bank's simulator.
    executor
        Executor that runs the tasks.
    rows
        Number of the plan's first rows to make; by default all.
    beside
        Folder in which workers look for a user's simulator module.
    limits
        Limits of time and memory for each row.
    report
        Function to call in this thread after each shard.

    Returns
    -------
    Counter
        Number of rows simulated by this call, by status.

    Raises
    ------
    InputError
        If the simulator cannot be started at all.
    WorkError
        If shards are still missing after `TRIES` rounds of tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import Bank, Prior, fill, local_executor, plan_round
    >>> from simulators import GaussianField
    >>> simulator = GaussianField(cells=8, box_length=8.0)
    >>> prior = Prior.from_ranges(simulator.parameters, {})
    >>> bank = Bank.create("runs/fields", simulator)
    >>> theta = prior.sample(6, np.random.default_rng(1))
    >>> plan = bank.add(plan_round(1, prior.hash(), theta, simulator, seed=1))
    >>> with local_executor(1) as executor:
    ...     fill(bank, plan, simulator, executor)
    Counter({'ok': 6})
    """
    done: Counter[str] = Counter()
    trouble: BaseException | None = None
    limits = limits or Limits()
    again = shards_again(bank, plan, rows, limits.seconds, limits.memory_gb)
    unreported = {shard: _size(plan, shard) for shard in bank.missing(plan, rows)} | again

    def pass_on(made: ShardReport) -> None:
        unreported.pop(made.shard, None)
        report(made)

    # Shards that another campaign is making are left for last; by then they exist, or that campaign died.
    for heed in (True, *[False] * (TRIES - 1)):
        missing = [*bank.missing(plan, rows), *again]
        # Two campaigns that fill one bank start at different places and meet late.
        random.Random(os.urandom(8)).shuffle(missing)
        tasks = (
            ShardTask(
                str(bank.path.resolve()),
                plan.id,
                shard,
                simulator.settings(),
                str(beside.resolve()) if beside else None,
                limits,
                heed,
                getattr(simulator, "views_of_a_run", 1),
                shard in again,
            )
            for shard in missing
        )
        trouble = _run(executor, tasks, done, pass_on) or trouble
        again = shards_again(bank, plan, rows, limits.seconds, limits.memory_gb) if again else {}
    if missing := [*bank.missing(plan, rows), *again]:
        raise WorkError(
            f"{bank.path}: {len(missing)} shards of round {plan.id} could not be made "
            f"({type(trouble).__name__}: {trouble}); the same command continues from here"
        )
    for shard, count in sorted(unreported.items()):
        report(ShardReport(shard, count, {}))
    return done


def simulate_one(
    simulator: Simulator,
    theta: NDArray[np.float64],
    seed: int,
    beside: Path | None,
    limits: Limits,
    world: int | None = None,
    after: int | None = None,
) -> RowResult:
    """Run one simulation in a process of its own, without a bank; `world` as in `Child.row`.

    With `after` the process first runs another one, with that seed at the same theta.

    Raises
    ------
    InputError
        If the simulator cannot be started at all.
    """
    try:
        child = Child(simulator.settings(), str(beside) if beside else None, _bytes(limits))
    except ChildStartError as error:
        raise InputError(f"[simulator] cannot be started: {error}") from error
    try:
        if after is not None:
            child.row(theta, after, limits.seconds, world=world)
        return child.row(theta, seed, limits.seconds, world=world)
    finally:
        child.kill()


def run_shard(task: ShardTask) -> ShardReport:
    """Simulate one shard and write it, unless another campaign has done so; runs in a worker."""
    bank = Bank.open(Path(task.bank))
    plan = bank.plan(task.round)
    with bank.claim(plan, task.shard) as ours:
        before = None
        if bank.shard_path(plan, task.shard).exists():
            if not task.again:
                return ShardReport(task.shard, _size(plan, task.shard), {})
            before = bank.read_rows(bank.shard_path(plan, task.shard))
        if task.heed_claims and not ours:
            return ShardReport(task.shard, 0, {})
        return _simulate(bank, plan, task, before)


def _simulate(bank: Bank, plan: Plan, task: ShardTask, before: Rows | None) -> ShardReport:
    """Simulate the rows of a shard; of one that was made `before`, those that are worth another try."""
    rows = plan.rows(task.shard)
    n = _size(plan, task.shard)
    memory = _bytes(task.limits)
    if before is None:
        wanted = np.ones(n, bool)
        arrays = {o.name: np.zeros((n, *o.shape), np.float32) for o in bank.observables}
        results = [RowResult("killed")] * n
    else:
        wanted = to_try_again(before, task.limits.seconds, task.limits.memory_gb)
        arrays = {o.name: bank.read(o.name, before) for o in bank.observables}
        columns = (before.status.tolist(), before.message.tolist(), before.seconds.tolist())
        results = [RowResult(*row) for row in zip(*columns, strict=True)]
    for i in np.flatnonzero(wanted).tolist():
        child = child_of_this_thread(task.simulator, task.beside, memory, bank.fingerprint, recycle=RECYCLE_ROWS)
        row = rows.start + i
        world = None if plan.world is None else int(plan.world[row])
        result = child.row(plan.theta[row], int(plan.seed[row]), task.limits.seconds, row % task.views, world)
        if stopping():
            raise StoppedError
        for name, array in result.arrays.items():
            arrays[name][i] = array
        results[i] = result
    bank.write_shard(
        plan,
        task.shard,
        status=[r.status for r in results],
        message=[r.message for r in results],
        seconds=[r.seconds for r in results],
        arrays=arrays,
        replace=before is not None,
    )
    made = [results[i] for i in np.flatnonzero(wanted)]
    return ShardReport(task.shard, len(made), dict(Counter(r.status for r in made)), sum(r.seconds for r in made))


def _size(plan: Plan, shard: int) -> int:
    """Return the number of rows of a shard."""
    rows = plan.rows(shard)
    return rows.stop - rows.start


def _bytes(limits: Limits) -> int | None:
    return int(limits.memory_gb * 1e9) if limits.memory_gb else None


def _run(
    executor: Executor,
    tasks: Iterator[ShardTask],
    done: Counter[str],
    report: Callable[[ShardReport], None],
) -> BaseException | None:
    """Run each task once, `IN_FLIGHT` at a time; return the last error of one that failed."""
    waiting: set[Future[ShardReport]] = set()
    trouble: BaseException | None = None
    try:
        with held_back() as let_signals_through:
            while True:
                let_signals_through()
                waiting |= {executor.submit(run_shard, task) for task in islice(tasks, IN_FLIGHT - len(waiting))}
                if not waiting:
                    return trouble
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    try:
                        result = future.result()
                    except ChildStartError as error:
                        raise InputError(f"[simulator] cannot be started: {error}") from error
                    except (OSError, InputError, WorkError) as error:
                        # A full disk, say: it would be the same for every other shard.
                        raise WorkError(f"a shard could not be made: {error}") from error
                    except Exception as error:
                        # A worker that died, say.
                        trouble = error
                        continue
                    done.update(result.counts)
                    if result.rows:
                        report(result)
    finally:
        for future in waiting:
            future.cancel()
