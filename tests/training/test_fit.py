"""Fits: the best weights, the same ones again, the same ones after a stop, and no network from NaN."""

import errno
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Advance, Silent
from eorinfer.core.seeds import WorkStream, stream_seed
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.data import Tensors
from eorinfer.training.fit import FitRecord, fit


class Line(nn.Module):
    """y = a x + b, with noise on x that is drawn anew for each batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        self.batches = 0

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        x, y = batch
        self.batches += self.training
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        return (self.layers(x) - y).square().squeeze(-1)


class Breaks(Line):
    """Its loss is NaN from a certain batch on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        losses = super().losses(batch, generator)
        self.left -= self.training
        return losses * torch.nan if self.left < 0 else losses


class StopsAt(Silent):
    """Raises what it is given when so many epochs are done."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.left, self.error = epoch, error

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        def advance(n: int, note: str = "") -> None:
            self.left -= n
            if self.left <= 0:
                raise self.error

        yield advance


def rows(n: int, seed: int) -> Tensors:
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    return Tensors(x, torch.sin(2 * x))


TRAINING, VALIDATION = rows(40, 1), rows(20, 2)


def settings(steps: int = 100, **changes: Any) -> TrainingSettings:
    return TrainingSettings(steps=steps, epochs=1000, batch_size=10, learning_rate=0.05, **changes)


def fitted(folder: Path, steps: int = 100, seed: int = 7, **options: Any) -> tuple[Line, FitRecord]:
    module = options.pop("module", None) or Line()
    record = fit(module, TRAINING, VALIDATION, settings(steps), folder=folder, seed=seed, **options)
    return module, record


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_keeps_the_weights_that_validated_best(tmp_path: Path) -> None:
    module, record = fitted(tmp_path)
    assert record.epochs == 25
    losses = [h["validation"] for h in record.history]
    assert record.validation_loss == min(losses) < 0.5 * losses[0]
    assert [h["epoch"] for h in record.history] == list(range(25))
    assert not module.training
    # The noise of validation is the same at each pass, so that the loss can be found again.
    noise = torch.Generator().manual_seed(stream_seed(7, WorkStream.VALIDATION_NOISE))
    with torch.no_grad():
        again = torch.cat([module.losses(VALIDATION.__getitems__(list(range(20))), noise) for _ in range(2)]).mean()
    assert again.item() == pytest.approx(min(losses), rel=1e-6)
    best = torch.load(tmp_path / "last.ckpt", weights_only=True)["best"]
    for name, value in module.state_dict().items():
        assert torch.equal(value, best[name])
    json.dumps(asdict(record))


def test_the_best_are_not_the_last(tmp_path: Path) -> None:
    """Validation rows that contradict the training rows: what is learned makes it worse."""
    module = Line()
    x, y = VALIDATION.__getitems__(list(range(20)))
    record = fit(module, TRAINING, Tensors(x, -y), settings(), folder=tmp_path, seed=7)
    losses = [h["validation"] for h in record.history]
    assert record.validation_loss == min(losses) < 0.7 * losses[-1]
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(v, last[f"module.{k}"]) for k, v in module.state_dict().items())


@pytest.mark.job
def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, record = fitted(tmp_path / "a")
    torch.manual_seed(99)
    second, again = fitted(tmp_path / "b")
    other, _ = fitted(tmp_path / "c", seed=8)
    assert same(first, second)
    assert record == again
    assert not same(first, other)


# With 84 epochs only each second one is validated and can be gone on from.
@pytest.mark.parametrize(
    ("steps", "stop", "error"), [(100, 11, KeyboardInterrupt), (336, 61, RuntimeError), (336, 62, KeyboardInterrupt)]
)
@pytest.mark.job
def test_a_fit_that_was_stopped_ends_with_the_same_weights(
    tmp_path: Path, steps: int, stop: int, error: type[BaseException]
) -> None:
    whole, record = fitted(tmp_path / "whole", steps)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        fitted(tmp_path / "stopped", steps, progress=StopsAt(stop, error))
    assert signal.getsignal(signal.SIGINT) is before, "the next Ctrl-C is heard"
    resumed, again = fitted(tmp_path / "stopped", steps)
    assert same(whole, resumed)
    assert again == record
    assert resumed.batches <= whole.batches - 4 * (stop - 3), "it went on, and did not begin again"


@pytest.mark.job
def test_averaged_weights_are_validated_kept_and_resumed(tmp_path: Path) -> None:
    """They lag behind, and jump about less."""
    plain, last = fitted(tmp_path / "plain")
    averaged, record = fitted(tmp_path / "averaged", average=0.9)
    jumps = [np.abs(np.diff([h["validation"] for h in made.history], 2)).mean() for made in (last, record)]
    assert jumps[1] < 0.8 * jumps[0]
    assert not same(plain, averaged)
    noise = torch.Generator().manual_seed(stream_seed(7, WorkStream.VALIDATION_NOISE))
    with torch.no_grad():
        again = torch.cat([averaged.losses(VALIDATION.__getitems__(list(range(20))), noise) for _ in range(2)]).mean()
    assert again.item() == pytest.approx(record.validation_loss, rel=1e-6)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "stopped", progress=StopsAt(11, KeyboardInterrupt), average=0.9)
    resumed, repeated = fitted(tmp_path / "stopped", average=0.9)
    assert same(averaged, resumed)
    assert repeated == record
    # The optimiser itself steps from its own weights, as without averages.
    ends = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("plain", "averaged")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(end.values() for end in ends), strict=True))


def test_a_whole_fit_is_not_fitted_again(tmp_path: Path) -> None:
    module, record = fitted(tmp_path)
    again, second = fitted(tmp_path, module=Breaks(0))
    assert second == record
    assert same(module, again)


def test_nan_stops_the_fit_and_the_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"the loss is not finite; the last checkpoint is kept\. A lower"):
        fitted(tmp_path, module=Breaks(after=30))
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 6
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_checkpoints_hold_no_pickled_objects(tmp_path: Path) -> None:
    fitted(tmp_path)
    found = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert found == ["before.ckpt", "last.ckpt"]
    for name in found:
        assert "state_dict" in torch.load(tmp_path / name, weights_only=True)


def test_few_rows_are_one_batch(tmp_path: Path) -> None:
    record = fit(Line(), rows(3, 1), rows(1, 2), settings(4), folder=tmp_path, seed=1)
    assert record.epochs == 4


def test_epochs_end_a_fit_before_its_steps_do(tmp_path: Path) -> None:
    few = settings(100).model_copy(update={"epochs": 2})
    record = fit(Line(), TRAINING, VALIDATION, few, folder=tmp_path, seed=7)
    assert record.epochs == 2


def test_a_fit_of_five_steps(tmp_path: Path) -> None:
    """As many as make the schedule's rise end where it begins."""
    x, y = TRAINING.__getitems__(list(range(10)))
    record = fit(Line(), Tensors(x, y), VALIDATION, settings(steps=5), folder=tmp_path, seed=7)
    assert record.epochs == 5


