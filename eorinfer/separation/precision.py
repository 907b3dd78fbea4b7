"""Choose the precision of a training."""

import torch

from eorinfer.networks.bfloat16 import has_bfloat16
from eorinfer.settings.separation import SeparationSettings


def precision(settings: SeparationSettings) -> str:
    """Return Lightning's name of the precision; bfloat16 by default where it is quick."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if has_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "32-true"
