"""Files that ``[simulator]`` tables name: their paths start at the config's folder, and make no other simulator."""

from collections.abc import Callable, Mapping
from typing import Any

from simulators.base import Simulator
from simulators.worlds import Worlds


def files_of(simulator: Simulator) -> dict[str, tuple[str, ...]]:
    """Give the keys of a simulator's table that name files, each with the names there that are no paths."""
    if isinstance(simulator, Worlds):
        return {key: names for world in simulator.simulators for key, names in files_of(world).items()}
    return dict(getattr(type(simulator), "files", {}))


def with_files(
    table: Mapping[str, Any], files: Mapping[str, tuple[str, ...]], function: Callable[[str], str]
) -> dict[str, Any]:
    """Apply a function to the paths in a ``[simulator]`` table and its worlds, of keys as `files_of` gives them."""

    def applied(value: Any, names: tuple[str, ...]) -> Any:
        if isinstance(value, str):
            return value if value in names else function(value)
        if isinstance(value, Mapping):
            return {key: applied(one, names) for key, one in value.items()}
        return [applied(one, names) for one in value] if isinstance(value, list | tuple) else value

    changed = {key: applied(value, files[key]) if key in files else value for key, value in table.items()}
    if isinstance(worlds := changed.get("worlds"), list | tuple):
        changed["worlds"] = [with_files(one, files, function) if isinstance(one, Mapping) else one for one in worlds]
    return changed
