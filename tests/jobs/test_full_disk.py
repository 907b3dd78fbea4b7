"""A disk that is full again and again in the course of a run: one line each time, and nothing is lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.test_stops import leftovers, mounted
from tests.kills import differences
from tests.runs import call, config, quick_emulator

#: Room that a disk has, as a share of what a whole run takes.
SHARES = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    with mounted(tmp_path / "disk", "size=16m") as folder:
        yield folder


@pytest.mark.job
def test_a_run_goes_on_from_every_full_disk(
    disk: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_emulator(monkeypatch)
    needed = sum(path.stat().st_blocks * 512 for path in whole.rglob("*"))
    command, ballast = ("run", config(tmp_path), "--out", disk / "run"), disk / "ballast"
    full = 0
    for share in SHARES:
        ballast.unlink(missing_ok=True)
        ballast.write_bytes(b"")
        used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(bytes(max(0, free - max(8192, int(share * needed) - used))))
        capsys.readouterr()
        code = call(*command)
        if code == 0:
            continue
        full += 1
        said = capsys.readouterr().err
        assert code == 1, said
        assert len(said.splitlines()) == 1, said
        # A look at the free disk, or the write that found none.
        assert "No space left on device" in said or "make room, or give [bank] path" in said, said
        assert leftovers(disk) == []
    assert full >= 4
    ballast.unlink()
    assert call(*command) == 0
    assert list(differences(whole, disk / "run")) == []
