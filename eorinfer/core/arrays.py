"""Arrays of NumPy as tensors; the one module of `eorinfer.core` that loads torch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_theta(theta: NDArray[np.float64]) -> Tensor:
    """Turn theta (n, P) into a float64 tensor."""
    return torch.as_tensor(np.ascontiguousarray(theta), dtype=torch.float64)
