"""Arrays of a shard, read past HDF5, which only gives the place of each row's chunk; zlib checks the bytes.

HDF5 needs about the time of reading ten chunks of 32³ cells to open a file, walk its index and check one chunk.
A shard never changes, so its index is read once, and from then on each row is one `pread`.

A row's checksum is its CRC-32, in a dataset of its own. HDF5's own checksum after each chunk is zero for zeros, so it
does not notice a block that a failing disk or file system has filled with zeros.
"""

import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.hdf5 import opened_id


class DamageError(Exception):
    """The bytes on disk are not those that were written."""


def own_dataset(file: h5py.h5f.FileID, name: str, size: int) -> h5py.h5d.DatasetID:
    """Open a dataset as a bank writes it: all of its bytes stand in this file of `size` bytes, uncompressed.

    Raises
    ------
    DamageError
        If it is a link to elsewhere, virtual, compressed, or larger than the file: none of it is read.
    KeyError
        If there is no such dataset.
    """
    place, root = b"", h5py.h5g.open(file, b"/")  # the links do not keep their group open
    for part in name.encode().split(b"/"):
        place += b"/" + part
        if root.links.get_info(place).type != h5py.h5l.TYPE_HARD:
            raise DamageError(f"{name} is a link to somewhere else")
    dataset = h5py.h5d.open(file, place)
    settings = dataset.get_create_plist()
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if settings.get_layout() == h5py.h5d.VIRTUAL or settings.get_external_count():
        raise DamageError(f"{name} has its values in other files")
    if filters - {h5py.h5z.FILTER_FLETCHER32} or dataset.dtype.kind not in "fiuS" or not dataset.shape:
        raise DamageError(f"{name} is not stored as a bank stores it")
    nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    if nbytes > min(size, dataset.get_storage_size()):
        raise DamageError(f"{name} says that it has {nbytes / 1e9:.3g} GB, more than the file")
    return dataset


@dataclass(frozen=True)
class Chunks:
    """Places of the rows of one array in a file.

    Attributes
    ----------
    offsets
        (n,) First byte of each row.
    checksums
        (n,) CRC-32 of each row's bytes.
    shape
        Shape (C, *cells) of one row, float32.
    version
        Inode, size and modification time of the file.
    """

    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    shape: tuple[int, ...]
    version: tuple[int, int, int]

    @classmethod
    def from_file(cls, path: Path, name: str, shape: tuple[int, ...]) -> "Chunks":
        """Read the index of the observable `name`, whose rows have the given shape.

        Raises
        ------
        DamageError
            If a row is not one whole chunk, or the checksums are missing.
        OSError, KeyError, RuntimeError
            If HDF5 cannot read the file.
        """
        nbytes = 4 * math.prod(shape)
        # By h5py's lower layer: a first batch opens as many shards as it has rows.
        file = opened_id(path)
        try:
            version = _version(os.stat(path))
            dataset = own_dataset(file, f"observables/{name}", version[1])
            n = dataset.shape[0]
            if dataset.shape[1:] != shape or dataset.dtype != np.dtype("<f4"):
                raise DamageError(f"{name} is {dataset.dtype} {dataset.shape[1:]}, expected float32 {shape}")
            offsets = np.full(n, -1, np.int64)

            def note(chunk: h5py.h5d.StoreInfo) -> None:
                # 4 bytes are HDF5's own checksum
                if chunk.size == nbytes + 4 and not chunk.filter_mask:
                    offsets[chunk.chunk_offset[0]] = chunk.byte_offset

            dataset.chunk_iter(note)
            of_rows = own_dataset(file, f"crc32/{name}", version[1])
            checksums = np.empty(of_rows.shape, np.uint32)
            of_rows.read(h5py.h5s.ALL, h5py.h5s.ALL, checksums)
        finally:
            file.close()
        if (offsets < 0).any():
            raise DamageError(f"row {int(np.argmax(offsets < 0))} of {name} is not one chunk as it was written")
        if checksums.shape != (n,):
            raise DamageError(f"{name} has {n} rows and {len(checksums)} checksums")
        return cls(offsets, checksums, shape, version)

    def read(self, file: int, row: int, out: NDArray[np.float32], check: bool = True) -> None:
        """Read one row of an open file, by its descriptor, into a contiguous array (C, *cells).

        Raises
        ------
        DamageError
            If the file ends before the row does, or the checksum differs.
        """
        if os.preadv(file, [out.data.cast("B")], int(self.offsets[row])) != out.nbytes:
            raise DamageError(f"the file ends within row {row}")
        if check and zlib.crc32(out.data) != int(self.checksums[row]):
            raise DamageError(f"row {row} has another checksum than when it was written")

    def fits(self, file: int) -> bool:
        """Return whether the open file is the one whose index was read."""
        return _version(os.fstat(file)) == self.version


def checksums(array: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each row of an array (n, C, *cells)."""
    return np.array([zlib.crc32(np.ascontiguousarray(row).data) for row in array], np.uint32)


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
