"""The bank: what is written comes back, and what is damaged is found."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from eorinfer.bank.description import package_versions
from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import fill, local_executor
from eorinfer.core.errors import InputError
from eorinfer.core.files import temporary_name
from simulators import GaussianField, fingerprint
from tests.banks import a_bank, a_plan, write


def test_round_trip_bit_for_bit(tmp_path: Path) -> None:
    _, plan = a_bank(tmp_path)
    bank = Bank.open(tmp_path)
    simulator = GaussianField(cells=8)
    assert bank.parameters == simulator.parameters
    assert bank.observables == simulator.observables
    assert bank.fingerprint == fingerprint(simulator)
    assert bank.description["packages"] == package_versions()

    rows = bank.rows()
    assert rows.theta.tobytes() == plan.theta.tobytes()
    assert rows.seed.tolist() == [0, 1, 2, 3, 4]
    assert rows.status.tolist() == ["ok", "failed", "ok", "ok", "ok"]
    assert rows.message[1] == "keine Quellen: θ"
    assert rows.round.tolist() == [1] * 5
    assert rows.counts() == {"ok": 4, "failed": 1}
    assert rows.ok.seed.tolist() == [0, 2, 3, 4]
    fields = bank.read("field", rows.ok)
    for theta, seed, field in zip(rows.ok.theta, rows.ok.seed, fields, strict=True):
        assert field.tobytes() == simulator.simulate(theta, int(seed))["field"].tobytes()
    assert not bank.read("field", rows[[1]]).any()


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    with h5py.File(bank.shard_path(plan, 0)) as file:
        kinds = {name: (file[name].shape, file[name].dtype.str) for name in ("theta", "seed", "round", "seconds")}
        assert kinds["theta"] == ((2, 2), "<f8")
        assert kinds["seed"] == ((2,), "<u8")
        assert h5py.check_string_dtype(file["status"].dtype) is not None
        assert h5py.check_string_dtype(file["message"].dtype) is not None
        assert file["observables/field"].dtype == np.float32
        assert file["observables/field"].chunks == (1, 1, 8, 8), "one row is one chunk"
    assert not (bank.path / "shards" / "pickle").exists()
    for path in bank.path.rglob("*.*"):
        assert b"\x80\x04\x95" not in path.read_bytes(), f"{path} holds a pickle"
        assert path.suffix in (".h5", ".json")


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    bank, _ = a_bank(tmp_path)
    rows = bank.rows()
    order = [4, 0, 3, 3, 2]
    np.testing.assert_array_equal(bank.read("field", rows[order]), bank.read("field", rows)[order])
    assert bank.read("field", rows[[]]).shape == (0, 1, 8, 8)
    np.testing.assert_array_equal(bank.read("field", rows[2]), bank.read("field", rows[[2]]))
    assert repr(rows) == "Rows(4 ok, 1 failed)"
    with pytest.raises(InputError, match="has no observable 'feild', but field"):
        bank.read("feild", rows)
    with pytest.raises(InputError, match=r"rows are those of bank.rows\(\), such as .*, not \[0, 1\]"):
        bank.read("field", [0, 1])  # type: ignore[arg-type]


def test_rounds_are_kept_apart(tmp_path: Path) -> None:
    bank, first = a_bank(tmp_path)
    second = bank.add(a_plan(3, 2, number=2))
    write(bank, second, 0, GaussianField(cells=8))
    assert [plan.id for plan in bank.plans()] == ["01-abc", "02-abc"]
    assert len(bank.rows([first])) == 5
    assert bank.rows([second]).round.tolist() == [2, 2]
    assert len(bank.rows()) == 7


def test_the_first_whole_shard_wins(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    before = bank.shard_path(plan, 0).read_bytes()
    write(bank, plan, 0, GaussianField(cells=8), seconds=99.0)
    assert bank.shard_path(plan, 0).read_bytes() == before
    again = bank.add(a_plan(5, 2))
    assert again.theta.tobytes() == plan.theta.tobytes()
    assert not list(bank.path.rglob(".tmp-*"))


def test_missing_is_found_by_listing(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    assert bank.missing(plan) == []
    bank.shard_path(plan, 0).unlink()
    bank.shard_path(plan, 2).unlink()
    assert bank.missing(plan) == [0, 2]
    assert bank.missing(plan, rows=4) == [0]
    assert bank.rows().seed.tolist() == [2, 3]


def test_a_half_written_shard_is_no_shard(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path, GaussianField(cells=8))
    plan = bank.add(a_plan(2, 2))
    with pytest.raises(KeyError):
        bank.write_shard(plan, 0, status=["ok"] * 2, message=[""] * 2, seconds=[0.0] * 2, arrays={})
    assert bank.missing(plan) == [0]
    assert not list(bank.path.rglob(".tmp-*"))


def test_another_simulator_is_refused(tmp_path: Path) -> None:
    a_bank(tmp_path)
    other = GaussianField(cells=8, pivot=0.5)
    with pytest.raises(InputError) as caught:
        Bank.create(tmp_path, other)
    text = str(caught.value)
    for part in (str(tmp_path), fingerprint(GaussianField(cells=8)), fingerprint(other)):
        assert part in text
    assert "pivot: bank 0.785, config 0.5" in text
    assert "cells" not in text
    assert "\n" not in text


def test_other_version_of_the_same_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bank(tmp_path)
    monkeypatch.setattr(GaussianField, "version", "2")
    with pytest.raises(InputError, match="same settings, other version or source"):
        Bank.create(tmp_path, GaussianField(cells=8))


def test_no_bank_unknown_format_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no bank here \(bank\.json is missing\)"):
        Bank.open(tmp_path)
    (tmp_path / "bank.json").write_text('{"format": 7}')
    with pytest.raises(InputError, match=r"bank\.json: format 7, this version reads format 2"):
        Bank.open(tmp_path)
    (tmp_path / "bank.json").write_text('{"format": ')
    with pytest.raises(InputError, match=r"bank\.json: cannot be read as JSON"):
        Bank.open(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: the folder cannot be written \(.*/file is a file\)"):
        Bank.create(tmp_path / "file", GaussianField())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def chunk_offset(path: Path, row: int) -> int:
    with h5py.File(path) as file:
        chunk = file["observables/field"].id.get_chunk_info(row)
    return int(chunk.byte_offset + chunk.size // 2)


@pytest.mark.job
def test_damage_is_found_set_aside_and_simulated_again(tmp_path: Path) -> None:
    simulator = GaussianField(cells=8)
    bank = Bank.create(tmp_path, simulator)
    plan = bank.add(a_plan(10, 2))
    with local_executor(1) as executor:
        fill(bank, plan, simulator, executor)
    assert verify(bank.path) == []
    whole = bank.read("field", bank.rows())

    flip(bank.shard_path(plan, 0), chunk_offset(bank.shard_path(plan, 0), 1))
    cut = bank.shard_path(plan, 1)
    os.truncate(cut, cut.stat().st_size // 2)
    bank.shard_path(plan, 2).write_bytes(b"")
    shutil.copy(bank.shard_path(plan, 4), bank.shard_path(plan, 3))

    with pytest.raises(InputError, match=r"00000\.h5: field cannot be read.*bank verify .* --repair"):
        bank.read("field", bank.read_rows(bank.shard_path(plan, 0)))
    with pytest.raises(InputError, match=r"00001\.h5: not a whole shard .*bank verify .* --repair"):
        bank.rows()

    problems = [str(p) for p in verify(bank.path)]
    assert [line.partition(":")[0] for line in problems] == [f"shards/01-abc-0000{i}.h5" for i in range(4)]
    assert "field cannot be read" in problems[0]
    assert "not a whole shard" in problems[1]
    assert "not a whole shard" in problems[2]
    assert "theta or seeds differ from the plan" in problems[3]
    assert bank.missing(plan) == [], "looking changes nothing"

    assert all(line.endswith("(set aside)") for line in map(str, verify(bank.path, repair=True)))
    assert bank.missing(plan) == [0, 1, 2, 3]
    assert len(list((tmp_path / "set-aside").iterdir())) == 4
    with local_executor(1) as executor:
        assert fill(bank, plan, simulator, executor) == {"ok": 8}
    assert verify(bank.path) == []
    np.testing.assert_array_equal(bank.read("field", bank.rows()), whole)


def test_shards_that_do_not_belong_here_are_found(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    other = Bank.create(tmp_path / "other", GaussianField(cells=8, pivot=0.5))
    write(other, other.add(plan), 0, GaussianField(cells=8, pivot=0.5))
    shutil.copy(other.shard_path(plan, 0), bank.shard_path(plan, 0))
    for name in ("01-abc-00009.h5", "01-abc-x.h5", "09-abc-00000.h5"):
        shutil.copy(bank.shard_path(plan, 1), bank.path / "shards" / name)
    problems = [str(p) for p in verify(bank.path)]
    assert problems[0].startswith("shards/01-abc-00000.h5: is of another simulator (fingerprint")
    assert "belongs to no round" in problems[1]
    assert "belongs to no round" in problems[2]
    assert problems[3] == "rounds/09-abc.h5: is missing, and 1 whole shard(s) are of this round"
    assert len(problems) == 4


@pytest.mark.job
def test_no_flipped_byte_changes_rows_unseen(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path, rows=2)
    path = bank.shard_path(plan, 0)
    whole, rows = path.read_bytes(), bank.rows()
    fields = bank.read("field", rows)
    found = 0
    for offset in np.linspace(0, len(whole) - 1, 300).astype(int):
        flip(path, offset)
        if verify(bank.path):
            found += 1
        else:
            now = bank.read_rows(path)
            for name in ("theta", "seed", "round", "seconds", "status", "message"):
                np.testing.assert_array_equal(getattr(now, name), getattr(rows, name), f"byte {offset}: {name}")
            np.testing.assert_array_equal(bank.read("field", now), fields)
        path.write_bytes(whole)
    assert found > 10


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    path = tmp_path / "rounds" / f"{plan.id}.h5"
    with h5py.File(path) as file:
        offset = file["theta"].id.get_chunk_info(0).byte_offset
    flip(path, offset + 3)
    with pytest.raises(InputError, match=r"rounds/01-abc\.h5: cannot be read as the plan of a round"):
        bank.rows()


@pytest.mark.job
def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    bank, _ = a_bank(tmp_path)
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, mine = int(process.stdout), temporary_name("x.h5")
    twin = mine.replace("~", "~0")  # a machine or container of the same name
    names = {
        mine.replace(f"-{os.getpid()}-", f"-{dead}-"): False,
        mine: True,
        mine.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"): True,
        twin.replace(f"-{os.getpid()}-", f"-{dead}-"): True,
        f".tmp-{socket.gethostname()}-{dead}-0123abcd-x.h5": True,
        f".tmp-elsewhere-{dead}-0123abcd-x.h5": True,
        f".tmp-elsewhere-{dead}-0123abcd-old.h5": False,
        ".tmp-mine": True,
    }
    for name in names:
        (bank.path / "shards" / name).write_text("")
    two_days_ago = time.time() - 2 * 86400
    os.utime(bank.path / "shards" / f".tmp-elsewhere-{dead}-0123abcd-old.h5", (two_days_ago, two_days_ago))
    Bank.create(tmp_path, GaussianField(cells=8))
    assert {name: (bank.path / "shards" / name).exists() for name in names} == names
    assert verify(bank.path) == []
    assert len(bank.rows()) == 5
