"""Matplotlib without a window and without a cache in the home folder."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from eorinfer.files import whole_file


def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib a temporary cache; to be called before anything imports it, as sbi does."""
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="eorinfer-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder


def pyplot() -> Any:
    """`matplotlib.pyplot` with the Agg backend, its cache in a temporary folder."""
    keep_matplotlib_out_of_home()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, root: Path) -> None:
    """Write ``ROOT.png`` and ``ROOT.pdf`` whole, and close the figure."""
    for suffix in (".png", ".pdf"):
        with whole_file(root.with_suffix(suffix)) as path:
            figure.savefig(path, format=suffix[1:], bbox_inches="tight", dpi=150)
    pyplot().close(figure)
