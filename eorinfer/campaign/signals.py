"""Ctrl-C and SIGTERM where an exception between any two instructions would do harm."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold the first signal back until the function that is yielded is called, or the block ends.

    An interrupted `Executor.submit` leaves a thread that nobody joins, an interrupted `concurrent.futures.wait`
    a lock that nobody releases. A second signal is not held back: whoever sends it thinks that the first was not heard.

    Yields
    ------
    Callable
        Passes a signal that came on to the earlier handler.
    """
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        if len(came) > 1:
            handlers[signum](signum, frame)

    def let_through() -> None:
        if came:
            signum = came[0]
            handlers[signum](signum, None)

    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # neither the default nor ignored
                handlers[number] = handler
                signal.signal(number, note)
    try:
        yield let_through
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    let_through()


def ask_again_when_lost() -> None:
    """Repeat a Ctrl-C that came while a destructor or a weak reference's callback ran: Python only prints those.

    The repetition is a SIGTERM, which, unlike SIGINT, a shell's background job does not ignore: it needs a handler.
    """
    before = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            before(lost)

    sys.unraisablehook = hook
