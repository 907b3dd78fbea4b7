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
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

if __name__ == "__main__" and "--limit-bytes" in sys.argv:  # before anything large is imported
    _most = int(sys.argv[sys.argv.index("--limit-bytes") + 1])
    resource.setrlimit(resource.RLIMIT_AS, (_most, _most))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sbi.inference import NPE
from sbi.neural_nets.estimators import ConditionalDensityEstimator
from sbi.utils import BoxUniform
from torch import Tensor

from eorinfer import Bank, Observation
from eorinfer.bank.rows import Plan, Rows
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Advance, Silent
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.npe.trainer import Trainer
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings, TrainingSettings
from eorinfer.survey import WhiteNoise, build_survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.data import MEMORY_SHARE, memory, validation_rows
from eorinfer.validation.calibration import calibrate
from simulators import GaussianField

PARTS = ("sbi", "memory", "out-of-core", "sampling", "gpu")
SHARD_ROWS = 256
NOISE = WhiteNoise(kind="white-noise", sigma=0.3)


@dataclass(frozen=True)
class Job:
    """Task of one process.

    Attributes
    ----------
    bank
        Folder of the bank.
    cells
        Along each side of an image.
    epochs, batch, width
        Length, batch size and width of the CNN in training; everything else is the default network.
    precision
        See ``[training]``.
    """

    bank: str
    cells: int
    epochs: int
    batch: int
    width: int
    precision: str = "32-true"

    @property
    def simulator(self) -> GaussianField:
        """Simulator of the bank."""
        return GaussianField(cells=self.cells, box_length=float(self.cells))

    @property
    def prior(self) -> Prior:
        """Prior of theta."""
        return Prior.from_ranges(self.simulator.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})

    @property
    def architecture(self) -> Architecture:
        """The default one, but for its width."""
        return Architecture(EmbeddingSettings(width=self.width), FlowSettings(), PowerSpectrumSettings())

    def trainer(self, rows: Rows) -> Trainer:
        """Make a trainer for this number of epochs of these rows."""
        training = TrainingSettings(batch_size=self.batch, ensemble=1, precision=self.precision)
        batches = int((~validation_rows(rows.seed, training.validation_fraction)).sum()) // self.batch
        training = training.model_copy(update={"steps": self.epochs * batches})
        observable = self.simulator.observables[0]
        return Trainer(
            self.prior, observable, NOISE, build_survey(NOISE, observable), self.architecture, training
        )  # fmt: skip

    def network(self) -> PosteriorNetwork:
        """Fresh, and once forth and back on a batch of noise, so that all that is needed is loaded."""
        torch.manual_seed(1)
        network = self.architecture.build(self.prior, self.simulator.observables[0])
        assert isinstance(network, PosteriorNetwork)
        theta = torch.from_numpy(self.prior.sample(self.batch, np.random.default_rng(1)))
        network.loss(theta, torch.randn(self.batch, *self.simulator.observables[0].shape)).mean().backward()
        network.zero_grad()
        return network


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
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--limit-bytes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](Job(**json.loads(arguments.job)))))
        return
    with tempfile.TemporaryDirectory(prefix="training-throughput-", dir=arguments.folder) as folder:
        for part in arguments.parts:
            MEASURE[part](Path(folder), arguments)


# -- the parts ---------------------------------------------------------------------------------


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


# -- what a process does -----------------------------------------------------------------------


