"""Matplotlib without a window and without a cache in the home folder, and writers of its figures."""

import atexit
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels in an inch of a figure.
DOTS_PER_INCH = 150
#: Options of `Figure.savefig`.
SAVED: dict[str, Any] = {"bbox_inches": "tight", "dpi": DOTS_PER_INCH}


def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib a temporary cache. Call it before anything imports matplotlib, as sbi does."""
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="eorinfer-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder


def pyplot() -> Any:
    """Import `matplotlib.pyplot` with the Agg backend, its cache in a temporary folder."""
    keep_matplotlib_out_of_home()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: "Figure", root: Path) -> None:
    """Write ``ROOT.png`` and ``ROOT.pdf`` whole, and close the figure."""
    for suffix in (".png", ".pdf"):
        _write(figure, root.with_suffix(suffix))
    pyplot().close(figure)


def write_figure(figure: "Figure", file: Path) -> None:
    """Write one picture whole, as PNG or PDF by its name, and close the figure.

    Raises
    ------
    InputError
        If the name does not end in ``.png`` or ``.pdf``, or its folder cannot be written.
    """
    if file.suffix not in (".png", ".pdf"):
        raise InputError(f"{file}: pictures are .png or .pdf files")
    make_folder(file.parent)
    _write(figure, file)
    pyplot().close(figure)


def png_bytes(figure: "Figure") -> bytes:
    """Return the content of the PNG file that `write_figure` would write, and close the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **SAVED)
    pyplot().close(figure)
    return buffer.getvalue()


def _write(figure: "Figure", file: Path) -> None:
    with whole_file(file) as path:
        figure.savefig(path, format=file.suffix[1:], **SAVED)
