"""Program of the process in which a simulator runs; a simulation that kills the process costs one row.

``python -m eorinfer.campaign.child`` builds the simulator that the first line of its standard input names. Then it
answers each request for a row with one line of JSON and the raw bytes of the arrays. `eorinfer.campaign.children` is
the other end of these pipes.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import simulators
from eorinfer.core.numbers import UnusableError, usable
from simulators import Observable, SimulationError, Simulator
from simulators.registry import earlier_fingerprints


@dataclass(frozen=True)
class RowResult:
    """Outcome of one row; `arrays` is empty unless the status is ``ok``."""

    status: str
    message: str = ""
    seconds: float = 0.0
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def main() -> None:
    """Answer rows until standard input ends."""
    # What the simulator reads or starts must not take requests for its own input.
    lines = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_follow_parent, args=(lines.fileno(),), daemon=True).start()
    with contextlib.suppress(OSError):
        # A machine that runs out of memory ends this process first, not the campaign or another program.
        Path("/proc/self/oom_score_adj").write_text("1000")
    for signum in (signal.SIGINT, signal.SIGTERM):
        # A batch system signals every process of a job. This one ignores it and ends with its parent, since else
        # the row would be recorded as killed. Programs that it starts inherit SIG_IGN, but no handler.
        signal.signal(signum, lambda *_: None)
    # The simulator may print: its standard output is sent to standard error.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    start = json.loads(lines.readline())
    if start["beside"]:
        sys.path.append(start["beside"])  # for what a user's functions import when they are called
    try:
        simulator = simulators.build(start["simulator"], Path(start["beside"]) if start["beside"] else None)
        if hasattr(simulator, "check_available"):
            simulator.check_available()
        _refuse_other(simulator, start["fingerprint"])
    except Exception as error:
        cause = "" if isinstance(error, SimulationError | ValueError) else f"{type(error).__name__}: "
        _reply(answers, {"error": cause + one_line(error)})
        return
    if start["memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (start["memory"], start["memory"]))
    _reply(answers, {"observables": [(o.name, o.shape) for o in simulator.observables]})
    process = os.getpid()
    for line in lines:
        request = json.loads(line)
        theta = np.array([float.fromhex(v) for v in request["theta"]])
        result = run_row(simulator, theta, request["seed"], request["view"], request.get("world"))
        if os.getpid() != process:
            os._exit(1)  # a fork that the simulator left behind must not answer in the place of its parent
        told = {"status": result.status, "message": result.message, "seconds": result.seconds}
        _reply(answers, told | {"word": request["word"]})
        for array in result.arrays.values():
            answers.write(array.tobytes())
        answers.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            os.ftruncate(2, 0)  # only the output of the last row is of interest
            os.lseek(2, 0, os.SEEK_SET)


def run_row(
    simulator: Simulator, theta: NDArray[np.float64], seed: int, view: int = 0, world: int | None = None
) -> RowResult:
    """Simulate one row in this process and check its arrays."""
    start = time.monotonic()
    # A simulator without views or worlds need not know the words.
    which = ({"view": view} if view else {}) | ({} if world is None else {"world": world})
    try:
        made = simulator.simulate(theta, seed, **which)
        arrays = {o.name: _checked(o, made) for o in simulator.observables}
    except SimulationError as error:
        return RowResult("failed", one_line(error), time.monotonic() - start)
    except UnusableError as error:
        return RowResult("invalid", one_line(error), time.monotonic() - start)
    except MemoryError:
        return RowResult("failed", "MemoryError: out of memory", time.monotonic() - start)
    except Exception as error:
        return RowResult("failed", f"{type(error).__name__}: {one_line(error)}", time.monotonic() - start)
    return RowResult("ok", "", time.monotonic() - start, arrays)


def _follow_parent(pipe: int) -> None:
    """End this process with its parent, however that died and whatever the simulator is doing."""
    poll = select.poll()
    poll.register(pipe, 0)
    poll.poll()  # without events: returns when the other end of the pipe is closed
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _refuse_other(simulator: Simulator, wanted: str | None) -> None:
    ours = simulators.fingerprint(simulator)
    if wanted not in (None, ours, *earlier_fingerprints(simulator)):
        raise SimulationError(
            f"its fingerprint here is {ours} and the bank's is {wanted}: "
            "its source, a module beside it or a version differs from when the bank was opened"
        )


def _checked(observable: Observable, made: dict[str, Any]) -> NDArray[np.float32]:
    if observable.name not in made:
        raise SimulationError(f"{observable.name} is missing from the result, which has {sorted(made)}")
    array = np.ascontiguousarray(usable(made[observable.name], observable.name, observable.unit), dtype=np.float32)
    if array.shape != observable.shape:
        raise SimulationError(f"{observable.name} has shape {array.shape}, declared {observable.shape}")
    return array


def _reply(answers: BinaryIO, content: dict[str, Any]) -> None:
    data = json.dumps(content).encode()
    answers.write(len(data).to_bytes(4, "little") + data)
    answers.flush()


def one_line(error: BaseException | str) -> str:
    # Text that HDF5 can hold: no NUL and no half of a surrogate pair.
    text = str(error).replace("\0", " ").encode(errors="replace").decode()
    return " ".join(text.split())[:500]


if __name__ == "__main__":
    main()
