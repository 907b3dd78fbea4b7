"""One worker at a time; one that died blocks nobody."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eorinfer.core.errors import WorkError
from eorinfer.core.sole import sole_worker

HOLDS = """
import signal, sys, time
from pathlib import Path
from eorinfer.core.sole import sole_worker
# A shell starts background jobs deaf to it, and so would be what these start.
signal.signal(signal.SIGINT, signal.default_int_handler)
with sole_worker(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(600)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.job
def test_the_second_is_told_of_the_first_and_a_dead_one_blocks_nobody(tmp_path: Path, number: int) -> None:
    first = holder(tmp_path / "posterior")
    said = rf"posterior: another command is at work here \(process {first.pid} on .* since 20.*: -c .*/posterior\)"
    with pytest.raises(WorkError, match=said), sole_worker(tmp_path / "posterior"):
        pass
    with sole_worker(tmp_path / "emulator"):
        pass
    first.send_signal(number)
    first.wait()
    with sole_worker(tmp_path / "posterior"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_worker(tmp_path / "a"):
        raise ZeroDivisionError
    with sole_worker(tmp_path / "a"):
        pass


def test_who_is_at_work_may_enter_again_and_another_thread_not(tmp_path: Path) -> None:
    with sole_worker(tmp_path / "a"):
        with sole_worker(tmp_path / "a"):
            pass
        assert (tmp_path / ".at-work-a").exists(), "the inner one has left, the outer one is at work"
        with ThreadPoolExecutor(1) as threads, pytest.raises(WorkError, match="another command is at work here"):
            threads.submit(sole_worker(tmp_path / "a").__enter__).result()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with sole_worker(tmp_path / "a"), sole_worker(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []
