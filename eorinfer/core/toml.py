"""TOML files read without trust: small, shallow, and with values that a config can mean."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eorinfer.core.errors import InputError
from eorinfer.core.reading import read_text

#: Bytes that a config may have, and tables and lists that may stand inside one another.
MOST_BYTES, DEEPEST = 4e6, 32
#: Whole numbers of TOML have 64 bits.
LARGEST = 2**63


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InputError
        If it cannot be read, is no TOML, or holds what no config means; the message names the file.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the config in it, a TOML file")
    try:
        text = read_text(path, most_bytes=MOST_BYTES)
    except InputError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise InputError(f"{path}: not valid TOML: {str(error).removeprefix(f'{path}: ')}") from error
        raise
    return parse_toml(path, text)


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """Parse the text of a TOML file, whose `path` is named in errors.

    Raises
    ------
    InputError
        See `read_toml`.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{path}: begins with a byte-order mark; save it as UTF-8 without one")
    try:
        content = tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: tables or lists stand more than {DEEPEST} deep in one another") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValueError as error:  # of Python itself: it reads no number of so many digits
        raise InputError(
            f"{path}: not valid TOML: a whole number of more than 64 bits, or a date that is none"
        ) from error
    _refuse_strange(path, content)
    return content


def with_home(value: Any) -> Any:
    """Replace ``~/`` at the beginning of each text by the user's home, as a shell does: only paths begin so."""
    if isinstance(value, Mapping):
        return {key: with_home(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_home, value))
    if isinstance(value, str | Path) and str(value).startswith("~/"):
        return type(value)(Path(value).expanduser())
    return value


def _refuse_strange(path: Path, content: dict[str, Any]) -> None:
    """Refuse what is valid TOML and has no meaning in a config; without recursion, which deep tables would end."""
    ahead: list[tuple[int, str, Any]] = [(0, "", content)]
    while ahead:
        depth, where, value = ahead.pop()
        if depth > DEEPEST:
            raise InputError(f"{path}: {where[:40]}: tables or lists stand more than {DEEPEST} deep in one another")
        if isinstance(value, dict):
            ahead += [(depth + 1, f"{where}.{key}".lstrip("."), inner) for key, inner in value.items()]
            for key in value:
                _refuse_control(path, where or "a key", key)
        elif isinstance(value, list):
            ahead += [(depth + 1, where, inner) for inner in value]
        elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
            raise InputError(f"{path}: {where}: a whole number of more than 64 bits")
        elif isinstance(value, str):
            _refuse_control(path, where, value)


def _refuse_control(path: Path, where: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{path}: {where}: holds a character of code 0, which no name and no path has")
