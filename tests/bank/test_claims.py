"""Claims: of those that are held at the same time, the first one counts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eorinfer.bank.claims import claim
from eorinfer.core.errors import WorkError
from eorinfer.core.files import remove_leftovers


def test_the_first_of_two_counts(tmp_path: Path) -> None:
    with claim(tmp_path / "claims", "01-0000") as first:
        (ours,) = (tmp_path / "claims").iterdir()
        os.utime(ours, ns=(1, 1))  # a file system's clock may not tell apart what is made at once
        with claim(tmp_path / "claims", "01-0000") as second, claim(tmp_path / "claims", "01-0001") as other:
            assert (first, second, other) == (True, False, True)
        with claim(tmp_path / "claims", "01-0000") as third:
            assert not third
    with claim(tmp_path / "claims", "01-0000") as after:
        assert after, "a claim ends with its block"
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_time_decides_and_not_the_name(tmp_path: Path) -> None:
    with claim(tmp_path, "shard"):
        (early,) = tmp_path.iterdir()
        os.utime(early, ns=(2**62, 2**62))
        with claim(tmp_path, "shard") as earlier:
            assert earlier, "the other claim is from the future"
        os.utime(early, ns=(0, 0))
        with claim(tmp_path, "shard") as later:
            assert not later


@pytest.mark.job
def test_the_dead_claim_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from eorinfer.bank.claims import claim\n"
        "with claim(Path(sys.argv[1]), 'shard') as first:\n"
        "    assert first\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 1
    with claim(tmp_path, "shard") as ours:
        assert ours


@pytest.mark.job
def test_a_container_of_the_same_name_keeps_its_claim(tmp_path: Path) -> None:
    """The dead process of above may be alive in a place whose processes cannot be seen."""
    with claim(tmp_path, "shard"):
        (mine,) = tmp_path.iterdir()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    twin = tmp_path / mine.name.replace("~", "~0").replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-")
    twin.touch()
    os.utime(twin, ns=(1, time.time_ns() - 10**9))
    with claim(tmp_path, "shard") as ours:
        assert not ours
    assert remove_leftovers(tmp_path) == 0
    os.utime(twin, ns=(1, 1))
    with claim(tmp_path, "shard") as ours:
        assert ours
    assert remove_leftovers(tmp_path) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="file/claims: cannot be written"), claim(tmp_path / "file" / "claims", "x"):
        pass
