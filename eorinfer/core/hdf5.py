"""HDF5 files read without locks and without trust: regular files only, nothing that points out of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.reading import ForeignFileError, refuse_foreign, refuse_surroundings

#: Bytes that one dataset of an observation or a result may declare.
MOST_BYTES = 64e9
#: What HDF5 says of a file that the same process has open with another flag for locks.
OTHER_FLAG = "locking flag"


def opened(path: Path) -> h5py.File:
    """Open a file for reading, without a lock: every file is written whole, and some systems have none.

    Raises
    ------
    OSError
        See `h5py.File`.
    """
    return h5py.File(opened_id(path))


def opened_id(path: Path) -> h5py.h5f.FileID:
    """Open a file for reading as `opened` does, by HDF5's own call, which is faster."""
    properties = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    properties.set_file_locking(False, True)
    try:
        return h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=properties)
    except OSError as error:
        # A notebook has it open with a lock: HDF5 shares a file within a process only under the same flag.
        if OTHER_FLAG not in str(error):
            raise
        return h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)


@contextmanager
def open_hdf5(path: Path, *, links: bool = True) -> Iterator[h5py.File]:
    """Open a file of somebody else for reading, without a lock; `links` tells whether a symbolic link may lead to it.

    Raises
    ------
    InputError
        If it is no regular file.
    WorkError
        If the operating system refused.
    OSError
        If it is not HDF5.
    """
    try:
        refuse_foreign(path, links=links)
        file = opened(path)
    except ForeignFileError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        refuse_surroundings(path, error)
        raise
    with file:
        yield file


def read_array(file: h5py.File | h5py.Group, name: str, most_bytes: float = MOST_BYTES) -> NDArray[Any]:
    """Read a dataset whole, if its bytes stand in this file and are as many as it says, and at most `most_bytes`.

    Raises
    ------
    InputError
        If it is a soft or external link, a virtual dataset, stored in other files, or absurdly large; names it.
    KeyError
        If there is none.
    """
    dataset = own_dataset(file, name, most_bytes)
    return np.asarray(dataset[()])


def own_dataset(file: h5py.File | h5py.Group, name: str, most_bytes: float = MOST_BYTES) -> h5py.Dataset:
    """Return a dataset whose bytes stand in this file, as `read_array` checks it; nothing is read yet."""
    where = f'{file.file.filename}: "{name}"'
    group: Any = file
    for part in name.split("/"):
        if not isinstance(group, h5py.Group):
            raise InputError(f"{where} is no dataset")
        link = group.get(part, getlink=True)
        if link is None:
            raise KeyError(name)
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{where} is a link to somewhere else; copy what it points to into the file")
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        raise InputError(f"{where} is no dataset")
    if group.is_virtual or group.external:
        raise InputError(f"{where} has its values in other files; copy them into this one")
    nbytes = group.size * group.dtype.itemsize if group.size is not None else 0
    stored = group.id.get_storage_size()
    # A dataset of which nothing was written has the size that it says and no bytes.
    if nbytes > most_bytes or (nbytes > 1e9 and nbytes > 1000 * max(stored, 1)):
        raise InputError(f"{where} says that it has {nbytes / 1e9:.3g} GB, of which {stored / 1e9:.3g} are in the file")
    return group
