"""Sizes that a bundle declares, held against the weights that it holds: absurd ones are refused by name."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from simulators import Observable

#: Settings of networks that say how many values some layer has.
SIZES = frozenset(
    {
        *("width", "widest", "depth", "features", "bins", "transforms", "hidden", "convolutions", "k_knots", "knots"),
        *("components", "ensemble", "num_transforms", "num_bins", "num_components", "num_blocks"),
        *("hidden_features", "degree"),
    }
)
#: Values and tensors that a network may have in any case, and times that it may have of what the file holds.
VALUES, TENSORS, TIMES = 10**6, 1000, 4
#: Copies of a cube that reading and using a bundle takes, at least.
COPIES = 8


def check_observable(observable: Observable) -> Observable:
    """Return the observable, if its cubes are consistent and fit into this machine's memory.

    Raises
    ------
    ValueError
        Saying what is wrong with it.
    """
    shape, axes = observable.shape, observable.axes
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"its cubes have the shape {shape}")
    if not len(shape) == len(axes) == len(observable.cell_size) + 1 or len(observable.channels) != shape[0]:
        raise ValueError(f"its cubes have the shape {shape}, and axes, cells or channels of another")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (size := 4 * math.prod(shape)) * COPIES > memory:
        raise ValueError(f"its cubes have {size / 1e9:.3g} GB; this machine has {memory / 1e9:.3g} GB of memory")
    return observable


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Iterator[None]:
    """Build a network for these weights; one that is far larger is given up before its layers take memory.

    Parameters
    ----------
    weights
        All that the file holds.
    settings
        Tables that the network is built from, by name.

    Raises
    ------
    ValueError
        If a size in `settings`, or the network that is being built, is far beyond the weights.
    """
    values = max(VALUES, TIMES * sum(tensor.numel() for tensor in weights.values()))
    tensors = TENSORS + TIMES * len(weights)
    for key, sizes in _sizes(settings):
        # Between two layers there is a weight for each pair.
        largest = max([*sizes, *(a * b for a, b in pairwise(sizes))], default=0)
        if largest > values or len(sizes) > tensors:
            raise ValueError(f"{key} is far larger than the weights that are there")
    built = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not isinstance(parameter, nn.parameter.UninitializedParameter):
            built[0] += parameter.numel()
            built[1] += 1
        if built[0] > values or built[1] > tensors:
            raise ValueError("its settings make a network that is far larger than the weights that are there")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _sizes(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """Give the key of each size, and its numbers."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _sizes(value, f"{prefix}{key}.")
        elif key in SIZES:
            numbers = list(value) if isinstance(value, list | tuple) else [value]
            yield f"{prefix}{key}", [n for n in numbers if isinstance(n, int)]
