"""Options and helpers that the commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from eorinfer.run import Run

Out = Annotated[Path, Parameter(name="--out", help="Run folder. The same command continues where it stopped.")]

Config = Annotated[Path, Parameter(help="TOML file.")]

Modules = Annotated[
    Path | None,
    Parameter(
        name="--modules",
        help="Folder of your own modules, where the given folder was made with some: nothing in it is run otherwise.",
    ),
]

#: What each run, and each posterior that was used again, leaves in its folder.
LEFT = ("config.toml", "chains")


@contextmanager
def sole_run(config: Path, out: Path, *, with_mcmc: bool = False, begun: str = "") -> Iterator["Run"]:
    """Open a run like `open_run`, for a command beside which no other may work in the folder.

    Raises
    ------
    InputError
        See `open_run`.
    WorkError
        If another is at work there; names it.
    """
    from eorinfer.core.sole import sole_command

    # First, so that a config that is wrong is said and makes no folder.
    opened = open_run(config, out, with_mcmc=with_mcmc, begun=begun)
    with sole_command(out):
        yield opened


def open_run(config: Path, out: Path, *, with_mcmc: bool = False, begun: str = "") -> "Run":
    """Open the run of a config in a folder, with progress on the terminal.

    With `with_mcmc`, rounds too small for the chain are refused before the folder is begun with them. A command that
    shows what is there names in `begun` what it looks for, and begins no folder.

    Raises
    ------
    InputError
        If the config is wrong, or there is no run where one must have begun.
    """
    from eorinfer.core.errors import InputError
    from eorinfer.core.progress import for_terminal
    from eorinfer.run import Run
    from eorinfer.run.config import load_config
    from eorinfer.run.costs import refuse_few

    checked = load_config(config)
    if with_mcmc:
        refuse_few(checked)
    if begun and not any((out / name).exists() for name in LEFT):
        raise InputError(f"{out}: no run here, and no {begun}; run `eorinfer infer` first, or give its --out")
    return Run(checked, out, for_terminal())
