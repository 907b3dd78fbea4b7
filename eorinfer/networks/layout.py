"""Memory layout of convolutions."""

import torch
from torch import nn


def to_channels_last(module: nn.Module, dimension: int) -> torch.memory_format:
    """Lay out a module's kernels so that convolutions need no reordering; return the layout."""
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[dimension]
    for parameter in module.parameters():
        if parameter.ndim == dimension + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return layout
