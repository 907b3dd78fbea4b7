"""What the laws share: seeds, global random state, and a module that goes through a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def cubes(n: int, shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """Skewed, correlated cubes (n, *shape) float32."""
    white = torch.randn(n, *shape, generator=seeded(seed))
    return (0.5 * (white + white.roll(1, dims=-1))).exp()


@contextmanager
def random_state_untouched() -> Iterator[None]:
    """Fail if the block draws from the global random states of torch or numpy."""
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    yield
    assert torch.equal(torch.random.get_rng_state(), torch_state), "it draws from torch's global random state"
    assert np.random.get_state()[1].tobytes() == numpy_state, "it draws from numpy's"  # noqa: NPY002


def through_a_file(module: nn.Module, build: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """A module built anew with the weights of another, by way of a file."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "w.safetensors")
    torch.manual_seed(99)
    fresh = build()
    fresh.load_state_dict(load_file(folder / "w.safetensors"))
    return fresh.eval()
