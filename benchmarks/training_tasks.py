"""Tasks that `benchmarks.training_throughput` measures, each in a process of its own, with one thread.

python -m benchmarks.training_tasks NAME JOB [--limit-bytes N]      JOB is JSON; prints the figures as JSON
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
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
from eorinfer.bank.rows import Rows
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


def _status(name: str) -> int:
    """Bytes, from /proc."""
    text = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":"))


TASKS = {"ours": train_ours, "sbi": train_sbi, "plain": train_plain, "samples": sample}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(TASKS[sys.argv[1]](Job(**json.loads(sys.argv[2])))))
