"""The two ways in which a command can end badly."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Wrong input of the user: names the file, the key and what would be right. Exit code 2.

    Examples
    --------
    >>> from eorinfer import load_config
    >>> load_config({"simulator": {"kind": "gaussian-feld"}})
    Traceback (most recent call last):
        ...
    eorinfer.core.errors.InputError: ...
    """


class WorkError(Exception):
    """The input was right, but the work failed; what was computed is kept. Exit code 1.

    Examples
    --------
    >>> from eorinfer import WorkError
    >>> raise WorkError("30 of 100 simulations failed")
    Traceback (most recent call last):
        ...
    eorinfer.core.errors.WorkError: 30 of 100 simulations failed
    """


@contextmanager
def naming(where: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Raise an error of this kind as the user's, with the file and the key, ``"run.toml: [survey] "``, before it."""
    try:
        yield
    except kind as error:
        raise InputError(f"{where}{error}") from error


class MissingEntryError(Exception):
    """A file can be read and lacks an entry; the message is what the user should see, after the file's name."""
