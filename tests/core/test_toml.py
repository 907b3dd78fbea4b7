"""Configs from somebody else: what no config means is refused by name, at once and without memory."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.toml import MOST_BYTES, read_toml


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("gone")


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write(b"a = " + b"[" * 100_000), "deep"),
        (write(b"a = " + b"[" * 40 + b"]" * 40), "deep"),
        (write(b"a" + b".a" * 1000 + b" = 1"), "deep"),
        (write(b"a = " + b"{a=" * 100_000), "deep"),
        (write(b"a = " + b"9" * 100_000), "not valid TOML"),
        (write(b"seed = " + b"9" * 30), "seed: a whole number of more than 64 bits"),
        (write(b"[observation]\nfile = 'a\0b'"), "not valid TOML"),
        (write(b'[observation]\nfile = "a\\u0000b"'), "observation.file: holds a character of code 0"),
        (write(b'"a\\u0000b" = 1'), "holds a character of code 0"),
        (write(b"\xef\xbb\xbfseed = 1"), "byte-order mark"),
        (write("unit = 'µm'".encode("latin-1")), "is not text in UTF-8"),
        (write("seed = 1".encode("utf-16")), "is not text in UTF-8"),
        (write(b"seed = 1\nseed = 2"), "not valid TOML"),
        (large, f"has 100 MB; a file of this kind has less than {MOST_BYTES / 1e6:.0f}"),
        (os.mkfifo, "is a named pipe, not a file"),
        (Path.mkdir, "is a folder; give the config in it"),
        (link_to_nothing, "cannot be read (No such file or directory)"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    ],
)
def test_what_no_config_means(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "c.toml"
    make(path)
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        read_toml(path)
    assert time.monotonic() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_sound_one(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("seed = 1\n[simulator]\nlabel = 'µ'\nnested = { a = [[1, 2], [3, -9223372036854775808]] }\n")
    assert read_toml(path)["simulator"] == {"label": "µ", "nested": {"a": [[1, 2], [3, -(2**63)]]}}