class Lines(Silent):
    """Keeps the lines that it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def stopped(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted(folder, progress=StopsAt(11, KeyboardInterrupt))


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "zeros"])
@pytest.mark.parametrize("names", [("last.ckpt",), ("last.ckpt", "before.ckpt")])
def test_a_broken_checkpoint_is_said_and_the_fit_ends_all_the_same(
    tmp_path: Path, damage: str, names: tuple[str, ...]
) -> None:
    whole, record = fitted(tmp_path / "whole")
    stopped(tmp_path / "stopped")
    for name in names:
        path = tmp_path / "stopped" / name
        content = path.read_bytes()
        middle = len(content) // 2
        zeros = content[: middle - 2000] + bytes(4000) + content[middle + 2000 :]
        path.write_bytes({"cut": content[:middle], "empty": b"", "other": b"not torch's", "zeros": zeros}[damage])
    progress = Lines()
    resumed, again = fitted(tmp_path / "stopped", progress=progress)
    assert same(whole, resumed)
    assert again == record
    assert [line.partition(": the checkpoint is broken")[0] for line in progress.lines] == [
        str(tmp_path / "stopped" / name) for name in names
    ]
    assert progress.lines[-1].endswith("the one before it" if len(names) == 1 else "the beginning")


class Wider(Line):
    """The same with more weights, as another version may have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))


def test_a_checkpoint_of_another_network_is_said_and_the_fit_begins_anew(tmp_path: Path) -> None:
    whole, record = fitted(tmp_path / "whole", module=Wider())
    stopped(tmp_path / "stopped")
    progress = Lines()
    fresh, again = fitted(tmp_path / "stopped", module=Wider(), progress=progress)
    assert same(whole, fresh)
    assert again == record
    path = tmp_path / "stopped" / "last.ckpt"
    assert progress.lines == [f"{path}: the checkpoint is of another version's network; the fit begins anew"]


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, record = fitted(tmp_path / "whole")
    sync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WorkError, match=r"last\.ckpt: cannot be written \(No space left on device\)"):
            fitted(tmp_path / "full")
    assert torch.load(tmp_path / "full/last.ckpt", weights_only=True)["epoch"] == 6
    resumed, again = fitted(tmp_path / "full")
    assert same(whole, resumed)
    assert again == record


@pytest.mark.parametrize(
    "surroundings",
    [
        {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "eor.sh", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "j", "SLURM_JOB_ID": "1", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"},
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {"TORCHELASTIC_RUN_ID": "1", "GROUP_RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_RANK": "1"},
    ],
)
def test_nothing_guesses_the_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str]
) -> None:
    whole, record = fitted(tmp_path / "whole")
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGUSR1)
    stopped(tmp_path / "again")
    module, again = fitted(tmp_path / "again")
    assert same(whole, module)
    assert again == record
    assert signal.getsignal(signal.SIGUSR1) is handler, "no job is put back into a queue by a signal"


def test_a_validation_loss_that_is_not_finite_names_the_rows(tmp_path: Path) -> None:
    x, y = VALIDATION.__getitems__(list(range(20)))
    y[[3, 17]] = torch.tensor([[torch.nan], [3e38]])
    with pytest.raises(WorkError, match=r"not finite for 2 of 20 validation rows: 3, 17\. Look at"):
        fit(Line(), TRAINING, Tensors(x, y), settings(), folder=tmp_path, seed=7)


def test_a_training_loss_that_is_not_finite_names_the_rows(tmp_path: Path) -> None:
    x, y = TRAINING.__getitems__(list(range(40)))
    y[[3, 17]] = torch.nan
    seeds = np.arange(100, 140, dtype=np.uint64)
    said = r"the loss is not finite for 2 of 10 rows of a batch: a row of seed 103, a row of seed 117\. Look at"
    with pytest.raises(WorkError, match=said):
        fit(Line(), Tensors(x, y, seeds=seeds), VALIDATION, settings(), folder=tmp_path, seed=7)
