"""Options and helpers that the command line's modules share."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

Out = Annotated[Path, Parameter(name="--out", help="Run folder; the same command goes on where it stopped.")]


def open_run(config: Path, out: Path) -> Any:
    """The run of a config in a folder, with progress on the terminal."""
    from eorinfer.core.progress import for_terminal
    from eorinfer.run import Run
    from eorinfer.run.config import load_config

    return Run(load_config(config), out, for_terminal())
