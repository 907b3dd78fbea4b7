"""Progress of long work: bars on a terminal, plain lines elsewhere."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

#: Called with the steps done since the last call and a short note.
Advance = Callable[[int, str], None]


class Progress(Protocol):
    """A receiver of lines and bars from long work."""

    def line(self, text: str) -> None:
        """Show one line."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Show a bar of `total` steps for as long as the context lasts."""


class Silent:
    """Progress that shows nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Show nothing."""
        yield lambda n, note: None


class Lines:
    """Progress in printed lines: one at each tenth of a bar, at most one in ten seconds."""

    def line(self, text: str) -> None:
        """Print the line."""
        print(text, flush=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Print the number of steps done."""
        done, tenth, last = 0, 0, time.monotonic()

        def advance(n: int, note: str = "") -> None:
            nonlocal done, tenth, last
            done += n
            now = time.monotonic()
            if done >= total or (10 * done // total > tenth and now - last > 10):
                tenth, last = 10 * done // total, now
                self.line(f"{title}: {done} of {total}{f', {note}' if note else ''}")

        yield advance


class Bars:
    """Progress in rich's bars, with the time left."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def line(self, text: str) -> None:
        """Print the line above the bar."""
        self._console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Draw a bar of `total` steps."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(title, total=total, note="")
            yield lambda n, note: bars.update(task, advance=n, note=note)


def for_terminal() -> Progress:
    """Return bars if standard output is a terminal, else lines."""
    return Bars() if sys.stdout.isatty() else Lines()


def for_python() -> Progress:
    """Return what a call from Python shows: bars or lines where somebody looks on, nothing in a program."""
    if _in_notebook():
        # Without ipywidgets rich draws no bars in a notebook, and warns.
        return Bars() if importlib.util.find_spec("ipywidgets") else Lines()
    return for_terminal() if sys.stdout.isatty() or hasattr(sys, "ps1") else Silent()


def _in_notebook() -> bool:
    """Tell whether this code runs in a cell: IPython counts only where it is the shell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def duration(seconds: float) -> str:
    """Return a time as text, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
