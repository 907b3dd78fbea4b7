"""How fast is training, and how much memory does it take, beside sbi's own on the same network and rows?

    python -m benchmarks.training_throughput                         everything: about half an hour
    python -m benchmarks.training_throughput --parts sbi memory
    python -m benchmarks.training_throughput --parts gpu             under 10 minutes, on a machine that has a GPU

Each measurement is a process of its own, with one thread. Its seconds begin with opening a bank that is on disk and
end with a posterior that can be sampled; simulations, imports and building the network are not counted.
Beside the clock there are the seconds of the processor, which tell more on a machine that does other things too.

sbi       `NPE(...).append_simulations(...).train(...)` is given our own network as its density estimator, the same
          rows with one draw of noise, batch size, epochs and validation fraction. Ours transforms and observes
          the rows anew at each step, and makes the reference that observations are compared with later. "Plain"
          is a bare loop of forward pass, backward pass and optimiser over tensors: a bound for both.
memory    The most that the process held (VmHWM) above what it held just before the bank was opened,
          when everything was imported and a network had gone forth and back on one batch, over the bank's size.
out-of-core
          The same training of a bank of 3 times the memory limit, first without a limit and in memory, then under
          RLIMIT_AS (`ulimit -v`) on the whole process with its libraries, in two states: the bank's files in the
          operating system's cache, and dropped from it every second.
sampling  10,000 samples for one observation, and calibration of 1,000 observations by 1,000 samples.
gpu       Rows a second of training in float32 and bfloat16, and of the plain loop with the rows on the device.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from benchmarks.training_tasks import Job
from eorinfer import Bank
from eorinfer.bank.rows import Plan
from eorinfer.training.data import MEMORY_SHARE, memory

PARTS = ("sbi", "memory", "out-of-core", "sampling", "gpu")
SHARD_ROWS = 256


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=int, default=8000, help="of the bank of `sbi` and `gpu`; `memory` takes 3 times")
    parser.add_argument("--cells", type=int, default=64, help="along each side of its images")
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 8], help="of `sbi`; 2 at least")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=8, help="channels of the CNN")
    parser.add_argument("--limit", type=float, default=1.75, help="of `out-of-core`, in GB; needs 3 times that on disk")
    parser.add_argument("--repeats", type=int, default=1, help="of each training of `sbi`; medians are told")
    parser.add_argument("--folder", type=Path, default=None, help="for banks; by default the temporary one")
    parser.add_argument("--cpu", action="store_true", help="run the part `gpu` on a processor, to try it out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="training-throughput-", dir=arguments.folder) as folder:
        for part in arguments.parts:
            MEASURE[part](Path(folder), arguments)


def against_sbi(folder: Path, arguments: argparse.Namespace) -> None:
    """Seconds from bank to posterior at several numbers of epochs."""
    job = a_job(folder / "bank", arguments, arguments.rows)
    print(
        f"\n{arguments.rows} images of {arguments.cells}², batches of {job.batch}, width {job.width}; s (processor's s)"
    )
    table = []
    for epochs in arguments.epochs:
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "sbi": [], "plain": []}
        for _ in range(arguments.repeats):
            # In turn: what else the machine does meets all of them.
            for name, results in runs.items():
                results.append(child(name, job, epochs=epochs))
        middle = {name: medians(results) for name, results in runs.items()}
        ours, sbi, plain = middle["ours"], middle["sbi"], middle["plain"]
        print(
            f"{epochs:3d} epochs: ours {both(ours)}, sbi {both(sbi)}, plain {both(plain)}; "
            f"ours / sbi {ours['seconds'] / sbi['seconds']:.2f} ({ours['cpu'] / sbi['cpu']:.2f}), "
            f"plain / sbi {plain['seconds'] / sbi['seconds']:.2f} ({plain['cpu'] / sbi['cpu']:.2f})\n"
            f"            sbi: append_simulations {sbi['append']:.1f} ({sbi['append_cpu']:.1f}); ours: fit "
            f"{ours['fit']:.1f} ({ours['fit_cpu']:.1f}), reference, scaling and reading "
            f"{ours['seconds'] - ours['fit']:.1f} ({ours['cpu'] - ours['fit_cpu']:.1f}); validation loss: "
            f"ours {ours['loss']:.2f}, sbi {sbi['loss']:.2f}",
            flush=True,
        )
        table.append((epochs, ours, sbi, plain))
    print(
        f"of a step of ours: symmetries {100 * ours['share_symmetry']:.0f}%, noise {100 * ours['share_survey']:.0f}%, "
        f"fetching the rows {100 * ours['share_fetch']:.0f}%"
    )
    if len(table) > 1:
        (a, *first), (b, *last) = table[0], table[-1]
        lines = [((y["cpu"] - x["cpu"]) / (b - a), x["cpu"]) for x, y in zip(first, last, strict=True)]
        each, fixed = zip(*[(slope, start - a * slope) for slope, start in lines], strict=True)
        print(
            "processor's seconds, before the first epoch and for each: "
            + ", ".join(f"{n} {f:.1f} + {e:.2f}" for n, f, e in zip(("ours", "sbi", "plain"), fixed, each, strict=True))
            + f"; each epoch ours / sbi {each[0] / each[1]:.2f}"
        )


def peak_memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Peak memory over the bank's size, of two epochs."""
    job = a_job(folder / "memory", arguments, 3 * arguments.rows, quick=True)
    size = 3 * arguments.rows * 4 * arguments.cells**2
    print(f"\npeak memory, {size / 1e6:.0f} MB of images that fit in memory")
    for name in ("ours", "sbi"):
        result = child(name, job, epochs=2)
        print(
            f"{name}: {result['peak'] / 1e6:.0f} MB over the {result['before'] / 1e6:.0f} MB before it, "
            f"{result['peak'] / size:.2f} times the data"
            + (f"; until the fit ends, {result['peak_fit'] / size:.2f}" if "peak_fit" in result else ""),
            flush=True,
        )


