"""Files that are whole or absent: written under a temporary name, then renamed."""

import atexit
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import h5py

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.reading import read_text, system_error

#: Age in seconds at which a temporary file of another machine or container, whose processes cannot be seen, is
#: abandoned.
ABANDONED_SECONDS = 24 * 3600.0
#: Bytes that a description in JSON may have, and lists and objects in it.
MOST_JSON, MOST_OBJECTS = 32e6, 1_000_000
#: Numbers of errors of a full disk, and of all after which nothing more can be written here. `EFBIG` is that of a file
#: larger than the file system, or the shell's ``ulimit -f``, lets a file be.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_WRITING = (*NO_ROOM, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG)
#: Bytes of a file's name, at most, on the usual file systems.
LONGEST_NAME = 255
_TEMPORARY = re.compile(r"^\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}-")


@contextmanager
def whole_file(path: Path, *, first_wins: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path` in one step.

    Parameters
    ----------
    path
        Path of the finished file.
    first_wins
        Keep an existing file instead of replacing it, since two processes may make the same file.

    Raises
    ------
    WorkError
        If the disk is full or cannot be written; the message names the file.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        _flush(temporary)
        if first_wins:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # HDF5 has both
        if (number := system_error(error)) not in NO_WRITING:
            raise
        raise cannot_write(path, OSError(number, os.strerror(number))) from error
    finally:
        # On a disk that has become read-only this fails too; the first error is the one to report.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_hdf5(path: Path, *, first_wins: bool = False, **settings: Any) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory; on success it becomes `path` in one step.

    HDF5 writes last when it closes a file, and reports no error then: after a full disk the file would count as
    whole. So the operating system's own calls write the file.

    `first_wins` is that of `whole_file`, and `settings` are keyword arguments of `h5py.File`.
    """
    # HDF5 takes two files of one name for the same one, even those in memory.
    name = temporary_name(path.name)
    with h5py.File(name, "w", driver="core", backing_store=False, block_size=1 << 22, **settings) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with whole_file(path, first_wins=first_wins) as temporary:
        temporary.write_bytes(image)


def cannot_write(path: Path, error: OSError) -> WorkError:
    """Return the error to raise if the disk is full or cannot be written."""
    hint = ""
    if error.errno in NO_ROOM:
        hint = "; make room, and the same command continues"
    elif error.errno == errno.EFBIG:
        hint = "; raise the limit on the size of a file (`ulimit -f`), and the same command continues"
    return WorkError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}); an existing file is kept{hint}")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`.

    Raises
    ------
    WorkError
        If the disk is full or cannot be written; the message names the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = path.with_name(temporary_name(f"old-{path.name}"))
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except OSError as error:
        if error.errno not in NO_WRITING:
            raise
        raise cannot_write(path, error) from error
    except WorkError as error:
        # Of a file in it, whose name is gone.
        if str(temporary) not in str(error):
            raise
        raise WorkError(str(error).replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: dict[str, Any], *, first_wins: bool = False) -> None:
    """Write JSON whole or not at all; `first_wins` keeps an existing file."""
    with whole_file(path, first_wins=first_wins) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_versioned(path: Path, version: int, *, links: bool = True) -> dict[str, Any]:
    """Read JSON whose key ``format`` must be `version`; `links` as for `read_text`.

    Raises
    ------
    InputError
        If the file cannot be read, or is of another format.
    """
    content = read_json(path, links=links)
    if content.get("format") != version:
        raise InputError(f"{path}: format {content.get('format')!r}, this version reads format {version}")
    return content


def read_json(path: Path, *, links: bool = True) -> dict[str, Any]:
    """Read JSON; `links` as for `read_text`.

    Raises
    ------
    InputError
        If the file cannot be read or is not JSON.
    """
    text = read_text(path, links=links, most_bytes=MOST_JSON)
    # Each of them takes twenty times the memory of its two characters.
    if (inside := text.count("[") + text.count("{")) > MOST_OBJECTS:
        raise InputError(f"{path}: has {inside} lists and objects; a description has less than {MOST_OBJECTS:.0e}")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: lists or objects stand too deep in one another") from error
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return content


def elsewhere(folder: Path, file: str) -> str:
    """Name the folder that was meant, where `file` is not in `folder` but one floor down or up; else nothing."""
    folder = Path(folder)
    places = sorted(folder.glob(f"*/{file}")) or [folder.parent / file]
    return f"; there is one in {places[0].parent}" if places[0].is_file() else ""


def file_digest(path: Path) -> str:
    """Hash what is in a file; it is read again only when its size or time has changed.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        facts = path.stat()
        return _file_digest(path, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=8)
def _file_digest(path: Path, size: int, time: int) -> str:
    """Hash a file of that size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> Path:
    """Make a folder, check that it can be written, and delete what dead processes left in it.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    WorkError
        If the disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / temporary_name("probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise cannot_write(path, error) from error
        why = error.strerror
        if file := next((p for p in (path, *path.parents) if p.is_file()), None):
            why = f"{file} is a file"
        if broken := next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None):
            why = f"{broken} is a link to {broken.readlink()}, which is not there"
        raise InputError(f"{path}: the folder cannot be written ({why}); give another --out") from error
    remove_leftovers(path)
    return path


@cache
def scratch_folder() -> Path:
    """Make a temporary folder for this process, gone when it ends; delete those of processes that were killed."""
    place = Path(tempfile.gettempdir())
    remove_leftovers(place, "eorinfer")
    folder = place / temporary_name("eorinfer")
    folder.mkdir(mode=0o700)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_leftovers(folder: Path, name: str = "") -> int:
    """Delete temporary files, of things called so or of all, that dead processes left in `folder`; return their number.

    Temporary files of another machine are deleted when they are a day old.
    """
    count = 0
    for path in folder.glob(f".tmp-*{name}"):
        if is_leftover(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(PermissionError):  # of another user
                    path.unlink(missing_ok=True)
            count += 1
    return count


def is_leftover(path: Path) -> bool:
    """Return whether the process that made a temporary file is dead, as far as this machine can tell."""
    match = _TEMPORARY.match(path.name)
    if match is None:
        return False
    if match["host"] == _place():
        return not _alive(int(match["pid"]))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return True


def temporary_name(name: str) -> str:
    """Return a name for an unfinished file; it contains the place and the number of the process.

    Of a name that would make it too long the end is taken, with the suffix.
    """
    start = f".tmp-{_place()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-"
    return start + name.encode()[-(LONGEST_NAME - len(start.encode())) :].decode(errors="ignore")


@cache
def _place() -> str:
    """Name the place in which a process number means one process: the host's name, and a hash that tells twins apart.

    Machines and containers may have one name, and number their processes alike.
    """
    facts = [str(uuid.getnode())]
    with suppress(OSError):  # Linux alone has these
        facts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return f"{socket.gethostname()}~{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]}"


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
        # A file system without hard links: the last file wins, and both hold the same rows.
        os.replace(temporary, path)
