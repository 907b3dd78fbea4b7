"""Commands around a run: write a first config, check one, and say where a run stands."""

from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from cyclopts import App, Parameter

from eorinfer.cli.common import Config
from eorinfer.core.errors import InputError

#: Configs that `init` writes, and what else each needs beside it.
TEMPLATES = {"21cm": (), "lightcone": (), "lim": (), "own": ("own_simulator.py",)}


def add_start_commands(app: App) -> None:
    """Add the commands of this module to the command line."""
    for command in (init, check, status):
        app.command(command)


def init(
    kind: Literal["21cm", "lightcone", "lim", "own"] = "21cm",
    *,
    out: Annotated[Path | None, Parameter(name="--out", help="File to write; by default KIND.toml.")] = None,
) -> None:
    """Write a first config with comments: 21cm boxes, a 21cm light-cone, line intensities, or a simulator of your own.

    Parameters
    ----------
    kind
        What is simulated.
    """
    file = out or Path(f"{kind}.toml")
    texts = {file: f"{kind}.toml"} | {file.parent / name: name for name in TEMPLATES[kind]}
    for path in texts:
        if path.exists():
            raise InputError(f"{path}: is there already, and is left as it is; give another file with --out")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder")
    from eorinfer.core.files import make_folder

    make_folder(file.parent)  # it is there: refused where it cannot be written
    quoted = quote(str(file))
    for path, name in texts.items():
        text = files("eorinfer.cli").joinpath("templates", name).read_text(encoding="utf-8")
        path.write_text(text.replace("check FILE", f"check {quoted}").replace("run FILE", f"run {quoted}"), "utf-8")
    print(f"written: {', '.join(map(str, texts))}; next: eorinfer check {quoted}")


def check(config: Config) -> None:
    """Check a config and the files that it names, without computing anything."""
    from eorinfer.run.preview import preview

    print("\n".join(preview(config)))


def status(run: Path) -> None:
    """Say which steps of a run are done, and what its posteriors are.

    Parameters
    ----------
    run
        Run folder.
    """
    from eorinfer.report.terminal import status_lines

    print("\n".join(status_lines(run)))
