"""Child processes in which simulators run; a simulation that kills its process costs one row.

`Child` is this end of the pipes; `eorinfer.campaign.child` is the program at the other end.
"""

import atexit
import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.again import timeout_message, with_memory_limit
from eorinfer.campaign.child import RowResult, one_line
from eorinfer.core.files import scratch_folder

#: Time limit in seconds for the start of a child: importing 21cmFAST is slow on a busy machine.
START_SECONDS = 300.0
#: Bytes of an answer without its arrays, at most: others wrote what says more.
MOST_ANSWER = 1 << 20


class ChildStartError(Exception):
    """The simulator could not be built in its process."""


class StoppedError(Exception):
    """The children are being ended; the row in progress is lost."""


class _ForeignAnswerError(Exception):
    """A reply that does not belong to the request."""


class Child:
    """A running simulator process.

    Parameters
    ----------
    settings
        The ``[simulator]`` table.
    beside
        Folder in which a user's module is looked for first.
    memory
        Memory limit of the process in bytes; None for no limit.
    fingerprint
        Fingerprint that the simulator must have in the child; None for any.

    Raises
    ------
    ChildStartError
        If the simulator cannot be built; the message is the child's own.
    StoppedError
        If this process is ending.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        beside: str | None,
        memory: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.rows = 0
        self._memory_gb = None if memory is None else memory / 1e9
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            # 21cmFAST imports matplotlib, whose font cache would go into the home folder.
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR") or str(scratch_folder()),
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eorinfer.campaign.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        with _lock:
            _running.add(self)
        if _stopping.is_set():
            # `stop_all` may have listed the children just before this one joined them.
            self.kill()
            raise StoppedError
        answer = self._start({"simulator": settings, "beside": beside, "memory": memory, "fingerprint": fingerprint})
        self._observables = [(name, tuple(shape)) for name, shape in answer["observables"]]

    @property
    def alive(self) -> bool:
        """Whether the child can take another row."""
        return self._process.poll() is None

    def row(
        self,
        theta: NDArray[np.float64],
        seed: int,
        seconds: float | None,
        view: int = 0,
        world: int | None = None,
    ) -> RowResult:
        """Simulate one row; never raises for what the simulator does.

        Parameters
        ----------
        theta
            Parameters (P,).
        seed
            Seed, below 2**32.
        seconds
            Time limit in seconds; None for no limit.
        view
            Number of the view, for a simulator that makes several of one run.
        world
            Number of the world, for a simulator that has several; by default the one that the seed draws.
        """
        self.rows += 1
        start = time.monotonic()
        deadline = None if seconds is None else start + seconds
        try:
            # What something else wrote into the pipe, or another row's answer, has no such word.
            word = secrets.token_hex(8)
            which = {"view": view} | ({} if world is None else {"world": int(world)})
            self._send({"theta": [float(v).hex() for v in theta], "seed": int(seed), "word": word} | which)
            answer = self._answer(deadline)
            if answer is not None and answer.get("word") != word:
                raise _ForeignAnswerError
            arrays = self._arrays(deadline) if answer and answer["status"] == "ok" else {}
        except TimeoutError:
            self.kill()
            return RowResult("timeout", timeout_message(seconds or 0.0), time.monotonic() - start)
        except _ForeignAnswerError:
            self.kill()
            message = "something else than the simulator's process answered, or it wrote into the pipe of its answers"
            return RowResult("killed", message, time.monotonic() - start)
        except (EOFError, BrokenPipeError):
            answer = None
        if answer is None:
            message = with_memory_limit(self._obituary("while simulating"), self._memory_gb)
            self.kill()
            return RowResult("killed", message, time.monotonic() - start)
        message = answer["message"]
        if answer["status"] == "failed" and message.startswith("MemoryError"):
            message = with_memory_limit(message, self._memory_gb)
        return RowResult(answer["status"], message, answer["seconds"], arrays)

    def interrupt(self) -> None:
        """Send SIGKILL to the process and all that it started; `kill` cleans up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process at once; a second call does nothing."""
        with _lock:
            if self not in _running:
                return
            _running.discard(self)
        self.interrupt()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]

    def _start(self, content: dict[str, Any]) -> dict[str, Any]:
        """Send the settings of the simulator, and return the child's answer."""
        try:
            self._send(content)
            answer = self._answer(time.monotonic() + START_SECONDS)
        except TimeoutError:
            answer = {"error": f"no sign of life within {START_SECONDS:g} s"}
        except (BrokenPipeError, _ForeignAnswerError):
            answer = None
        if answer is None and stopping():
            self.kill()
            raise StoppedError
        if answer is None or "error" in answer:
            error = answer["error"] if answer else self._obituary("while starting")
            self.kill()
            raise ChildStartError(error)
        return answer

    def _send(self, content: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, deadline: float | None) -> dict[str, Any] | None:
        try:
            size = int.from_bytes(self._read(4, deadline), "little")
            if size > MOST_ANSWER:
                raise _ForeignAnswerError
            return dict(json.loads(self._read(size, deadline)))
        except (ValueError, TypeError) as error:
            raise _ForeignAnswerError from error
        except EOFError:
            return None

    def _arrays(self, deadline: float | None) -> dict[str, NDArray[np.float32]]:
        arrays = {}
        for name, shape in self._observables:
            data = self._read(4 * int(np.prod(shape)), deadline)
            arrays[name] = np.frombuffer(data, np.float32).reshape(shape)
        return arrays

    def _read(self, size: int, deadline: float | None) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        pieces = []
        while size:
            # In slices: `poll` takes no more than 2**31 ms, and a process that the
            # simulator forked may keep the pipe open after the child's own death.
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            dead = self._process.poll() is not None
            if not poll.poll(left * 1000):
                if dead:
                    raise EOFError
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError
                continue
            piece = os.read(descriptor, min(size, 1 << 20))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _obituary(self, when: str) -> str:
        # Let it finish dying, so that the signal is known.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        if code is not None and code < 0:
            cause = f"died {when}: {_signal_name(-code)}"
        else:
            cause = f"ended {when} with exit code {code}"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{cause}; last words: {one_line(lines[-1])[:300]}" if lines else cause


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_running: set[Child] = set()
_lock = threading.Lock()
_stopping = threading.Event()
_local = threading.local()


