"""HDF5 files of others: nothing that points out of the file is followed, nothing absurd is read."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.hdf5 import open_hdf5, opened, opened_id, read_array


def written(path: Path, kind: str) -> Path:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["secret"] = np.arange(4.0)
    with h5py.File(path, "w") as file:
        if kind == "soft":
            file["inside"] = np.arange(4.0)
            file["observed"] = h5py.SoftLink("/inside")
        elif kind == "external link":
            file["observed"] = h5py.ExternalLink("other.h5", "/secret")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
            file.create_virtual_dataset("observed", layout)
        elif kind == "external storage":
            path.with_name("raw").write_bytes(bytes(32))
            file.create_dataset("observed", (4,), "f8", external=[(str(path.with_name("raw")), 0, 32)])
        elif kind == "absurd":
            file.create_dataset("observed", (10**6, 10**6), "f4", chunks=(1, 10**6))
        elif kind == "empty chunks":
            file.create_dataset("observed", (10**5, 10**4), "f4", chunks=(1, 10**4))
        elif kind == "group":
            file.create_group("observed")
        elif kind == "linked group":
            other = h5py.ExternalLink("other.h5", "/")
            file["group"] = other
        else:
            file["observed"] = np.arange(4.0)
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("soft", "is a link to somewhere else"),
        ("external link", "is a link to somewhere else"),
        ("virtual", "has its values in other files"),
        ("external storage", "has its values in other files"),
        ("absurd", r"says that it has 4e\+03 GB, of which 0 are in the file"),
        ("empty chunks", "says that it has 4 GB, of which 0 are in the file"),
        ("group", "is no dataset"),
    ],
)
def test_what_is_not_in_the_file_is_refused_by_name(tmp_path: Path, kind: str, said: str) -> None:
    path = written(tmp_path / "sky.h5", kind)
    with open_hdf5(path) as file, pytest.raises(InputError, match=rf'sky\.h5: "observed" {said}'):
        read_array(file, "observed")


def test_a_group_of_another_file_is_not_entered(tmp_path: Path) -> None:
    path = written(tmp_path / "sky.h5", "linked group")
    with open_hdf5(path) as file, pytest.raises(InputError, match=r'"group/secret" is a link to somewhere else'):
        read_array(file, "group/secret")


def test_an_array_of_the_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "sky.h5", "plain")
    (tmp_path / "link.h5").symlink_to(path)
    with open_hdf5(tmp_path / "link.h5") as file:
        assert read_array(file, "observed").tolist() == [0, 1, 2, 3]
    with (
        pytest.raises(InputError, match="is a symbolic link, not a file"),
        open_hdf5(tmp_path / "link.h5", links=False),
    ):
        pass


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sky.h5")
    with pytest.raises(InputError, match="is a named pipe"), open_hdf5(tmp_path / "sky.h5"):
        pass


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_is_open_in_the_same_notebook_is_read(tmp_path: Path, mode: str) -> None:
    """HDF5 opens no file twice with different flags for locks."""
    path = written(tmp_path / "observation.h5", "plain")
    with h5py.File(path, mode):
        with open_hdf5(path) as again:
            np.testing.assert_array_equal(read_array(again, "observed"), np.arange(4.0))
        with opened(path) as file:
            assert list(file) == ["observed"]
        assert opened_id(path).valid
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none.h5")
