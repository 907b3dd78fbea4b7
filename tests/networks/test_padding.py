"""Padding, against numpy's."""

import numpy as np
import pytest
import torch

from eorinfer.networks.padding import pad


@pytest.mark.parametrize(
    ("cells", "periodic"),
    [
        ((5, 6), (True, True)),
        ((5, 6), (True, False)),
        ((5, 6), (False, True)),
        ((5, 6), (False, False)),
        ((4, 5, 6), (True, True, False)),
        ((4, 5, 6), (False, False, True)),
        ((2, 3), (False, False)),
    ],
)
def test_periodic_axes_wrap_and_open_axes_are_mirrored(cells: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
    x = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(1))
    expected = x.numpy()
    for axis, wrap in enumerate(periodic, start=2):
        width = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
        expected = np.pad(expected, width, mode="wrap" if wrap else "reflect")
    assert np.array_equal(pad(x, periodic).numpy(), expected)


def test_an_axis_of_one_cell_is_repeated() -> None:
    x = torch.randn(1, 1, 1, 4)
    assert torch.equal(pad(x, (False, False))[..., 1:-1], x.expand(1, 1, 3, 4))
