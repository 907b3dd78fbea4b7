"""A run: one config, one folder, and the steps from simulations to a corner plot, each resumable.

Reading a config loads no torch, so `Run` is imported at first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eorinfer.run.run import Run

__all__ = ["Run"]


def __getattr__(name: str) -> Any:
    if name != "Run":
        raise AttributeError(f"module 'eorinfer.run' has no attribute {name!r}")
    from eorinfer.run.run import Run

    return Run
