"""What a command that was stopped leaves, in words; loads little, as it is asked after Ctrl-C."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.toml import read_toml

#: Commands that write all at their end.
WHOLE = {("image-flow", "sample"), ("separate", "apply"), ("bank", "export")}
#: Files that are written before anything is computed: the config, the bank's description, and what is planned.
BEGUN = ("config.toml", "bank.json", "round.json", "separation.json")


def what_is_left(arguments: Sequence[str]) -> str:
    """Say what the stopped command with these arguments has kept."""
    if tuple(arguments[:2]) in WHOLE:
        return "stopped; nothing was written; the same command begins anew"
    if (out := _out(arguments)) is not None and not _has_work(out):
        return "stopped before anything was computed; the same command begins anew"
    return "stopped; what was computed is kept, and the same command continues from there"


def _out(arguments: Sequence[str]) -> Path | None:
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--out" and value:
            return Path(value)
        if option.startswith("--out="):
            return Path(option.removeprefix("--out="))
    return None


def _has_work(out: Path) -> bool:
    """Tell whether a folder, or its bank elsewhere, has more than was written at the beginning."""
    if not out.is_dir():
        return out.exists()
    try:
        return any(_is_work(path) for path in _files(out)) or any((_bank(out) / "shards").glob("*.h5"))
    except (OSError, InputError, WorkError):  # what cannot be read may hold work
        return True


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that are not hidden: locks, claims and unfinished files are."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _is_work(path: Path) -> bool:
    plan = path.suffix == ".h5" and path.parent.name == "rounds"
    # A user's own modules are copied beside the config.
    return path.name not in BEGUN and path.suffix != ".py" and not plan


def _bank(out: Path) -> Path:
    """Give the bank that the config in a run folder names, by default the one in the folder."""
    config = out / "config.toml"
    path = read_toml(config).get("bank", {}).get("path") if config.exists() else None
    return out / (path or "bank")