def train_ours(job: Job) -> dict[str, Any]:
    """`Trainer.train`, as it is."""
    job.network()
    clock = FitClock()
    with used() as result, tempfile.TemporaryDirectory() as folder:
        bank = Bank.open(Path(job.bank))
        rows = bank.rows().ok
        trainer = job.trainer(rows)
        posterior = trainer.train(bank, rows, folder=Path(folder), seed=1, progress=clock)
    [fit] = posterior.facts["fits"]
    assert fit["epochs"] == job.epochs
    steps = trainer.training.steps
    result["peak_fit"] = clock.peak - result["before"]
    result |= {"fit": clock.seconds, "fit_cpu": clock.cpu, "rows": steps * job.batch, "loss": fit["validation_loss"]}
    # The time of single steps, by themselves.
    some = rows[np.random.default_rng(1).permutation(len(rows))[: job.batch]]
    clean = torch.from_numpy(bank.read("field", some))
    symmetry, generator = trainer.observable.symmetry, torch.Generator().manual_seed(1)
    each = clock.cpu / steps
    held = len(rows) * clean[0].nbytes < MEMORY_SHARE * memory()
    index = np.arange(job.batch).tolist()
    return result | {
        "share_symmetry": processor_seconds(lambda: augment(clean, symmetry, generator)) / each,
        "share_survey": processor_seconds(lambda: trainer.survey(clean, generator)) / each,
        "share_fetch": processor_seconds(lambda: clean[index] if held else bank.read("field", some)) / each,
    }


def train_sbi(job: Job) -> dict[str, Any]:
    """`NPE.train`, on our network."""
    network = job.network()
    prior = BoxUniform(torch.tensor(job.prior.low).float(), torch.tensor(job.prior.high).float())
    with used() as result:
        bank = Bank.open(Path(job.bank))
        rows = bank.rows().ok
        theta = torch.as_tensor(rows.theta).float()
        x = job.trainer(rows).survey(torch.from_numpy(bank.read("field", rows)), torch.Generator().manual_seed(1))

        def build(theta: Tensor, x: Tensor) -> ConditionalDensityEstimator:
            network.embedding.fit_scaling(x[:512])
            return Estimator(network, theta.shape[1:], x.shape[1:])

        inference = NPE(prior, density_estimator=build, tracker=NoTracker(), show_progress_bars=False)
        start, start_cpu = time.perf_counter(), time.process_time()
        inference.append_simulations(theta, x)
        del x
        result |= {"append": time.perf_counter() - start, "append_cpu": time.process_time() - start_cpu}
        # It runs one epoch more than it is told, which is one at least.
        inference.train(training_batch_size=job.batch, max_num_epochs=job.epochs - 1, stop_after_epochs=10**6)
        inference.build_posterior()
    assert inference.summary["epochs_trained"] == [job.epochs]
    # Ours is relative to the prior.
    return result | {"loss": float(inference.summary["best_validation_loss"][0])}