def child_of_this_thread(
    settings: dict[str, Any],
    beside: str | None,
    memory: int | None = None,
    fingerprint: str | None = None,
    *,
    recycle: int,
) -> Child:
    """Return the child of this thread, restarted if dead, after `recycle` rows, or for another simulator."""
    key = json.dumps([settings, beside, memory, fingerprint], sort_keys=True)
    child: Child | None = getattr(_local, "child", None)
    if child is not None and (not child.alive or child.rows >= recycle or _local.key != key):
        child.kill()
        child = None
    if child is None:
        child = Child(settings, beside, memory, fingerprint)
        _local.child, _local.key = child, key
    return child


def stopping() -> bool:
    """Whether this process is ending its children: what they answer now counts for nothing."""
    return _stopping.is_set()


def stop_all() -> None:
    """Signal every child and let no other start; the threads that drive them notice and end."""
    _stopping.set()
    with _lock:
        children = list(_running)
    for child in children:
        child.interrupt()


def end_all() -> None:
    """End every child, once no thread drives one any more; new ones may start again."""
    _kill_all()
    _stopping.clear()


def _kill_all() -> None:
    with _lock:
        children = list(_running)
    for child in children:
        child.kill()


def _end_with_this_process() -> None:
    # For children of an executor that is not `campaign.local_executor`. A thread that still waits for a row
    # must not take its death for the simulator's own, and record it.
    stop_all()
    _kill_all()


atexit.register(_end_with_this_process)
