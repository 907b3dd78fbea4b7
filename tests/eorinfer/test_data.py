"""Rows as batches: split by realisation, the same from memory and from disk, in an order that can be resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eorinfer.inference import data
from eorinfer.inference.data import Cubes, EpochShuffle, Tensors, loader, validation_rows

from .banks import a_bank


def seeds(realisations: int, share: int) -> np.ndarray:
    """Seeds of so many realisations, each shared by some rows that stand apart."""
    distinct = np.random.default_rng(1).integers(0, 2**32, realisations, dtype=np.uint64)
    return np.tile(distinct, share)


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_a_realisation_is_never_on_both_sides(fraction: float) -> None:
    seed = seeds(1000, 4)
    validate = validation_rows(seed, fraction)
    assert not set(seed[validate]) & set(seed[~validate])
    share = validate.mean()
    assert abs(share - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / 1000)


def test_rows_that_come_later_move_no_row_to_the_other_side() -> None:
    seed = seeds(300, 2)
    before = validation_rows(seed[:100], 0.1)
    assert 0 < before.sum() < 100
    assert np.array_equal(validation_rows(seed, 0.1)[:100], before)
    order = np.random.default_rng(2).permutation(len(seed))
    assert np.array_equal(validation_rows(seed[order], 0.1), validation_rows(seed, 0.1)[order])


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_two_realisations_are_one_on_each_side(fraction: float) -> None:
    validate = validation_rows(np.array([5, 9, 5, 9], np.uint64), fraction)
    assert validate.sum() == 2
    assert validate[0] == validate[2]


def test_cubes_are_the_same_from_memory_and_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, _ = a_bank(tmp_path, rows=9, shard_rows=2)
    rows = bank.rows().ok
    held = Cubes(bank, "field", rows)
    monkeypatch.setattr(data, "MEMORY_SHARE", 0.0)
    streamed = Cubes(bank, "field", rows)
    reads: list[int] = []
    read = type(bank).read
    monkeypatch.setattr(type(bank), "read", lambda self, name, rows: reads.append(len(rows)) or read(self, name, rows))
    for a, b in zip(loader(held, 3, shuffle_seed=1), loader(streamed, 3, shuffle_seed=1), strict=True):
        for ours, theirs in zip(a, b, strict=True):
            assert torch.equal(ours, theirs)
        theta, cubes = b
        assert theta.dtype == torch.float64
        assert cubes.shape == (3, 1, 8, 8)
    assert reads == [3, 3], "one set is on disk, the other was not read again"
    # Each cube stands beside its own theta.
    index = [4, 0, 4]
    theta, cubes = streamed.__getitems__(index)
    assert theta.numpy().tobytes() == rows.theta[index].tobytes()
    assert cubes.numpy().tobytes() == bank.read("field", rows[index]).tobytes()


def test_a_shuffle_depends_on_seed_and_epoch_alone() -> None:
    first = EpochShuffle(50, seed=3)
    orders = []
    for epoch in range(3):
        first.set_epoch(epoch)
        orders.append(list(first))
        assert sorted(orders[-1]) == list(range(50))
    resumed = EpochShuffle(50, seed=3)
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert len({tuple(order) for order in orders}) == 3
    other = EpochShuffle(50, seed=4)
    assert list(other) != orders[0]


def test_batches_of_training_are_full_and_validation_leaves_no_row_out() -> None:
    rows = Tensors(torch.arange(10))
    assert [len(x) for (x,) in loader(rows, 4, shuffle_seed=1)] == [4, 4]
    assert torch.cat([x for (x,) in loader(rows, 4)]).tolist() == list(range(10))
    assert [len(x) for (x,) in loader(rows, 64, shuffle_seed=1)] == [10], "a small set is one batch"
