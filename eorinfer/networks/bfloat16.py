"""Whether a device has units for bfloat16, without which it takes longer, and where its arithmetic is not to be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

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


@contextmanager
def whole_gradients(x: Tensor) -> Iterator[Tensor]:
    """Give maps (B, C, *cells) to a convolution that pads them itself, in single precision where that is needed.

    In bfloat16 oneDNN leaves a part of the kernel's gradient as the memory was, where a kernel of three cells meets two
    along the first of three axes (torch 2.13, processors with avx512_bf16): the gradient is huge, or no number.
    """
    if x.ndim < 5 or x.shape[2] > 2:
        yield x
        return
    with torch.autocast(x.device.type, enabled=False):
        yield x.float() if x.dtype == torch.bfloat16 else x


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, flags in lines if key.strip() in ("flags", "Features") for flag in flags.split()}
