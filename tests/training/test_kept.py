"""What was trained under the same key is loaded; anything else is trained anew, and leaves no checkpoints."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from eorinfer.training.bundle import BundleKind
from eorinfer.training.kept import load_kept, load_or_train


@dataclass
class Lens:
    """A trained thing of one weight."""

    bundle: ClassVar[BundleKind] = BundleKind("lens", "lens.json", 1)

    weight: float
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        self.bundle.write(folder, {"facts": self.facts}, {"weight": torch.tensor(self.weight)})

    @classmethod
    def load(cls, folder: Path) -> "Lens":
        with cls.bundle.reading(folder) as bundle:
            return cls(float(bundle.weights["weight"]), bundle["facts"])


@dataclass
class Training:
    """Counts how often it is asked to train, and leaves checkpoints."""

    weight: float
    folders: list[Path] = field(default_factory=list)
    stops: bool = False

    def __call__(self, checkpoints: Path) -> Lens:
        checkpoints.mkdir(parents=True, exist_ok=True)
        self.folders.append(checkpoints)
        if self.stops:
            raise KeyboardInterrupt
        return Lens(self.weight, {"rows": 7})


def test_it_is_trained_once_for_each_key(tmp_path: Path) -> None:
    first, second = Training(1.0), Training(2.0)
    made = load_or_train(Lens, tmp_path / "lens", "abc", first)
    assert first.folders == [tmp_path / "checkpoints-abc"]
    assert (made.facts["key"], made.facts["rows"]) == ("abc", 7)
    assert 0 <= made.facts["seconds"] < 60
    assert [path.name for path in tmp_path.iterdir()] == ["lens"], "no checkpoints are left"
    assert load_or_train(Lens, tmp_path / "lens", "abc", second) == made
    assert not second.folders
    assert load_or_train(Lens, tmp_path / "lens", "xyz", second).weight == 2.0
    assert load_kept(Lens, tmp_path / "lens", "abc") is None
    assert load_kept(Lens, tmp_path / "lens", "xyz") is not None
    assert load_kept(Lens, tmp_path / "elsewhere", "xyz") is None


def test_checkpoints_of_a_stopped_training_are_kept_and_those_of_others_go_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "others-checkpoints-abc").mkdir()
    for key in ("abc", "xyz"):
        with pytest.raises(KeyboardInterrupt):
            load_or_train(Lens, tmp_path / "lens", key, Training(1.0, stops=True), "lens-checkpoints")
    names = {"others-checkpoints-abc", "lens-checkpoints-abc", "lens-checkpoints-xyz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    load_or_train(Lens, tmp_path / "lens", "xyz", Training(1.0), "lens-checkpoints")
    assert {path.name for path in tmp_path.iterdir()} == {"others-checkpoints-abc", "lens"}


def test_a_stopped_training_counts_in_the_seconds(tmp_path: Path) -> None:
    def stopped(checkpoints: Path) -> Lens:
        (checkpoints / "00").mkdir(exist_ok=True)
        (checkpoints / "00/last.ckpt").touch()
        later = time.time() + 50
        os.utime(checkpoints / "00/last.ckpt", (later, later))
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            load_or_train(Lens, tmp_path / "lens", "abc", stopped)
    made = load_or_train(Lens, tmp_path / "lens", "abc", Training(1.0))
    assert made.facts["seconds"] == pytest.approx(100, abs=5)


def test_checkpoints_that_a_kill_left_beside_the_trained_are_deleted(tmp_path: Path) -> None:
    load_or_train(Lens, tmp_path / "lens", "abc", Training(1.0))
    (tmp_path / "checkpoints-abc/00").mkdir(parents=True)
    (tmp_path / "checkpoints-abc/00/last.ckpt").touch()
    load_or_train(Lens, tmp_path / "lens", "abc", Training(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["lens"]
