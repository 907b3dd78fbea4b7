"""Fits: the best weights, the same ones again, the same ones after a stop, and no network from NaN."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Advance, Silent
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

    def losses(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        x, y = batch
        self.batches += self.training
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        return (self.layers(x) - y).square().squeeze(-1)


class Breaks(Line):
    """Its loss is NaN from a certain batch on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def losses(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
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
    best = torch.load(next(tmp_path.glob("best*.ckpt")), weights_only=True)
    assert best["epoch"] == losses.index(min(losses))
    for name, value in module.state_dict().items():
        assert torch.equal(value, best["state_dict"][f"module.{name}"])
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
    assert len(found) == 2
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
