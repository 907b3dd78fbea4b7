"""Repairs: plans, descriptions and shards that are damaged, and nothing whole is lost by them."""

import os
from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign.fill import fill, local_executor
from eorinfer.core.errors import InputError
from simulators import GaussianField
from tests.banks import a_bank, a_plan
from tests.runs import call, config


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


def files(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def test_a_damaged_plan_is_made_again_from_its_shards(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    rows, shards = bank.rows(), files(tmp_path / "shards")
    path = tmp_path / "rounds/01-abc.h5"
    damage(path)
    with pytest.raises(InputError, match=r"rounds/01-abc\.h5: cannot be read .*bank verify .* --repair"):
        bank.rows()
    before = files(tmp_path)
    lines = [str(p) for p in verify(tmp_path)]
    assert files(tmp_path) == before, "looking changes nothing"
    assert lines[0].startswith("rounds/01-abc.h5: cannot be read as the plan of a round")
    assert lines[1] == "rounds/01-abc.h5: is missing, and its 3 shard(s) say what it was"
    lines = [str(p) for p in verify(tmp_path, repair=True)]
    assert lines[0].endswith("(set aside)")
    assert lines[1].endswith("(made again)")
    again = bank.plan("01-abc")
    assert (again.number, again.proposal, again.shard_rows) == (plan.number, plan.proposal, plan.shard_rows)
    assert again.theta.tobytes() == plan.theta.tobytes()
    assert again.seed.tobytes() == plan.seed.tobytes()
    assert files(tmp_path / "shards") == shards
    np.testing.assert_array_equal(bank.read("field", bank.rows()), bank.read("field", rows))
    assert verify(tmp_path) == []


@pytest.mark.job
def test_shards_of_a_lost_plan_wait_for_it(tmp_path: Path) -> None:
    """One shard lacks: the plan cannot be made from the others, and the run that made it plans it again."""
    bank, plan = a_bank(tmp_path)
    bank.shard_path(plan, 1).unlink()
    (tmp_path / "rounds/01-abc.h5").unlink()
    shards = files(tmp_path / "shards")
    assert [str(p) for p in verify(tmp_path)] == [
        "rounds/01-abc.h5: is missing, and 2 whole shard(s) are of this round"
    ]
    (kept,) = verify(tmp_path, repair=True)
    assert kept.text.endswith("(kept: a run that plans the round again uses them)")
    assert files(tmp_path / "shards") == shards
    simulator = GaussianField(cells=8)
    with local_executor(1) as executor:
        assert fill(bank, bank.add(a_plan(5, 2)), simulator, executor) == {"ok": 2}
    assert verify(tmp_path) == []


@pytest.mark.parametrize("what", ["rounds", "shards", "bank.json", "everything"])
@pytest.mark.job
def test_a_run_goes_on_after_a_repair(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config(tmp_path), tmp_path / "run"
    assert call("simulate", path, "--out", out) == 0
    bank = Bank.open(out / "bank")
    rows = bank.rows()
    fields = bank.read("field", rows)
    if what in ("rounds", "everything"):
        damage(next((out / "bank/rounds").glob("*.h5")))
    if what in ("shards", "everything"):
        damage(next((out / "bank/shards").glob("*.h5")))
    if what in ("bank.json", "everything"):
        (out / "bank/bank.json").write_text('{"format": 2, "fingerp')
    assert call("bank", "verify", out / "bank") == 1
    assert "--repair sets them aside" in capsys.readouterr().err
    for _ in range(2):  # a bank without its description cannot be looked through
        assert call("bank", "verify", out / "bank", "--repair") == 0
        assert call("simulate", path, "--out", out) in ((0, 2) if what == "everything" else (0,))
    assert call("simulate", path, "--out", out) == 0
    again = Bank.open(out / "bank")
    assert again.rows().theta.tobytes() == rows.theta.tobytes()
    assert again.read("field", again.rows()).tobytes() == fields.tobytes()
    assert call("bank", "verify", out / "bank") == 0


@pytest.mark.job
def test_a_lost_description_does_not_let_another_simulator_in(tmp_path: Path) -> None:
    a_bank(tmp_path)
    (tmp_path / "bank.json").unlink()
    with pytest.raises(InputError, match=r"bank.json is missing, and 01-abc-00000.h5 is of another simulator"):
        Bank.create(tmp_path, GaussianField(cells=8, pivot=0.5))
    assert Bank.create(tmp_path, GaussianField(cells=8)).rows().counts() == {"ok": 4, "failed": 1}


def test_a_description_of_another_version_is_no_damage(tmp_path: Path) -> None:
    a_bank(tmp_path)
    (tmp_path / "bank.json").write_text('{"format": 7}')
    with pytest.raises(InputError, match=r"format 7, this version reads format 2"):
        verify(tmp_path, repair=True)
    with pytest.raises(InputError, match="no bank here"):
        verify(tmp_path / "shards")


def test_arrays_are_checked_again_however_often_they_were_read(tmp_path: Path) -> None:
    bank, plan = a_bank(tmp_path)
    rows = bank.rows()
    bank.read("field", rows)
    path = bank.shard_path(plan, 2)
    times = path.stat()
    content = path.read_bytes().replace(bank.read("field", rows)[-1].tobytes()[:16], bytes(16))
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    bank.read("field", rows)  # trusted: it was whole when it was first read
    with pytest.raises(InputError, match=r"01-abc-00002\.h5: field cannot be read \(row 0 has another checksum"):
        bank.read("field", rows, check=True)
    assert [p.name for p in verify(tmp_path)] == ["shards/01-abc-00002.h5"]
