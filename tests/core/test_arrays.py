"""Functions of tensors."""

import torch

from eorinfer.core.arrays import asinh


def test_asinh_is_exact_to_rounding_and_has_a_gradient_at_zero() -> None:
    x = torch.logspace(-30, 17, 2000)
    x = torch.cat([-x, torch.zeros(1), x])
    torch.testing.assert_close(asinh(x).double(), x.double().asinh(), rtol=3e-7, atol=0)
    torch.testing.assert_close(asinh(x.double()), x.double().asinh(), rtol=1e-15, atol=0)
    zero = torch.zeros(1, requires_grad=True)
    asinh(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.item() == 1
