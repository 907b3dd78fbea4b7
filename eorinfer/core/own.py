"""A user's own parts of a config, ``"module:name"``: where they are named, and what counts for keys of what is made."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from eorinfer.core.errors import InputError, naming
from simulators.parts import Part, UnknownPart, is_own, load_part, module_file
from simulators.sources import find_module

#: Keys that may hold ``"module:name"``, or a list with some, by table; ``[simulator]`` has a registry of its own.
KEYS = {"survey": ("kind",), "embedding": ("network", "summaries"), "flow": ("kind",), "contest": ("methods",)}
#: Tables that a trained network depends on.
OF_NETWORKS = ("survey", "embedding", "flow")


def own_names(content: Mapping[str, Any], tables: tuple[str, ...] = tuple(KEYS)) -> Iterator[tuple[str, str]]:
    """Key of the config and ``"module:name"`` of each own part in some of its tables."""
    for table in tables:
        for key in KEYS[table]:
            value = keys.get(key) if isinstance(keys := content.get(table), Mapping) else None
            for name in value if isinstance(value, list | tuple) else [value]:
                if is_own(name):
                    yield f"[{table}] {key}", name


def own_digests(
    content: Mapping[str, Any], beside: Path | None, tables: tuple[str, ...] = OF_NETWORKS
) -> dict[str, str]:
    """Hash of what each own part and its neighbours do, by ``"module:name"``."""
    return {name: load_part(name, beside).digest for _, name in own_names(content, tables)}


def own_key(content: Mapping[str, Any], beside: Path | None, tables: tuple[str, ...] = OF_NETWORKS) -> dict[str, Any]:
    """Content to add to a hash: empty without own parts, so that keys of such work stay what they were."""
    digests = own_digests(content, beside, tables)
    return {"own": digests} if digests else {}


def check_recorded(
    description: Mapping[str, Any], folder: Path, beside: Path | None, named: Collection[str] = ()
) -> None:
    """Refuse to read what was made with own parts unless the caller says where these are, and they are the same.

    A module is never imported because it lies beside a bundle.

    Parameters
    ----------
    description
        Description of the bundle; under ``own`` the digests that `own_digests` gave.
    folder
        The bundle, named in errors.
    beside
        Folder of the modules that the caller gave; each is in it, unless it is in `named`.
    named
        Own parts that the user's config names, which may be on Python's path.

    Raises
    ------
    InputError
        Saying what to give, or which module differs.
    """
    recorded = description.get("own", {})
    # By the names in the tables: a bundle from somebody else may record less than it names.
    for _, name in own_names(description, OF_NETWORKS[1:]):
        if not isinstance(recorded, Mapping) or name not in recorded:
            raise InputError(f'{folder}: names "{name}" and does not say with which version of it it was made')
    for name, digest in recorded.items():
        if beside is None:
            raise InputError(
                f'{folder}: made with your own "{name}"; name the folder of {module_file(name)}: '
                "--modules FOLDER, or Posterior.load(..., beside=FOLDER)"
            )
        # Else a bundle could name what is on Python's path, such as "subprocess:Popen".
        if name not in named and find_module(name.partition(":")[0], beside) is None:
            raise InputError(f'{folder}: made with your own "{name}"; there is no {module_file(name)} in {beside}')
        found = part(name, beside, str(folder))
        if digest not in (found.digest, found.earlier_digest):
            raise InputError(
                f'{folder}: made with another version of your own "{name}" than {beside / module_file(name)} '
                "and what it imports from beside it; give a folder with the one that it was made with"
            )


def part(name: str, beside: Path | None, where: str) -> Part:
    """Import an own part as `simulators.parts.load_part` does; `where` is the file and the key, named in errors.

    Raises
    ------
    InputError
        If it cannot be imported.
    """
    with naming(f"{where}: ", UnknownPart):
        return load_part(name, beside)
