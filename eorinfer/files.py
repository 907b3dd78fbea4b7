"""Files that are whole or absent: written under a temporary name, then renamed."""

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eorinfer.errors import InputError

_TEMPORARY = re.compile(r"^\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}-")


@contextmanager
def whole_file(path: Path, *, first_wins: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path` in one step.

    Parameters
    ----------
    path
        Where the file shall stand.
    first_wins
        Keep a file that stands there already (two processes made the same thing),
        instead of replacing it.
    """
    temporary = path.with_name(_tag() + path.name)
    try:
        yield temporary
        _flush(temporary)
        if first_wins:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = _tag()
    temporary = path.with_name(tag + path.name)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = path.with_name(tag + "old-" + path.name)
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_versioned(path: Path, version: int) -> dict[str, Any]:
    """Read JSON whose key ``format`` must be `version`.

    Raises
    ------
    InputError
        If the file cannot be read, or is of another format.
    """
    content = read_json(path)
    if content.get("format") != version:
        raise InputError(f"{path}: format {content.get('format')!r}, this version reads format {version}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON.

    Raises
    ------
    InputError
        If the file cannot be read or is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return content


def make_folder(path: Path) -> Path:
    """Make a folder that can be written to, or say why not.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / (_tag() + "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be written ({error.strerror}); give another --out") from error
    return path


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files that dead processes of this machine left in `folder`; return how many."""
    count = 0
    for path in folder.glob(".tmp-*"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == socket.gethostname() and not _alive(int(match["pid"])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            count += 1
    return count


def _tag() -> str:
    """Prefix of a temporary name; tells whose it is."""
    return f".tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:
        # A file system without hard links: the last one wins, and both are the same rows.
        os.replace(temporary, path)
