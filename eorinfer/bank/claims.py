"""Claims on shards in the making: a hint for campaigns that fill one bank at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eorinfer.core.files import cannot_write, is_leftover, temporary_name


@contextmanager
def claim(folder: Path, name: str) -> Iterator[bool]:
    """Claim `name` for as long as the block takes.

    A claim is a hint and not a lock: a campaign that ignores it does work twice, and the first whole shard wins.
    It is an empty temporary file, so a dead process's claim is removed like any other leftover.

    Yields
    ------
    bool
        Whether no live process, as far as this machine can tell, had claimed it before.

    Raises
    ------
    WorkError
        If the folder cannot be written.
    """
    mine = folder / temporary_name(name)
    try:
        folder.mkdir(exist_ok=True)
        mine.touch()
    except OSError as error:
        # Better now than after the shard was made.
        raise cannot_write(folder, error) from error
    try:
        others = [path for path in folder.glob(f".tmp-*-{name}") if path != mine and not is_leftover(path)]
        yield not any(_made_before(other, mine) for other in others)
    finally:
        mine.unlink(missing_ok=True)


def _made_before(other: Path, mine: Path) -> bool:
    try:
        a, b = ((path.stat().st_mtime_ns, path.name) for path in (other, mine))
    except FileNotFoundError:
        return False
    return a < b
