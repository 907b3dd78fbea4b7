"""Tensors from NumPy arrays and from generators; the one module of `eorinfer.core` that loads torch."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensor(cubes: Tensor | NDArray[np.floating]) -> Tensor:
    """Read an array, of either byte order, as a tensor; leave a tensor as it is."""
    if isinstance(cubes, Tensor):
        return cubes
    array = np.asarray(cubes)
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def as_theta(theta: NDArray[np.float64]) -> Tensor:
    """Turn theta (n, P) into a float64 tensor."""
    return torch.as_tensor(np.ascontiguousarray(theta), dtype=torch.float64)


def white_noise(like: Tensor, generator: torch.Generator, shape: Sequence[int] | None = None) -> Tensor:
    """Draw standard normal numbers.

    They are drawn on the generator's own device: a CPU generator gives the same noise to a survey on CPU and to
    one on GPU.

    Parameters
    ----------
    like
        Sets the dtype and device of the result.
    generator
        Source of the numbers.
    shape
        Shape of the result; by default that of `like`.
    """
    size = like.shape if shape is None else tuple(shape)
    return torch.randn(size, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def normal_batch(shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Draw standard normal numbers (B, ...), from one generator or from one for each member of the batch."""
    if isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator, device=generator.device)
    return torch.stack([torch.randn(tuple(shape[1:]), generator=one, device=one.device) for one in generator])


def asinh(x: Tensor) -> Tensor:
    """Compute asinh(x) to rounding, for |x| below 1e18.

    On a processor `torch.asinh` takes four times as long. Where a gradient is wanted, which this has not at zero, and
    on other devices, it is used.
    """
    if x.requires_grad or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x.asinh()
    size = x.abs()
    return torch.log1p(size + size * (size / (1 + torch.sqrt(1 + size * size)))).copysign(x)


def to_symmetric(theta: Tensor, low: Tensor, high: Tensor, logarithmic: Sequence[int] = ()) -> Tensor:
    """Scale theta (..., P) so that the box [low, high] (P,) becomes [-1, 1].

    The box is one of `Prior.coordinates`: of the columns `logarithmic` theta's logarithm counts.
    """
    return 2 * (_replaced(theta, logarithmic, torch.log) - low) / (high - low) - 1


def from_symmetric(v: Tensor, low: Tensor, high: Tensor, logarithmic: Sequence[int] = ()) -> Tensor:
    """Undo `to_symmetric`: v (..., P) to theta (..., P)."""
    return _replaced(low + (high - low) * (v + 1) / 2, logarithmic, torch.exp)


def _replaced(values: Tensor, columns: Sequence[int], function: Callable[[Tensor], Tensor]) -> Tensor:
    """Values (..., P) with some columns replaced by a function of them."""
    if not columns:
        return values
    made = values.clone()
    made[..., list(columns)] = function(made[..., list(columns)])
    return made


def state_hash(first: bytes, state: Iterable[tuple[str, Tensor]]) -> str:
    """Hash bytes, then the names and values of a module's state in the given order."""
    digest = hashlib.sha256(first)
    for name, value in state:
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()
