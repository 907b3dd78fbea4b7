"""Simulations of a run: fill its bank, refuse too many failures, and simulate single rows outside the bank."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.again import shards_again
from eorinfer.bank.store import Bank
from eorinfer.campaign.child import RowResult
from eorinfer.campaign.executors import open_executor, worker_count
from eorinfer.campaign.fill import Limits, ShardReport, fill, simulate_one
from eorinfer.campaign.plans import Used, planned_rows
from eorinfer.core.errors import InputError, WorkError, naming
from eorinfer.core.progress import Advance, Progress, duration
from eorinfer.run.config import Config
from simulators.registry import own_sources

#: Seconds up to which a simulator of the user's own is tried twice, to see whether it keeps to its seed.
AGAIN = 60.0


class Simulations:
    """Runs the simulator of a config, where its ``[executor]`` says.

    Parameters
    ----------
    config
        Simulator and executor.
    bank
        Bank that keeps the rows.
    progress
        Receives lines and bars.
    """

    def __init__(self, config: Config, bank: Bank, progress: Progress) -> None:
        self.config, self.bank, self.progress = config, bank, progress
        self._said: set[str] = set()
        self._tried = False
        self._executor: Executor | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep the workers, and the simulators that they have started, for many calls of `fill`."""
        with self._naming_the_config(), self._workers() as executor:
            self._executor = executor
            try:
                yield
            finally:
                self._executor = None

    def lacking(self, plans: Sequence[Used], *, whole: bool = False) -> int:
        """Count the rows to simulate among the first of each plan: those not in the bank, and those worth a new try.

        With `whole`, those beyond the first count too that are made with them, since shards are made whole.
        """
        limits = self._limits()
        again = (shards_again(self.bank, of.plan, of.first, limits.seconds, limits.memory_gb) for of in plans)
        return self.missing(plans, whole=whole) + sum(sum(counts.values()) for counts in again)

    def missing(self, plans: Sequence[Used], *, whole: bool = False) -> int:
        """Count the rows, among the first of each plan, that the bank does not have yet; `whole` as in `lacking`."""
        return sum(
            len(range(*of.plan.rows(shard).indices(len(of.plan) if whole else min(of.first, len(of.plan)))))
            for of in plans
            for shard in self.bank.missing(of.plan, of.first)
        )

    def fill(self, plans: Sequence[Used], title: str) -> None:
        """Simulate what these plans lack, and judge failures: those of earlier calls count too.

        Raises
        ------
        InputError
            See `refuse_unfinished`.
        WorkError
            If a larger share failed than the config allows.
        """
        if self.config.imported:
            self.refuse_unfinished(plans)
        if rows := self.lacking(plans, whole=True):
            with (
                self._naming_the_config(),
                self._workers() as executor,
                self.progress.bar(f"simulating, {title}", rows) as advance,
            ):
                self._fill(plans, executor, advance)
        self._judge(plans, title)

    def refuse_unfinished(self, plans: Sequence[Used]) -> None:
        """Refuse imports that were stopped: what they lack cannot be simulated.

        Raises
        ------
        InputError
            If the bank lacks some of the first rows of these plans.
        """
        if lacking := self.missing(plans):
            planned = sum(of.first for of in plans)
            raise InputError(
                f"{self.bank.path}: {lacking} of {planned} imported cubes are not there, as after an import that was "
                "stopped; give the same `eorinfer bank import` again"
            )

    def one(self, theta: NDArray[np.float64], seed: int, world: int | None = None) -> RowResult:
        """One simulation outside of the bank, by the world with this number or the one that the seed draws."""
        with self._naming_the_config():
            return simulate_one(self.config.simulator, theta, seed, self.config.modules, self._limits(), world)

    def try_seed(
        self, theta: NDArray[np.float64], seed: int, other: int, world: int | None, first: RowResult | None = None
    ) -> None:
        """Say where a simulator of the user's own gives two cubes for one theta and seed; asked once, if it is quick.

        The second cube is made in a process that has made one of the seed `other` before: what a simulator keeps from
        one call to the next, or draws from a generator of its own, shows in it. `first` is what a process of its own
        has made.
        """
        if self._tried or not own_sources(self.config.simulator):
            return
        self._tried = True
        first = first or self.one(theta, seed, world)
        if first.status != "ok" or first.seconds > AGAIN:
            return
        with self._naming_the_config():
            again = simulate_one(
                self.config.simulator, theta, seed, self.config.modules, self._limits(), world, after=other
            )
        name = self.config.observable.name
        if again.status != "ok" or not np.array_equal(again.arrays[name], first.arrays[name]):
            self.progress.line(
                "WARNING: the simulator gives two cubes for one theta and seed, so that no run can be repeated and "
                "rows may share their noise: draw all random numbers from np.random.default_rng(seed) in the call, "
                "and keep nothing from one call to the next"
            )

    def preflight(self, what: str, planned: int, there: int, alone: int = 0) -> str:
        """Estimate the simulations ahead, `planned` less those `there`, with seconds and disk, in one line.

        `alone` of those ahead have a run of their own, which takes as long as all views of one.

        Raises
        ------
        WorkError
            If the disk has less room than the arrays take.
        """
        line = f"preflight: {what}"
        if planned == there:
            return f"{line}, all of them in the bank"
        measured = self.bank.rows().ok.seconds
        measured = measured[measured > 0]  # imported rows took no time here
        each = float(np.mean(measured)) if len(measured) else self.config.simulator.seconds_per_row
        source = "as measured so far" if len(measured) else "by the simulator's own estimate"
        workers = worker_count(self.config.tables.executor)
        ahead = planned - there
        views = getattr(self.config.simulator, "views_of_a_run", 1)
        seconds = each * (ahead + alone * (views - 1)) / (workers or 1)
        size, free = ahead * self.bank.bytes_per_row, shutil.disk_usage(self.bank.path).free
        if size > free:
            raise WorkError(
                f"{line}, {there} of them in the bank; the others take {_size(size)} of disk, and {self.bank.path} has "
                f"{_size(free)} left; make room, or give [bank] path on another disk"
            )
        on = f"on {workers} process(es)" if workers else "on one process, less on many"
        return (
            f"{line}, {there} of them in the bank; about {duration(seconds)} of simulating "
            f"{on} ({each:.2g} s each, {source}) and "
            f"{_size(size)} of disk ({_size(free)} free)"
        )

    @contextmanager
    def _workers(self) -> Iterator[Executor]:
        if self._executor is not None:
            yield self._executor
            return
        with open_executor(self.config.tables.executor, self.bank.path / "jobs", self.progress.line) as executor:
            yield executor

    def _fill(self, plans: Sequence[Used], executor: Executor, advance: Advance) -> None:
        counts: Counter[str] = Counter()

        def tell(report: ShardReport) -> None:
            counts.update(report.counts)
            bad = sum(counts.values()) - counts["ok"]
            advance(report.rows, f"{bad} failed" if bad else "")

        for of in plans:
            fill(
                self.bank,
                of.plan,
                self.config.simulator,
                executor,
                rows=of.first,
                beside=self.config.modules,
                limits=self._limits(),
                report=tell,
            )

    def _judge(self, plans: Sequence[Used], title: str) -> None:
        rows = planned_rows(self.bank, plans)
        failed = rows[rows.status != "ok"]
        if not len(failed):
            return
        kinds = ", ".join(f"{n} {status}" for status, n in failed.counts().items())
        example = next((f"; for example: {m}" for m in failed.message if m), "")
        line = f"{title}: {len(failed)} of {len(rows)} simulations failed ({kinds}){example}"
        share = self.config.tables.executor.failure_share
        if len(failed) > share * len(rows):
            raise WorkError(f"{line}; more than [executor] failure_share = {share:g}")
        if line not in self._said:
            self._said.add(line)
            self.progress.line(line)

    def _limits(self) -> Limits:
        return Limits(self.config.tables.executor.timeout, self.config.tables.executor.memory_gb)

    def _naming_the_config(self) -> AbstractContextManager[None]:
        """A simulator that cannot be started is an error in the config's ``[simulator]``."""
        return naming(f"{self.config.file}: ", InputError)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
