"""Rows of a bank as batches, and their split by realisation."""

import resource
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from eorinfer.bank.plausible import far_rows, far_warning
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import WorkError
from eorinfer.core.seeds import WorkStream, stream_seed

#: Cubes up to this share of the memory are kept in it.
MEMORY_SHARE = 0.25
#: Rows that are looked at together.
PIECE = 64
#: Bad rows that an error names.
NAMED = 8
#: Limits of groups of processes on Linux, and the groups of this process.
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def validation_rows(seed: NDArray[np.uint64], fraction: float, fold: int = 0) -> NDArray[np.bool_]:
    """Choose the rows that validate: whole realisations, and the same ones whatever rows come later.

    Parameters
    ----------
    seed
        (n,) seeds of the rows; rows of one seed share initial conditions.
    fraction
        Expected share of the realisations that validate.
    fold
        Number of the fold. Folds have no row in common up to number 1 / fraction, where they begin again.

    Returns
    -------
    NDArray
        (n,) of bool, with at least one realisation on each side when there are two.
    """
    unique, inverse = np.unique(seed, return_inverse=True)
    rank = realisation_ranks(unique)
    if fold:
        rank = np.round(rank - fold * fraction, 12) % 1.0  # rounded, so that a boundary is the same for both sides
    chosen = rank < fraction
    if not chosen.any():
        chosen[np.argmin(rank)] = True
    if chosen.all():
        chosen[np.argmax(rank)] = False
    return chosen[inverse]


def split_rows(rows: Rows, fraction: float, fold: int = 0) -> NDArray[np.bool_]:
    """Choose the rows that validate, by `validation_rows`, where there are others to train on.

    Raises
    ------
    WorkError
        If there are fewer than two realisations.
    """
    validate = validation_rows(rows.seed, fraction, fold)
    if validate.all() or not validate.any():
        raise WorkError(
            f"{len(rows)} valid simulations of {len(np.unique(rows.seed))} realisation(s): "
            "training needs at least two realisations, one of them for validation"
        )
    return validate


