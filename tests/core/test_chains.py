"""Chains of other programs: read as getdist reads them, or refused by file and row."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from getdist import MCSamples

from eorinfer.core.chains import read_chain
from eorinfer.core.errors import InputError
from eorinfer.core.samples import Samples

ROWS = np.random.default_rng(0).normal(size=(200, 2))


def others(root: Path) -> None:
    """Write a chain of three files as other programs do, with a derived parameter and comments."""
    table = np.column_stack([np.ones(200), np.full(200, np.inf), ROWS])
    for i, part in enumerate(np.split(table, [80, 120]), start=1):
        np.savetxt(root.with_name(f"{root.name}_{i}.txt"), part, header="weight like a b", comments="# ")
    with root.with_name(f"{root.name}_3.txt").open("a") as file:
        file.write("\n   \n# the end\n")
    root.with_name(f"{root.name}.paramnames").write_text("a\t\\alpha # the slope\nb*\n")


def test_several_files_without_ranges_and_properties(tmp_path: Path) -> None:
    others(tmp_path / "gd")
    samples = Samples.read(tmp_path / "gd")
    np.testing.assert_allclose(samples.values, ROWS)
    assert [(p.name, p.label, p.low, p.high) for p in samples.parameters] == [
        ("a", r"\alpha", -np.inf, np.inf),
        ("b", "b", -np.inf, np.inf),
    ]
    assert (samples.label, samples.correlated) == ("gd", True)
    np.testing.assert_allclose(samples.to_getdist().getMeans(), ROWS.mean(0))


def test_what_getdist_itself_writes(tmp_path: Path) -> None:
    MCSamples(samples=ROWS, names=["a", "b"], labels=["A", "B"], ranges={"a": [-9, None]}).saveAsText(
        str(tmp_path / "mine")
    )
    chain = read_chain(tmp_path / "mine")
    np.testing.assert_allclose(chain.values, ROWS, rtol=1e-6)
    assert (chain.parameters[0].low, chain.parameters[0].high) == (-9.0, np.inf)


def test_the_tenth_file_comes_after_the_ninth(tmp_path: Path) -> None:
    (tmp_path / "gd.paramnames").write_text("a\n")
    for i in range(1, 12):
        (tmp_path / f"gd.{i}.txt").write_text(f"1 0 {i}\n")
    assert read_chain(tmp_path / "gd").values[:, 0].tolist() == list(range(1, 12))


def table(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "gd.txt").write_text(text)


def pipe(folder: Path) -> None:
    (folder / "gd.txt").unlink()
    os.mkfifo(folder / "gd.txt")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (table("1 0 1 2\n1 0 nan 2\n"), "gd.txt: row 2: a is nan"),
        (table("inf 0 1 2\n"), "gd.txt: row 1: the weight is inf"),
        (table("1 0 1\n"), "gd.txt: has 3 columns; 2 parameters have 4, with weight and -ln p before them"),
        (table("1 0 1 2\n1 0 1\n"), "the number of columns changed"),
        (table("0 0 1 2\n"), "the weight, is negative or zero everywhere"),
        (table("1 0 1 2\n-1 0 1 2\n"), "the weight, is negative or zero everywhere"),
        (table("# nothing\n\n"), "gd.txt: has no row"),
        (table("\0\0\0"), "gd.txt: "),
        (lambda folder: (folder / "gd.txt").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe"), "gd.txt: is not text in UTF-8"),
        (pipe, "gd.txt: is a named pipe, not a file"),
        (lambda folder: (folder / "gd.paramnames").write_text("a\na\n"), 'gd.paramnames: "a" is named twice'),
        (lambda folder: (folder / "gd.paramnames").write_text("a?\nb\n"), '"a?" is no name of a parameter'),
        (lambda folder: (folder / "gd.paramnames").write_text("\n"), "gd.paramnames: names no parameter"),
        (lambda folder: (folder / "gd.ranges").write_text("a 2 1\n"), "gd.ranges: a: 2 is not below 1"),
    ],
)
def test_what_is_no_chain(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    (tmp_path / "gd.paramnames").write_text("a\nb\n")
    (tmp_path / "gd.txt").write_text("1 0 1 2\n")
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        read_chain(tmp_path / "gd")
    assert str(error.value).startswith(f"{tmp_path}/gd.txt: cannot be read as a chain in getdist's format (gd.")
    assert message in str(error.value)


def test_other_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "gd.nc").write_bytes(b"CDF\x01")
    with pytest.raises(InputError, match=r"gd\.nc: cannot be read as a chain: give the root of getdist's text files"):
        read_chain(tmp_path / "gd.nc")
