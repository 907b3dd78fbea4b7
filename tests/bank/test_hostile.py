"""Banks from somebody else: what is no bank's file is named at once, and nothing outside the bank is read or moved."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from eorinfer.bank.shards import LAYOUT
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.core.errors import InputError
from tests.banks import a_bank


@contextmanager
def rewritten(path: Path) -> Iterator[h5py.File]:
    """Yield a copy of a file to be changed, as HDF5 writes it."""
    with h5py.File(path, "r+", libver=LAYOUT) as file:
        yield file


def external(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.ExternalLink("elsewhere.h5", "/secret")


def soft(file: h5py.File, name: str) -> None:
    file.move(name, "moved")
    file[name] = h5py.SoftLink("/moved")


def virtual(file: h5py.File, name: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "secret", shape)
    file.create_virtual_dataset(name, layout)


def outside(file: h5py.File, name: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[("elsewhere.raw", 0, h5py.h5f.UNLIMITED)])


def absurd(file: h5py.File, name: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, (10**12, *shape[1:]), dtype, chunks=(1024, *shape[1:]))


def bomb(file: h5py.File, name: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    rows = 20_000_000 // max(1, int(np.prod(shape[1:], dtype=int)))
    zeros = np.zeros((rows, *shape[1:]), dtype)
    file.create_dataset(name, data=zeros, chunks=zeros.shape, compression="gzip")


def a_group(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_group(name)


def heap_text(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_dataset(name, data=["x"] * 2, dtype=h5py.string_dtype())


CHANGES = [external, soft, virtual, outside, absurd, bomb, a_group, heap_text]


@pytest.mark.parametrize("name", ["theta", "status", "observables/field", "crc32/field"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_points_out_of_itself_or_lies(
    tmp_path: Path, change: Callable[[h5py.File, str], None], name: str
) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    os.mkfifo(bank.path / "shards/elsewhere.h5")  # to open it would wait for ever
    (bank.path / "shards/elsewhere.h5").rename(bank.path / "shards/elsewhere.raw")
    os.mkfifo(bank.path / "shards/.elsewhere.h5")
    with rewritten(bank.shard_path(plan, 0)) as file:
        change(file, name)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"01-abc-00000\.h5: (not a whole shard|field cannot be read)"):
        Bank.open(bank.path).read("field", Bank.open(bank.path).rows())
    assert [problem.name for problem in verify(bank.path)] == ["shards/01-abc-00000.h5"]
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_that_points_out_of_itself_or_lies(tmp_path: Path, change: Callable[[h5py.File, str], None]) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    with rewritten(bank.path / "rounds/01-abc.h5") as file:
        change(file, "theta")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"rounds/01-abc\.h5: cannot be read as the plan of a round"):
        Bank.open(bank.path).plans()
    assert {problem.name for problem in verify(bank.path)} == {"rounds/01-abc.h5"}
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(("name", "value"), [("shard_rows", 0), ("shard_rows", -3), ("proposal", ["a", "b"])])
def test_a_plan_with_absurd_numbers(tmp_path: Path, name: str, value: Any) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    with rewritten(bank.path / "rounds/01-abc.h5") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match="cannot be read as the plan of a round"):
        Bank.open(bank.path).plans()


@pytest.mark.parametrize("id", ["../../elsewhere", "/etc/passwd", "..", "a/b", ""])
def test_a_round_is_no_path(tmp_path: Path, id: str) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    shutil.copy(bank.path / "rounds/01-abc.h5", tmp_path / "elsewhere.h5")
    with pytest.raises(InputError, match=r"no name of a round|cannot be read as the plan"):
        bank.plan(id)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../field"),
        ("name", ""),
        ("name", 7),
        ("shape", [10**12, 10**12]),
        ("shape", [1, -8, 8]),
        ("shape", ["1", 8, 8]),
        ("shape", []),
        ("symmetry", None),
    ],
)
def test_a_description_with_absurd_content(tmp_path: Path, key: str, value: Any) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    content = json.loads((bank.path / "bank.json").read_text())
    content["observables"][0][key] = value
    (bank.path / "bank.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"bank\.json: cannot be read as a bank's description"):
        Bank.open(bank.path)
    assert [problem.name for problem in verify(bank.path)] == ["bank.json"]


@pytest.mark.parametrize("notes", [5, {"x": 5}, {"x": {"proposal": "p", "warnings": ["\x1b[2J"]}}, {"x": {}}])
def test_notes_that_are_no_text(tmp_path: Path, notes: Any) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    content = json.loads((bank.path / "bank.json").read_text())
    (bank.path / "bank.json").write_text(json.dumps(content | {"notes": notes}))
    with pytest.raises(InputError, match=r"bank\.json: cannot be read as a bank's description"):
        Bank.open(bank.path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "loop", "dangling", "enormous", "nested"])
def test_a_description_that_is_no_file(tmp_path: Path, kind: str) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    file = bank.path / "bank.json"
    file.rename(tmp_path / "bank.json")
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "enormous":
        with file.open("wb") as out:
            out.truncate(10**12)
    elif kind == "nested":
        file.write_text("[" * 100_000)
    else:
        file.symlink_to({"link": tmp_path / "bank.json", "loop": file, "dangling": tmp_path / "nothing"}[kind])
    start = time.monotonic()
    with pytest.raises(InputError, match=r"bank\.json: "):
        Bank.open(bank.path)
    assert [problem.name for problem in verify(bank.path)] == ["bank.json"]
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("name", ["shards", "rounds"])
def test_folders_from_elsewhere_are_not_touched(tmp_path: Path, name: str) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / "my-thesis.h5").write_text("not of a bank")
    shutil.rmtree(bank.path / name)
    (bank.path / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=rf"bank/{name}: is a symbolic link, not a folder"):
        verify(bank.path, repair=True)
    assert (elsewhere / "my-thesis.h5").exists()


def test_a_pipe_in_the_place_of_a_folder(tmp_path: Path) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    shutil.rmtree(bank.path / "shards")
    os.mkfifo(bank.path / "shards")
    with pytest.raises(InputError, match=r"bank/shards: is not a folder"):
        verify(bank.path)


def test_verify_ends_on_everything(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path / "bank", rows=20)
    shards = [bank.shard_path(plan, i) for i in range(plan.shards)]
    for shard in shards[:9]:
        shard.unlink()
    os.mkfifo(shards[0])
    shards[1].mkdir()
    shards[2].symlink_to("/dev/zero")
    shards[3].symlink_to(shards[4].name)
    shards[4].symlink_to(shards[3].name)
    with shards[5].open("wb") as file:
        file.truncate(10**13)
    shutil.copy(shards[9], shards[6])
    with shards[6].open("r+b") as file:
        file.truncate(10**13)
    shards[7].write_bytes(b"\x89HDF\r\n\x1a\n" * 1000)
    shards[8].write_text("")
    start = time.monotonic()
    found = {problem.name for problem in verify(bank.path)}
    assert time.monotonic() - start < 3
    assert found == {f"shards/{shard.name}" for shard in shards[:9]}
    for _ in range(2):  # what an earlier repair set aside stays
        verify(bank.path, repair=True)
        assert len(list((bank.path / "set-aside").iterdir())) in (9, 10)
        shards[0].write_text("again")
    assert len(list((bank.path / "set-aside").iterdir())) == 10
