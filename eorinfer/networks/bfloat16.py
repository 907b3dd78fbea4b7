"""Whether a device has units for bfloat16; without them it takes longer than single precision."""

from functools import lru_cache
from pathlib import Path

import torch

#: Flags of processors that multiply matrices of bfloat16, as Linux names them.
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
#: First compute capability of NVIDIA's accelerators with such units.
CAPABILITY = 8


@lru_cache
def has_bfloat16(device: str) -> bool:
    """Tell whether devices of this type (``"cpu"``, ``"cuda"``) multiply matrices of bfloat16 quickly."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= CAPABILITY
    return device == "cpu" and not FLAGS.isdisjoint(_processor_flags())


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, flags in lines if key.strip() in ("flags", "Features") for flag in flags.split()}
