"""Rows that are kept: read back as they were, and never those of another key."""

from pathlib import Path

import numpy as np

from eorinfer.core.kept_rows import read_rows, write_rows


def test_rows_come_back(tmp_path: Path) -> None:
    file = tmp_path / "rows.h5"
    rows = [{"a": np.arange(3.0) + i, "b": np.array(float(i))} for i in range(2)]
    write_rows(file, "key", rows)
    found = read_rows(file, "key", ("a", "b"))
    assert len(found) == 2
    assert found[1]["a"].tolist() == [1, 2, 3]
    assert float(found[1]["b"]) == 1


def test_others_are_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rows.h5"
    assert read_rows(file, "key", ("a",)) == []
    write_rows(file, "key", [{"a": np.zeros(3)}])
    assert read_rows(file, "another", ("a",)) == []
    assert read_rows(file, "key", ("b",)) == []
    file.write_bytes(b"no HDF5")
    assert read_rows(file, "key", ("a",)) == []
