"""Rows read past HDF5: the same bytes, and HDF5's own checksum."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from eorinfer.bank.chunks import Chunks, DamageError, checksums


def stored(path: Path, array: np.ndarray, **settings: object) -> Path:
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        settings = {"chunks": (1, *array.shape[1:]), "fletcher32": True} | settings
        file.create_dataset("observables/x", data=array, **settings)
        file.create_dataset("crc32/x", data=checksums(array))
    return path


def test_rows_come_back_and_no_changed_byte_is_overlooked(tmp_path: Path) -> None:
    shape = (1, 8, 8)
    array = np.random.default_rng(2).standard_normal((3, *shape)).astype(np.float32)
    path = stored(tmp_path / "x.h5", array)
    chunks = Chunks.from_file(path, "x", shape)
    out = np.empty(shape, np.float32)
    with path.open("r+b", buffering=0) as file:
        for row in (2, 0, 1):
            chunks.read(file.fileno(), row, out)
            assert out.tobytes() == array[row].tobytes()
        start = int(chunks.offsets[1])
        for offset in range(start, start + out.nbytes):
            for bit in (0, 7):
                byte = os.pread(file.fileno(), 1, offset)[0]
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), offset)
                with pytest.raises(DamageError, match="row 1 has another checksum"):
                    chunks.read(file.fileno(), 1, out)
                chunks.read(file.fileno(), 1, out, check=False)
                os.pwrite(file.fileno(), bytes([byte]), offset)
        chunks.read(file.fileno(), 1, out)
        os.pwrite(file.fileno(), bytes(out.nbytes + 4), start)
        with h5py.File(path) as again:
            assert not again["observables/x"][1].any(), "HDF5's own checksum takes zeros for whole"
        with pytest.raises(DamageError, match="row 1 has another checksum"):
            chunks.read(file.fileno(), 1, out)
        assert chunks.fits(file.fileno()) is False, "it was written to"
        file.truncate(start + 20)
        with pytest.raises(DamageError, match="ends within row 1"):
            chunks.read(file.fileno(), 1, out)


@pytest.mark.parametrize(
    ("array", "settings", "message"),
    [
        (np.ones((3, 1, 4), np.float64), {}, "x is float64"),
        (np.ones((3, 1, 5), np.float32), {}, r"expected float32 \(1, 4\)"),
        (np.ones((3, 1, 4), np.float32), {"fletcher32": False}, "row 0 of x is not one chunk as it was written"),
        (np.ones((3, 1, 4), np.float32), {"compression": "gzip"}, "x is not stored as a bank stores it"),
    ],
)
def test_files_of_another_layout(tmp_path: Path, array: np.ndarray, settings: dict[str, object], message: str) -> None:
    with pytest.raises(DamageError, match=message):
        Chunks.from_file(stored(tmp_path / "x.h5", array, **settings), "x", (1, 4))