def choosing_rows(seed: NDArray[np.uint64], held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Choose half of the realisations that a network holds out, by which choices are made; the others judge these.

    Of the rows of seeds (n,) those in `held` (n,); all of these where they are one realisation.
    """
    unique = np.unique(seed[held])
    order = np.argsort(realisation_ranks(unique))
    return np.asarray(held & np.isin(seed, unique[order[: -(-len(unique) // 2)]]))


def fold_count(fraction: float, networks: int) -> int:
    """Count the networks, the first ones, that hold out folds without a common row."""
    return min(networks, max(1, int(1 / fraction + 1e-9)))


def realisation_ranks(seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers (n,) in [0, 1) by which realisations are split, always the same one for a seed."""
    return np.array([stream_seed(int(s), WorkStream.SPLIT) for s in seeds]) / 2**32


class Batches(Dataset[tuple[Tensor, ...]]):
    """A data set that gives whole batches.

    Attributes
    ----------
    slow
        Whether a batch takes so long to read that it should be read ahead.
    """

    slow: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Stack the rows at `indices`; PyTorch's loader calls this for a batch."""

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows in a message."""
        return [str(i) for i in indices]


def named_rows(batches: DataLoader[tuple[Tensor, ...]], rows: list[int]) -> str:
    """Name rows of a loader's data, the first few of them."""
    data = batches.dataset
    assert isinstance(data, Batches)
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"{', '.join(data.row_names(rows[:NAMED]))}{more}"


class Tensors(Batches):
    """Rows of tensors in memory.

    Parameters
    ----------
    tensors
        Tensors whose first axis is that of the rows.
    seeds
        (n,) seeds of the realisations, by which rows are named; without them by their number.
    """

    def __init__(self, *tensors: Tensor, seeds: NDArray[np.uint64] | None = None) -> None:
        self._tensors, self._seeds = tensors, seeds

    def __len__(self) -> int:
        return len(self._tensors[0])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return tuple(t[indices] for t in self._tensors)

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their realisation."""
        if self._seeds is None:
            return super().row_names(indices)
        return [f"a row of seed {seed}" for seed in self._seeds[indices].tolist()]


class Cubes(Batches):
    """theta and clean cubes of bank rows; in memory when they are small, else read batch by batch.

    Parameters
    ----------
    bank, observable
        Bank, and name of the arrays in it.
    rows
        Rows of the bank, all ``ok``.
    """

    def __init__(self, bank: Bank, observable: str, rows: Rows) -> None:
        self.theta = torch.as_tensor(rows.theta)
        self._bank, self._observable, self._rows = bank, observable, rows
        size = len(rows) * next(o.nbytes for o in bank.observables if o.name == observable)
        self._held = torch.from_numpy(bank.read(observable, rows)) if size < MEMORY_SHARE * memory() else None
        self.slow = self._held is None

    def __len__(self) -> int:
        return len(self.theta)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Theta (B, P) and clean cubes (B, C, *cells)."""
        if self._held is not None:
            return self.theta[indices], self._held[indices]
        return self.theta[indices], torch.from_numpy(self._bank.read(self._observable, self._rows[indices]))

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        rows = self._rows[indices]
        return [f"row {i} of {shard}" for i, shard in zip(rows.index.tolist(), rows.shard.tolist(), strict=True)]

    def warning(self) -> str | None:
        """Name rows that are far from all others; None if there are none. Rows on disk are read once more for it."""
        facts = []
        for start in range(0, len(self), PIECE):
            _, cubes = self.__getitems__(list(range(start, min(start + PIECE, len(self)))))
            facts += [
                (float(x.min()), float(x.max()), float(x.mean()), float(x.std(unbiased=False))) for x in cubes.double()
            ]
        far = far_rows(*zip(*facts, strict=True))
        return far_warning(self._observable, self.row_names(far)) if far else None


class Part(Batches):
    """Some of the rows of cubes, which are not held twice.

    Parameters
    ----------
    cubes
        All rows.
    rows
        (n,) whether a row belongs to the part.
    """

    def __init__(self, cubes: Cubes, rows: NDArray[np.bool_]) -> None:
        self._cubes, self._rows = cubes, np.flatnonzero(rows)
        self.theta = cubes.theta[torch.from_numpy(self._rows)]
        self.slow = cubes.slow

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Theta (B, P) and clean cubes (B, C, *cells)."""
        return self._cubes.__getitems__(self._rows[indices].tolist())

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        return self._cubes.row_names(self._rows[indices].tolist())


class EpochShuffle(Sampler[int]):
    """Permutations that depend on seed and epoch only, so that a resumed training sees the same ones.

    Parameters
    ----------
    n
        Number of rows.
    seed
        Seed of the permutations.
    length
        Rows of an epoch, by default all. Epochs of another length share out one sequence of permutations.
    """

    def __init__(self, n: int, seed: int, length: int | None = None) -> None:
        self._n, self._seed, self._length, self._epoch = n, seed, length or n, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        place, last = self._epoch * self._length, (self._epoch + 1) * self._length
        while place < last:
            number, start = divmod(place, self._n)
            order = np.random.default_rng([self._seed, number]).permutation(self._n)
            rows = order[start : start + last - place]
            yield from rows.tolist()
            place += len(rows)


def loader(
    data: Batches, batch_size: int, shuffle_seed: int | None = None, batches: int | None = None
) -> DataLoader[tuple[Tensor, ...]]:
    """Load batches in order, or shuffled at each epoch when a seed is given; then they are all full.

    Parameters
    ----------
    data
        Rows to load.
    batch_size
        Rows in a batch, at most.
    shuffle_seed
        Seed of the order; None keeps the order of the rows.
    batches
        Batches of an epoch; None for one pass over the rows.
    """
    batch_size = min(batch_size, len(data))
    length = None if batches is None else batches * batch_size
    return (_Ahead if data.slow else DataLoader)(
        data,
        batch_size=batch_size,
        sampler=None if shuffle_seed is None else EpochShuffle(len(data), shuffle_seed, length),
        # When training, a last batch of three rows would count as much as a full one.
        drop_last=shuffle_seed is not None,
        collate_fn=lambda batch: batch,
    )


class _Ahead(DataLoader[tuple[Tensor, ...]]):
    """Reads each batch on a thread while the one before it is used; the batches are the same."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = pool.submit(next, batches, None)
                yield batch


def memory() -> int:
    """Bytes that this process may fill: the least of what the machine has, its cgroups allow and `ulimit` leaves."""
    limits = [psutil.virtual_memory().total, *_cgroup_limits()]
    in_use = psutil.Process().memory_info()
    # Linux alone tells how much is private and writable.
    for kind, used in ((resource.RLIMIT_AS, in_use.vms), (resource.RLIMIT_DATA, getattr(in_use, "data", 0))):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(max(0, soft - used))
    return min(limits)


def _cgroup_limits() -> list[int]:
    """Memory limits of the cgroups that this process is in, and of those above them.

    psutil does not know them, but containers and batch jobs are limited by them to a part of the machine.
    """
    limits = []
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # Version 2 has one tree for all, version 1 one for each controller. A container may see its own as the root.
        folder, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        for part in ("", *path.strip("/").split("/")):
            folder = folder / part
            limit = _text(folder / name).strip()
            limits += [int(limit)] if limit.isdigit() else []
    return limits


def _text(path: Path) -> str:
    """Content of a file; empty if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
