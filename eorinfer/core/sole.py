"""A sole worker: two commands must not train the same thing, or continue the same chain, at one time."""

import errno
import fcntl
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from eorinfer.core.errors import WorkError
from eorinfer.core.files import make_folder

#: Numbers of errors of a file system that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: Locks of this process, each with the thread that is at work.
_entered: set[tuple[str, int]] = set()


@contextmanager
def sole_worker(path: Path, *, shown: Path | None = None) -> Iterator[None]:
    """Work at `path` as the only process, for as long as the block takes.

    The operating system frees the lock when the process dies, however it dies, so that none is ever stale. On a file
    system without locks nothing is locked. A thread that is at work at `path` already may enter again.

    Parameters
    ----------
    path
        File or folder that is being made; the lock is a hidden file beside it.
    shown
        Name of it in the error, where that is not `path`.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    WorkError
        If another process is at work there; names it and its command.
    """
    lock = path.with_name(f".at-work-{path.name}")
    entry = str(lock.absolute()), threading.get_ident()
    if entry in _entered:
        yield
        return
    made = [folder for folder in (lock.parent, *lock.parent.parents) if not folder.exists()]
    make_folder(lock.parent)
    descriptor = _locked(lock, shown or path)
    _entered.add(entry)
    try:
        yield
    finally:
        _entered.discard(entry)
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)
        for folder in made:  # a command that is refused leaves no empty folder
            with suppress(OSError):
                folder.rmdir()


def sole_command(folder: Path) -> AbstractContextManager[None]:
    """Work in a run folder as the only one that observes, trains, samples or writes results there; see `sole_worker`.

    Commands that only fill a bank may be several: they share the work. So may those that write the page: it is one
    file, written whole, and what a living process has not finished is left alone.
    """
    return sole_worker(folder / "command", shown=folder)


def _locked(lock: Path, path: Path) -> int:
    """Return a descriptor of the locked file; the file of a worker that has just left is made again."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.fstat(descriptor).st_ino == lock.stat().st_ino:
                _sign(descriptor)
                return descriptor
        except OSError as error:
            if error.errno in NO_LOCKS:
                return descriptor
            signature = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise WorkError(
                f"{path}: another command is at work here ({signature or 'it does not say which'}); "
                "wait for its end, or give another --out"
            ) from error
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Write who is at work: process, machine, since when, and the command."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = " ".join(shlex.quote(word) for word in [Path(sys.argv[0]).name, *sys.argv[1:]])
    os.ftruncate(descriptor, 0)
    os.pwrite(
        descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}: {command}"[:1000].encode(), 0
    )
