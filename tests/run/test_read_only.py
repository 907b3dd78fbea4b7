"""A bank in a folder that cannot be written is used for what it has; a disk without room is told of beforehand."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Silent
from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import call, config

NOBODY = """
import os, sys
import eorinfer.cli.app, eorinfer.bank.verify, eorinfer.bank.facts, eorinfer.bank.export, eorinfer.run.run
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
eorinfer.cli.app.main(sys.argv[1:])
"""


def as_nobody(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-c", NOBODY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def freeze(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222 | 0o444 | (0o111 if path.is_dir() else 0))


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that anybody may enter: pytest's own ones are private."""
    folder = tmp_path_factory.mktemp("place")
    shared = Path(tempfile.gettempdir())
    for path in (folder, *folder.parents[: len(folder.relative_to(shared).parts) - 1]):
        path.chmod(path.stat().st_mode | 0o755)
    return folder


@pytest.mark.job
def test_a_bank_that_cannot_be_written_is_used(place: Path) -> None:
    file = config(place, bank={"path": "bank"})
    assert call("simulate", file, "--out", place / "first") == 0
    freeze(place / "bank")
    (place / "second").mkdir()
    (place / "second").chmod(0o777)
    rc, said = as_nobody("simulate", file, "--out", place / "second/run")
    assert rc == 0, said
    for command in ("info", "verify"):
        rc, said = as_nobody("bank", command, place / "bank")
        assert rc == 0, said
    rc, said = as_nobody("bank", "export", place / "bank", place / "second/export.h5")
    assert rc == 0, said
    rc, said = as_nobody("bank", "retry", place / "bank", "--all")
    assert rc == 0, said
    more = config(place, "more.toml", bank={"path": "bank"}, inference={"rounds": [400]})
    rc, said = as_nobody("simulate", more, "--out", place / "second/more")
    assert rc == 1
    assert "cannot be written (Permission denied)" in said
    assert "Traceback" not in said


def test_a_disk_without_room_is_told_of_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(load_config(config(tmp_path)), tmp_path / "run", Silent())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10_000))
    with pytest.raises(WorkError, match=r"of disk, and .*bank has 1 MB left; make room, or give \[bank\] path"):
        run.preflight()
    assert os.listdir(tmp_path / "run/bank/shards") == []
