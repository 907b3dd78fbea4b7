"""Choose the precision of a training."""

from pathlib import Path

import torch

from eorinfer.settings.separation import SeparationSettings

#: Flags of processors that multiply matrices of bfloat16, as Linux names them.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def precision(settings: SeparationSettings) -> str:
    """Return Lightning's name of the precision; bfloat16 by default where it is quick."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        native = torch.cuda.get_device_capability()[0] >= 8
    else:
        native = bool(BF16_FLAGS & _processor_flags())
    return "bf16-mixed" if native else "32-true"


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, flags in lines if key.strip() in ("flags", "Features") for flag in flags.split()}
