"""Build the summaries of cubes that a config names."""

from importlib import import_module
from pathlib import Path

from torch import nn

from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import SUMMARIES
from eorinfer.summaries.function import FunctionSummary
from simulators import Observable
from simulators.parts import is_own, load_part


def build_summary(
    name: str, observable: Observable, bins: PowerSpectrumSettings, beside: Path | None = None
) -> nn.Module:
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
    if is_own(name):
        value = load_part(name, beside).value
        return value(observable) if isinstance(value, type) else FunctionSummary(value)
    module, _, function = SUMMARIES[name].partition(":")
    made: nn.Module = getattr(import_module(module), function)(observable, bins)
    return made