def train_plain(job: Job) -> dict[str, Any]:
    """A loop without anything but the two passes and the optimiser, on rows that are on the device already."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = job.network().to(device)
    bank = Bank.open(Path(job.bank))
    rows = bank.rows().ok
    rows = rows[~validation_rows(rows.seed, TrainingSettings().validation_fraction)]
    theta, x = torch.as_tensor(rows.theta).to(device), torch.from_numpy(bank.read("field", rows)).to(device)
    network.embedding.fit_scaling(x[:512])
    optimiser = torch.optim.AdamW(network.parameters())
    half = torch.autocast(device.type, torch.bfloat16) if job.precision == "bf16-mixed" else nullcontext()
    batches = len(rows) // job.batch
    with used() as result:
        for _ in range(job.epochs):
            for index in torch.randperm(len(rows), device=device)[: batches * job.batch].view(batches, job.batch):
                optimiser.zero_grad()
                with half:
                    loss = network.loss(theta[index], x[index]).mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
        loss.item()  # waits for the device
    return result | {"rows": job.epochs * batches * job.batch}


def sample(job: Job) -> dict[str, Any]:
    """Samples of a posterior that is quickly trained, and its calibration."""
    bank = Bank.open(Path(job.bank))
    rows = bank.rows().ok
    with tempfile.TemporaryDirectory() as folder:
        posterior = job.trainer(rows).train(bank, rows, folder=Path(folder), seed=1)
    clean = bank.read("field", rows)
    observation = Observation.from_observable(posterior.observable, clean[0], rows.theta[0])
    times = [timed(lambda: posterior.draw(observation, 10_000, 1))[:2] for _ in range(6)][1:]
    seconds, cpu = np.median(times, axis=0).tolist()
    observed = build_survey(NOISE, posterior.observable)(torch.from_numpy(clean), torch.Generator().manual_seed(1))
    result = {"sample": seconds, "sample_cpu": cpu}

    def drawn() -> tuple[Any, Any]:
        read = posterior.read(observed)
        return read, draw(posterior, read, 1000, 1).values

    def densities() -> tuple[Any, Any]:
        return log_density(posterior.networks, rows.theta[:, None], read)[:, 0], log_density(
            posterior.networks, draws, read
        )

    result["draw"], result["draw_cpu"], (read, draws) = timed(drawn)
    result["density"], result["density_cpu"], (at_truth, at_draws) = timed(densities)
    unit_theta, unit_draws = posterior.prior.unit(rows.theta), posterior.prior.unit(draws)
    result["calibrate"], result["calibrate_cpu"], _ = timed(
        lambda: calibrate(posterior.prior.names, unit_theta, unit_draws, at_truth, at_draws, 1)
    )
    return result


class Estimator(ConditionalDensityEstimator):
    """Our network as sbi wants it."""

    def __init__(self, network: PosteriorNetwork, input_shape: torch.Size, condition_shape: torch.Size) -> None:
        super().__init__(network, input_shape, condition_shape)

    def loss(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """Theta (B, P) and x (B, C, *cells) to (B,)."""
        return self.net.loss(input.double(), condition)

    def log_prob(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """Theta (n, B, P) and x (B, C, *cells) to (n, B)."""
        return self.net.log_prob(input.double(), self.net.embedding(condition))

    def sample(self, sample_shape: torch.Size, condition: Tensor, **_: Any) -> Tensor:
        """(*sample_shape, B, P) draws for x (B, C, *cells)."""
        theta = self.net.sample(sample_shape.numel(), self.net.embedding(condition))
        return theta.float().reshape(*sample_shape, *theta.shape[1:])


class NoTracker:
    """Takes the place of sbi's folder of logs."""

    log_dir = None

    def log_metric(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    log_metrics = log_params = add_figure = flush = log_metric


class FitClock(Silent):
    """Seconds of the fit alone, from the progress that it tells, and the peak of memory up to its end."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Time the block."""
        start, start_cpu = time.perf_counter(), time.process_time()
        yield lambda n, note="": None  # type: ignore[misc]
        self.seconds, self.cpu = time.perf_counter() - start, time.process_time() - start_cpu
        self.peak = _status("VmHWM")


# -- helpers -----------------------------------------------------------------------------------


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
    command = [sys.executable, __file__, "--child", name, "--job", content, *(options or [])]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name}: {run.stderr[-2000:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


@contextmanager
def used() -> Iterator[dict[str, Any]]:
    """Seconds, processor's seconds and peak memory of the block; `getrusage` would count the process before exec."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result: dict[str, Any] = {}
    start, start_cpu = time.perf_counter(), time.process_time()
    yield result
    result |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - start_cpu}
    result |= {"peak": _status("VmHWM") - before, "before": before}


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of a call, those of the processor, and what it returns."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - start_cpu, result


def processor_seconds(function: Callable[[], Any]) -> float:
    """Median of 20 calls."""
    return float(np.median([timed(function)[1] for _ in range(20)]))


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


def _status(name: str) -> int:
    """Bytes, from /proc."""
    text = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":"))


CHILDREN = {"ours": train_ours, "sbi": train_sbi, "plain": train_plain, "samples": sample}
MEASURE = dict(zip(PARTS, (against_sbi, peak_memory, out_of_core, sampling, on_gpu), strict=True))

if __name__ == "__main__":
    main()
