"""How fast does a bank fill with 21cmFAST, against a plain loop, and how much memory does a worker take?

The plain loop calls `py21cmfast.run_coeval` in this process with the same inputs, nodes and theta, N_THREADS=1,
`write=False`, initial conditions computed in each call. The bank is filled by worker processes that are
already running; what their start takes is printed by itself. Both run here and now, on the same machine.

    python -m benchmarks.bank_throughput [--rows 16] [--workers 2] [--spin-temperature] [--share 4]
    python -m benchmarks.bank_throughput --memory 300

On a machine that others use too the wall times say little: the last column, from CPU seconds, is what two idle
cores would give.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from eorinfer import Bank, fill, local_executor
from eorinfer.campaign.plans import plan_round
from eorinfer.core.prior import Prior
from simulators import Coeval
from simulators.reionization import engine

PARAMETERS = {False: ("F_ESC10", "ALPHA_ESC", "M_TURN"), True: ("F_ESC10", "M_TURN", "L_X")}


def simulator_of(arguments: argparse.Namespace) -> Coeval:
    """The demo's cubes, or one evolving box with spin temperature."""
    heated = arguments.spin_temperature
    return Coeval(
        redshifts=(7.0, 8.0, 9.0),
        cells=arguments.cells,
        box_length=8.0 * arguments.cells,
        parameters=PARAMETERS[heated],
        spin_temperature=heated,
        **({"nodes": "coarse"} if heated else {}),  # those of the table in docs
        **({"rows_per_realisation": arguments.share} if arguments.share else {}),
    )


def plain_loop(simulator: Coeval, theta: NDArray[np.float64]) -> tuple[float, float]:
    """Wall and CPU seconds for each row."""
    import py21cmfast as p21c

    wall, cpu = time.perf_counter(), time.process_time()
    with engine.quiet(), tempfile.TemporaryDirectory() as folder:
        for seed, row in enumerate(theta):
            for redshifts, own in simulator._groups(seed):
                inputs = simulator._inputs(p21c, own).evolve_input_structs(**simulator._values(row))
                p21c.run_coeval(
                    inputs=inputs,
                    out_redshifts=list(redshifts),
                    write=False,
                    cache=p21c.OutputCache(folder),
                    regenerate=True,
                )
    return (time.perf_counter() - wall) / len(theta), (time.process_time() - cpu) / len(theta)


@contextmanager
def timed_21cmfast() -> Iterator[list[float]]:
    """CPU seconds spent in 21cmFAST's own calls by simulations of this process, as a list of one number."""
    import py21cmfast as p21c

    spent = [0.0]
    plain_evolve, plain_initial = p21c.generate_coeval, p21c.compute_initial_conditions

    def evolve(**options: Any) -> Iterator[Any]:
        coevals = plain_evolve(**options)
        while True:
            start = time.process_time()
            try:
                coeval = next(coevals)
            except StopIteration:
                return
            finally:
                spent[0] += time.process_time() - start
            yield coeval

    def initial(**options: Any) -> Any:
        start = time.process_time()
        try:
            return plain_initial(**options)
        finally:
            spent[0] += time.process_time() - start

    p21c.generate_coeval, p21c.compute_initial_conditions = evolve, initial
    try:
        yield spent
    finally:
        p21c.generate_coeval, p21c.compute_initial_conditions = plain_evolve, plain_initial


