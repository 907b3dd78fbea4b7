"""Parts of the page, as far as they can be made."""

from collections.abc import Iterable
from typing import TypeVar

from eorinfer.core.errors import InputError
from eorinfer.report.run_folder import RunFolder

T = TypeVar("T")
#: Title of a contest's section.
SCORES = "Scores of the methods"


def shown(run: RunFolder, what: str, parts: Iterable[T]) -> list[T]:
    """List parts up to the one that cannot be made; that goes to the problems of the folder.

    Raises
    ------
    InputError
        If the file of a contest is at fault, which somebody wrote by hand.
    """
    listed: list[T] = []
    try:
        for part in parts:
            listed.append(part)
    except Exception as error:  # of a file that is not what a step writes, matplotlib and getdist raise anything
        if isinstance(error, InputError) and run.contest is not None and what == SCORES:
            raise
        words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        run.problems.append(f"{what}: cannot be shown whole ({(words.strip().splitlines() or [''])[-1].strip()[:300]})")
    return listed
