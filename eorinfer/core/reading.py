"""Files read without trust: what may be opened, and what an error says of the file or of its surroundings."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eorinfer.core.errors import InputError, WorkError

#: What an operating system says of itself, or of its network, and not of the file's content.
SURROUNDINGS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ESTALE, errno.EIO),
        *(errno.ENOMEM, errno.EINTR, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO, errno.ENXIO),
    }
)
#: Bytes that a text file may have: a description or a config is small.
MOST_TEXT = 256e6
_NUMBER = re.compile(r"errno = (\d+)")
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class ForeignFileError(Exception):
    """The name is not that of a regular file, or the file points out of itself."""


def refuse_surroundings(path: Path | str, error: BaseException) -> None:
    """Raise what an error says of the surroundings, by name; return where it says that the file is damaged.

    Raises
    ------
    WorkError
        If the operating system refused: permissions, locks, too many open files, a lost network disk.
    """
    number = system_error(error)
    if number in SURROUNDINGS:
        raise WorkError(
            f"{path}: cannot be read now ({errno.errorcode[number]}: {os.strerror(number)}); "
            "the file may be whole and stays where it is"
        ) from error


def system_error(error: BaseException) -> int:
    """Return the operating system's number of an error, also where HDF5 gives it in words only; else 0."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    words = _NUMBER.search(str(error))
    return int(words[1]) if words else 0


def refuse_foreign(path: Path | str, *, links: bool = False) -> None:
    """Make sure that `path` is a regular file, without opening it: opening a pipe would wait for ever.

    Parameters
    ----------
    path
        File that is to be read.
    links
        Whether a symbolic link may lead to it, as a user's own file may be linked.

    Raises
    ------
    ForeignFileError
        If it is something else.
    OSError
        If there is nothing.
    """
    mode = (os.stat if links else os.lstat)(path).st_mode
    if not stat.S_ISREG(mode):
        raise ForeignFileError(f"is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file")


@contextmanager
def text_file(path: Path, *, links: bool = True, most_bytes: float = MOST_TEXT) -> Iterator[None]:
    """Check a text file in UTF-8, which the block then reads; all that is wrong with it is said in one way.

    Raises
    ------
    InputError
        If there is none, it is no regular file, too large, or not UTF-8.
    WorkError
        If the operating system refused.
    """
    try:
        refuse_foreign(path, links=links)
        size = os.stat(path).st_size
        if size > most_bytes:
            raise ForeignFileError(f"has {size / 1e6:.0f} MB; a file of this kind has less than {most_bytes / 1e6:.0f}")
        yield
    except ForeignFileError as error:
        raise InputError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        refuse_surroundings(path, error)
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path, *, links: bool = True, most_bytes: float = MOST_TEXT) -> str:
    """Read a text file in UTF-8; raises as `text_file` does."""
    with text_file(path, links=links, most_bytes=most_bytes):
        text = path.read_text(encoding="utf-8")
    return text
