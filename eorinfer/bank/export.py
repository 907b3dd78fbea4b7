"""Export of a bank to one plain HDF5 file, for other tools."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, whole_file
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import PRIOR_ROUND
from simulators.worlds import world_names

#: Bytes of arrays to copy at a time.
PIECE = 64e6


def export_rows(
    bank: Bank, file: Path, *, everything: bool = False, prior: bool = False, progress: Progress | None = None
) -> int:
    """Write theta, seeds, rounds and arrays into one file of contiguous datasets.

    Its datasets are ``theta`` (n, P), ``seed``, ``round``, ``seconds``, ``status`` and ``message`` (n,), and for each
    observable one of its name (n, C, *cells), with its unit, axes, cell size and channels as attributes. The names
    of the parameters are an attribute of ``theta``, the simulator's settings one of the file, as JSON. Of a simulator
    with worlds ``world`` has the number of each row's, and their names as an attribute.

    Parameters
    ----------
    bank
        Bank to export.
    file
        File to write; it must not exist yet.
    everything
        Whether to export rows too that are not ``ok``; their arrays are zero.
    prior
        Whether to leave out rows that were not drawn from the prior: truths of tests, and those of later rounds.
    progress
        Receives a bar.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    InputError
        If the file exists already or has a name of another format, or the bank has no rows to export, or is damaged.
    WorkError
        If the file cannot be written.
    """
    if file.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"{file}: an export is HDF5; give it a name that ends in .h5")
    if file.exists():
        raise InputError(f"{file}: exists already; give another name")
    rows = bank.rows() if everything else bank.rows().ok
    if prior:
        rows = rows[rows.round == PRIOR_ROUND]
    if not len(rows):
        kinds = [*["that are ok"] * (not everything), *["that were drawn from the prior"] * prior]
        raise InputError(f"{bank.path}: has no rows to export {' and '.join(kinds)}".rstrip())
    make_folder(file.parent)
    size, free = len(rows) * bank.bytes_per_row, shutil.disk_usage(file.parent).free
    if size > free:
        raise InputError(f"{file}: takes {size / 1e9:.2f} GB, and its disk has {free / 1e9:.2f} GB left")
    with (
        whole_file(file, first_wins=True) as temporary,
        temporary.open("w+b") as raw,  # Python writes: after an error of HDF5's own its open files end the process
        h5py.File(raw, "w") as out,
        (progress or Silent()).bar("exporting", len(rows) * len(bank.observables)) as advance,
    ):
        out.attrs["simulator"] = json.dumps(bank.description["simulator"])
        out.attrs["fingerprint"] = bank.fingerprint
        theta = out.create_dataset("theta", data=rows.theta)
        theta.attrs["names"] = [p.name for p in bank.parameters]
        theta.attrs["units"] = [p.unit for p in bank.parameters]
        if names := world_names(bank.description["simulator"]):
            out.create_dataset("world", data=rows.world).attrs["names"] = list(names)
        for name in ("seed", "round", "seconds"):
            out.create_dataset(name, data=getattr(rows, name))
        for name in ("status", "message"):
            out.create_dataset(name, data=np.char.encode(getattr(rows, name), "utf-8"))
        for observable in bank.observables:
            array = out.create_dataset(observable.name, (len(rows), *observable.shape), np.float32)
            array.attrs.update(
                unit=observable.unit,
                axes=["row", *observable.axes],
                cell_size=observable.cell_size,
                channels=observable.channels,
            )
            step = max(1, int(PIECE / observable.nbytes))
            for i in range(0, len(rows), step):
                array[i : i + step] = bank.read(observable.name, rows[i : i + step])
                advance(len(rows[i : i + step]), observable.name)
        out.flush()  # closing would not report a full disk
    return len(rows)
