"""Rows as batches: split by realisation, the same from memory and from disk, in an order that can be resumed."""

import resource
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from eorinfer.core.errors import InputError
from eorinfer.training import data
from eorinfer.training.data import Cubes, EpochShuffle, Part, Tensors, fold_count, loader, memory, validation_rows
from eorinfer.training.fit import fit
from tests.banks import a_bank
from tests.training.test_fit import VALIDATION, Line, StopsAt, fitted, same, settings
from tests.training.test_fit import rows as training_rows


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


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_folds_have_no_row_in_common_until_they_begin_again(fraction: float) -> None:
    seed, count = seeds(1000, 2), fold_count(fraction, 12)
    assert count == int(1 / fraction)
    folds = np.array([validation_rows(seed, fraction, fold) for fold in range(count)])
    assert np.array_equal(folds[0], validation_rows(seed, fraction)), "the first is that of older versions"
    assert folds.sum(0).max() == 1
    np.testing.assert_allclose(folds.mean(1), fraction, atol=0.06)
    if fraction == 0.1:
        assert folds.sum(0).min() == 1
        assert np.array_equal(validation_rows(seed, fraction, 10), folds[0])


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
    # Each cube stands beside its own theta, also in a part of them.
    index = [4, 0, 4]
    part = Part(streamed, np.arange(8) % 2 == 0)
    assert len(part) == 4
    assert torch.equal(part.theta, streamed.theta[::2])
    for a, b in zip(part.__getitems__([2, 0]), streamed.__getitems__([4, 0]), strict=True):
        assert torch.equal(a, b)
    assert part.row_names([2]) == streamed.row_names([4])
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


def streamed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Cubes:
    """A set that stays on disk: 8 rows that are ok."""
    bank, _ = a_bank(path, rows=9, shard_rows=2)
    monkeypatch.setattr(data, "MEMORY_SHARE", 0.0)
    return Cubes(bank, "field", bank.rows().ok)


def test_rows_on_disk_are_fetched_one_batch_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cubes = streamed(tmp_path, monkeypatch)
    fetched = threading.Semaphore(0)
    order: list[list[int]] = []

    def fetch(indices: list[int]) -> tuple[torch.Tensor, ...]:
        order.append(indices)
        fetched.release()
        return tuple(part[: len(indices)] for part in whole)

    whole = cubes.__getitems__(list(range(8)))
    monkeypatch.setattr(cubes, "__getitems__", fetch)
    batches = iter(loader(cubes, 2, shuffle_seed=1))
    next(batches)
    assert fetched.acquire(timeout=10)
    assert fetched.acquire(timeout=10), "the second batch is on its way while the first is worked on"
    assert not fetched.acquire(timeout=0.05), "and the third is not"
    assert len(list(batches)) == 3
    assert [i for indices in order for i in indices] == list(EpochShuffle(8, seed=1))
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPool")]


def test_the_next_epoch_of_rows_on_disk_has_its_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cubes = streamed(tmp_path, monkeypatch)
    ahead = loader(cubes, 2, shuffle_seed=1)
    for epoch in (0, 1):
        ahead.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        order = EpochShuffle(8, seed=1)
        order.set_epoch(epoch)
        expected = cubes.theta[list(order)]
        assert torch.equal(torch.cat([batch[0] for batch in ahead]), expected)


@pytest.mark.job
def test_training_with_a_batch_ahead_gives_the_same_weights_after_a_stop_too(tmp_path: Path) -> None:
    training = training_rows(40, 1)
    training.slow = True
    whole, stopped, resumed = Line(), Line(), Line()
    fit(whole, training, VALIDATION, settings(), folder=tmp_path / "whole", seed=7)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, training, VALIDATION, settings(), folder=tmp_path, seed=7, progress=StopsAt(10, KeyboardInterrupt))
    fit(resumed, training, VALIDATION, settings(), folder=tmp_path, seed=7)
    assert resumed.batches < whole.batches
    plain, _ = fitted(tmp_path / "plain")
    assert same(whole, plain)
    assert same(resumed, plain)


def test_what_goes_wrong_with_rows_on_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cubes = streamed(tmp_path, monkeypatch)
    for shard in (tmp_path / "shards").glob("*.h5"):
        shard.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        list(loader(cubes, 2, shuffle_seed=1))


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/slurm/job", {"memory.max": "max", "slurm/memory.max": "5000", "slurm/job/memory.max": "max"}, 5000),
        ("0::/", {"memory.max": "7000"}, 7000),
        (
            "5:cpu:/a\n4:memory:/a\n0::/",
            {"memory/memory.limit_in_bytes": f"{2**63 - 4096}", "memory/a/memory.limit_in_bytes": "6000"},
            6000,
        ),
        # A container that does not see its own place has its limit at the root.
        ("4:memory,hugetlb:/docker/b", {"memory/memory.limit_in_bytes": "4000"}, 4000),
    ],
)
def test_memory_is_what_the_group_may_use(
    own: str, files: dict[str, str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup").write_text(own + "\n")
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    monkeypatch.setattr(data, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(data, "CGROUPS", tmp_path / "groups")
    assert memory() == limit


def test_memory_without_limits_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no /proc."""
    monkeypatch.setattr(data, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert 2**28 < memory() < 2**50


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is in use is not known")
@pytest.mark.parametrize(("kind", "field"), [(resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)])
def test_memory_is_what_ulimit_leaves(kind: int, field: int) -> None:
    """Both limits count: of the address space, and of private writable memory."""
    soft, hard = resource.getrlimit(kind)
    in_use = int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()
    resource.setrlimit(kind, (in_use + 2**30, hard))
    try:
        left = memory()
    finally:
        resource.setrlimit(kind, (soft, hard))
    assert left == pytest.approx(2**30, rel=0.05)
