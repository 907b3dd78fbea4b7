"""Statistics of cubes, batched on torch. Importing this package loads no torch."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import SUMMARIES
from simulators.parts import is_own, load_part

if TYPE_CHECKING:
    from torch import nn

    from simulators import Observable

__all__ = ["build_summary"]


def build_summary(
    name: str, observable: "Observable", bins: PowerSpectrumSettings, beside: Path | None = None
) -> "nn.Module":
    """Build a summary statistic of cubes.

    Parameters
    ----------
    name
        One of `SUMMARIES`, or a user's ``"module:name"``: an `nn.Module` class made by ``Class(observable)``, or a
        function of cubes.
    observable
        The cubes.
    bins
        ``[power_spectrum]``, for summaries that have bins of k.
    beside
        Folder of a user's module.

    Returns
    -------
    nn.Module
        (B, C, *cells) to (B, ...). Where its attribute ``positive`` is true, all its values are at least zero, and
        networks see their logarithm.
    """
    made: nn.Module
    if is_own(name):
        from eorinfer.summaries.function import FunctionSummary

        value = load_part(name, beside).value
        made = value(observable) if isinstance(value, type) else FunctionSummary(value)
    else:
        module, _, function = SUMMARIES[name].partition(":")
        made = getattr(import_module(module), function)(observable, bins)
    return made
