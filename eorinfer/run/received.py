"""The config of a run folder that may be somebody else's: read as data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eorinfer.core.errors import InputError
from eorinfer.core.own import own_names
from eorinfer.core.toml import read_toml
from eorinfer.run.config import Config, check_config
from eorinfer.settings.old_names import with_old_defaults
from simulators.parts import is_own


def load_received(folder: Path, modules: Path | None) -> Config:
    """Read the config in a run folder that may be somebody else's: nothing that it names is run.

    Parameters
    ----------
    folder
        Run folder, whose bank must be there.
    modules
        Folder of the user's own modules; without it a config that names some is refused.

    Raises
    ------
    InputError
        See `load_config`; or if the config names modules, and the user no folder of them.
    """
    path = folder / "config.toml"
    content = with_old_defaults(read_toml(path))
    if modules is None:
        for key, name in (*_own_simulator(content), *own_names(content)):
            raise InputError(
                f'{path}: {key}: "{name}" is code that came with the folder, and is not run; '
                "if you trust it, name the folder of its module: --modules FOLDER"
            )
    # A batch system's prologue is a shell's, and a Dask scheduler sends what is to be run.
    config = check_config(path, content | {"executor": {}}, modules=modules, received=True)
    if not (config.bank_path(folder) / "bank.json").is_file():
        raise InputError(f"{path}: no bank in {config.bank_path(folder)}")
    return config


def _own_simulator(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and name of a simulator of the user's own."""
    table = content.get("simulator")
    if isinstance(table, dict) and is_own(kind := table.get("kind")):
        yield "[simulator] kind", kind