def overhead(simulator: Coeval, theta: NDArray[np.float64]) -> float:
    """CPU time that `simulate` takes beside 21cmFAST, over the time inside 21cmFAST."""
    share = simulator.rows_per_realisation
    with timed_21cmfast() as spent:
        start = time.process_time()
        for i, row in enumerate(theta):
            simulator.simulate(row, 1000 + i // share)
        total = time.process_time() - start
    return (total - spent[0]) / spent[0]


def children() -> list[psutil.Process]:
    """The simulator processes of this one."""
    return [p for p in psutil.Process().children() if "eorinfer.campaign.child" in p.cmdline()]


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """CPU time that these processes have used."""
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def throughput(arguments: argparse.Namespace) -> None:
    """Print the comparison."""
    simulator = simulator_of(arguments)
    prior = Prior.from_ranges(simulator.parameters, {})
    theta = prior.sample(arguments.rows, np.random.default_rng(1))
    simulator.check_available()
    plain_loop(simulator, theta[:1])  # tables and imports
    # Half of the plain loop before and half after, so that a busier machine hits both.
    half = max(1, arguments.rows // 2)
    first = plain_loop(simulator, theta[:half])
    with tempfile.TemporaryDirectory() as folder, local_executor(arguments.workers) as executor:
        bank = Bank.create(Path(folder) / "bank", simulator)
        start = time.perf_counter()
        # A shard for each worker, so that all of them start.
        warm = plan_round(8, "warm", theta[: arguments.workers], simulator, 8, share=1)
        warm = bank.add(replace(warm, shard_rows=1))
        fill(bank, warm, simulator, executor)
        warming = time.perf_counter() - start
        processes = children()
        assert len(processes) == arguments.workers
        plan = bank.add(plan_round(9, "timed", theta, simulator, 9))
        wall, cpu, own = time.perf_counter(), cpu_seconds(processes), time.process_time()
        counts = fill(bank, plan, simulator, executor)
        wall = (time.perf_counter() - wall) / arguments.rows
        cpu = (cpu_seconds(processes) - cpu) / arguments.rows
        own = (time.process_time() - own) / arguments.rows
        assert counts["ok"] == arguments.rows, counts
    second = plain_loop(simulator, theta[half : 2 * half])
    plain_wall, plain_cpu = ((a + b) / 2 for a, b in zip(first, second, strict=True))
    inside = overhead(simulator, theta[: 2 * simulator.rows_per_realisation])
    kind = "with spin temperature" if arguments.spin_temperature else "without spin temperature"
    print(f"{kind}, {arguments.cells}³ cells, {arguments.rows} rows, share {simulator.rows_per_realisation}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; start of the workers {warming:.1f} s")
    print("                          wall s/row   CPU s/row")
    print(f"plain loop, 1 process  {plain_wall:13.2f} {plain_cpu:11.2f}")
    print(f"bank, {arguments.workers} workers        {wall:13.2f} {cpu + own:11.2f}   of it campaign {own:.3f}")
    print(f"times the plain loop   {plain_wall / wall:13.2f} {arguments.workers * plain_cpu / (cpu + own):11.2f}")
    print(f"overhead over the time inside 21cmFAST: simulate {inside:.1%}, campaign {own / cpu:.1%}")


def memory(arguments: argparse.Namespace) -> None:
    """Print the resident memory of one worker as it goes on."""
    # One redshift: what grows would grow with simulations, not with what each makes.
    simulator = simulator_of(arguments).model_copy(update={"redshifts": (8.0,)})
    theta = Prior.from_ranges(simulator.parameters, {}).sample(arguments.memory, np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as folder, local_executor(1) as executor:
        bank = Bank.create(Path(folder) / "bank", simulator)
        plan = bank.add(plan_round(9, "memory", theta, simulator, 9))
        done = [0]

        def say(report: Any) -> None:
            done[0] += sum(report.counts.values())
            (process,) = children()
            print(f"{done[0]:5d} simulations: {process.memory_info().rss / 1e6:.0f} MB", flush=True)

        fill(bank, plan, simulator, executor, report=say)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--share", type=int, help="rows of one realisation, by default the simulator's own")
    parser.add_argument("--spin-temperature", action="store_true")
    parser.add_argument("--memory", type=int, metavar="ROWS", help="print the memory of one worker over these rows")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments)
    else:
        throughput(arguments)


if __name__ == "__main__":
    main()