def out_of_core(folder: Path, arguments: argparse.Namespace) -> None:
    """One epoch of a bank that is 3 times as large as the memory that the process may have."""
    # A network that computes little: reading has the less time to hide.
    limit, cells, width = int(1e9 * arguments.limit), arguments.cells, 4
    rows = -(-3 * limit // (4 * cells**2))
    job = a_job(folder / "large", arguments, rows, quick=True)
    held = (
        "in memory" if rows * 4 * cells**2 < MEMORY_SHARE * memory() else "NOT IN MEMORY, this machine has too little"
    )
    print(f"\n{rows} images of {cells}², {3 * arguments.limit:.2g} GB; one epoch, width {width}")
    files = sorted((folder / "large" / "shards").glob("*.h5"))
    states: list[tuple[str, list[str], Callable[[], Any]]] = [
        (f"no limit, {held}", [], nullcontext),
        (f"RLIMIT_AS {arguments.limit} GB, files cached", ["--limit-bytes", str(limit)], nullcontext),
        (
            f"RLIMIT_AS {arguments.limit} GB, files dropped",
            ["--limit-bytes", str(limit)],
            lambda: forgotten(files),
        ),
    ]
    first: dict[str, Any] = {}
    for name, options, around in states:
        with around():
            result = child("ours", job, options, epochs=1, width=width)
        first = first or result
        speed, cpu_speed = result["rows"] / result["fit"], result["rows"] / result["fit_cpu"]
        share, cpu_share = first["fit"] / result["fit"], first["fit_cpu"] / result["fit_cpu"]
        print(
            f"{name}: {speed:.0f} rows a second ({cpu_speed:.0f} a processor's second), {share:.0%} ({cpu_share:.0%}) "
            f"of that in memory; from bank to posterior {both(result)}, {first['seconds'] / result['seconds']:.0%}; "
            f"peak {(result['peak'] + result['before']) / 1e6:.0f} MB resident",
            flush=True,
        )


def sampling(folder: Path, arguments: argparse.Namespace) -> None:
    """Samples of one observation, and calibration."""
    job = a_job(folder / "sampling", arguments, 1000)
    print("\nsampling, in s (processor's s); images of", f"{arguments.cells}²")
    for name, width in (("small network, width 4", 4), ("default network, width 16", 16)):
        result = child("samples", job, epochs=3, width=width)
        print(
            f"{name}: 10,000 samples of one observation {result['sample']:.2f} ({result['sample_cpu']:.2f}); 1,000 "
            f"observations by 1,000 samples: drawn {result['draw']:.1f} ({result['draw_cpu']:.1f}), their densities "
            f"{result['density']:.1f} ({result['density_cpu']:.1f}), ranks, tests and their power "
            f"{result['calibrate']:.1f} ({result['calibrate_cpu']:.1f})",
            flush=True,
        )


def on_gpu(folder: Path, arguments: argparse.Namespace) -> None:
    """Rows a second, and those of the bare passes."""
    if not (torch.cuda.is_available() or arguments.cpu):
        print("\ngpu: left out, there is none here")
        return
    job = a_job(folder / "gpu", arguments, arguments.rows, quick=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"
    print(f"\n{device}: {arguments.rows} images of {arguments.cells}², rows a second")
    for batch in (job.batch, 8 * job.batch):
        for precision in ("32-true", "bf16-mixed"):
            ours, plain = (child(name, job, epochs=5, batch=batch, precision=precision) for name in ("ours", "plain"))
            speed, bound = ours["rows"] / ours["fit"], plain["rows"] / plain["seconds"]
            print(
                f"batches of {batch}, {precision}: training {speed:.0f}, passes alone {bound:.0f}: {speed / bound:.0%}",
                flush=True,
            )


def a_job(path: Path, arguments: argparse.Namespace, rows: int, quick: bool = False) -> Job:
    """A bank of Gaussian fields, or quickly of white noise, and what is to be done with it."""
    job = Job(str(path), arguments.cells, 1, arguments.batch, arguments.width)
    if not path.exists():
        bank, rng = Bank.create(path, job.simulator), np.random.default_rng(0)
        theta = job.prior.sample(rows, rng)
        plan = bank.add(Plan("01-bench", 1, job.prior.hash(), SHARD_ROWS, theta, np.arange(rows, dtype=np.uint64)))
        for shard in range(plan.shards):
            index = range(rows)[plan.rows(shard)]
            n = len(index)
            if quick:
                fields = rng.standard_normal((n, 1, job.cells, job.cells), np.float32)
                fields *= np.exp(theta[index, :1, None, None] / 2)
            else:
                fields = np.stack([job.simulator.simulate(theta[i], i)["field"] for i in index])
            bank.write_shard(
                plan, shard, status=["ok"] * n, message=[""] * n, seconds=[0.0] * n, arrays={"field": fields}
            )
        os.sync()
    return job


def child(name: str, job: Job, options: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    """Run a task in a process of its own and return its result."""
    content = json.dumps({**vars(job), **changes})
    command = [sys.executable, "-m", "benchmarks.training_tasks", name, content, *(options or [])]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name}: {run.stderr[-2000:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


@contextmanager
def forgotten(files: list[Path]) -> Iterator[None]:
    """Every second, the operating system is told to drop these files from its cache."""
    done = Event()

    def forget() -> None:
        while True:
            for file in files:
                descriptor = os.open(file, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
            if done.wait(1.0):
                return

    thread = Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def medians(results: list[dict[str, Any]]) -> dict[str, float]:
    """Median of each figure."""
    return {key: float(np.median([result[key] for result in results])) for key in results[0]}


def both(result: dict[str, float]) -> str:
    """Seconds, and those of the processor."""
    return f"{result['seconds']:.1f} ({result['cpu']:.1f})"


MEASURE = dict(zip(PARTS, (against_sbi, peak_memory, out_of_core, sampling, on_gpu), strict=True))

if __name__ == "__main__":
    main()
