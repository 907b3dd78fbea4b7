"""Copies without what is beyond the power spectrum: which statistics they keep, and which they lose."""

import pytest
import torch
from torch import Tensor

from eorinfer.summaries.surrogates import gaussian_copies, phase_randomised, shells


def bubbles(cells: tuple[int, ...], channels: int = 1, n: int = 24) -> Tensor:
    """Skewed images: exponentials of smooth Gaussian noise, of two channels that go together."""
    generator = torch.Generator().manual_seed(1)
    white = torch.randn(n, channels, *cells, generator=generator)
    white = white + white[:, :1]
    axes = tuple(range(2, white.ndim))
    frequency = [torch.fft.fftfreq(c) for c in cells[:-1]] + [torch.fft.rfftfreq(cells[-1])]
    k2 = sum(f.square() for f in torch.meshgrid(*frequency, indexing="ij"))
    smooth = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * torch.exp(-40 * k2), s=cells, dim=axes)
    return torch.exp(2 * smooth / smooth.std())


def skewness(x: Tensor) -> float:
    """Mean over images and channels."""
    axes = tuple(range(2, x.ndim))
    delta = x - x.mean(axes, keepdim=True)
    return float((delta.pow(3).mean(axes) / delta.square().mean(axes) ** 1.5).mean())


@pytest.mark.parametrize("cells", [(32, 32), (15, 32), (8, 9, 11)])
def test_phases_alone_change(cells: tuple[int, ...]) -> None:
    x = bubbles(cells, channels=2)
    made = phase_randomised(x, torch.Generator().manual_seed(2))
    axes = tuple(range(2, x.ndim))
    a, b = torch.fft.rfftn(x, dim=axes), torch.fft.rfftn(made, dim=axes)
    torch.testing.assert_close(b.abs(), a.abs(), rtol=1e-3, atol=1e-4 * float(a.abs().max()))
    cross = (a[:, 0] * a[:, 1].conj()), (b[:, 0] * b[:, 1].conj())
    torch.testing.assert_close(cross[1], cross[0], rtol=1e-2, atol=1e-4 * float(cross[0].abs().max()))
    torch.testing.assert_close(made.mean(axes), x.mean(axes))
    # Two images share no phase: their mean product falls as one over the number of modes.
    turn = (b / a)[:, 0].flatten(1)[:, 1:]
    turn = turn / turn.abs()
    assert abs(turn.mean()) < 4 / turn.numel() ** 0.5 * 2
    assert skewness(made) < 0.5 * skewness(x)


def test_gaussian_copies_have_the_spectra_and_no_skewness() -> None:
    x = bubbles((32, 32), channels=2, n=200)
    made = gaussian_copies(x, shells((32, 32), (1.0, 1.0)), torch.Generator().manual_seed(3))
    torch.testing.assert_close(made.mean((2, 3)), x.mean((2, 3)))
    shell = shells((32, 32), (1.0, 1.0)).flatten()

    def power(fields: Tensor) -> Tensor:
        modes = torch.fft.rfftn(fields, dim=(2, 3)).flatten(2).abs().square()
        return torch.zeros(len(fields), 2, int(shell.max()) + 1).index_add_(2, shell, modes)

    # Of each image by itself, the error of 200 exponentials; the zero mode is kept.
    ratio = (power(made) / power(x)).mean(0)
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=4 / 200**0.5, rtol=0)
    torch.testing.assert_close(ratio[:, 0], torch.ones(2), rtol=1e-4, atol=0)
    delta = [fields - fields.mean((2, 3), keepdim=True) for fields in (x, made)]
    theirs, ours = ((d[:, 0] * d[:, 1]).mean((1, 2)) / d.square().mean((1, 2, 3)) for d in delta)
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=0.04)
    assert float(theirs.mean()) > 0.1
    assert skewness(x) > 1.5
    assert abs(skewness(made)) < 0.15
    # Each mode is drawn anew: its power scatters as that of a Gaussian field, where turned phases keep it.
    again = gaussian_copies(x, shells((32, 32), (1.0, 1.0)), torch.Generator().manual_seed(4))
    a, b = (torch.fft.rfftn(m)[:, 0, 3, 5].abs().square() for m in (made, again))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.9


def test_shells() -> None:
    shell = shells((8, 8), (2.0, 2.0))
    assert shell.shape == (8, 5)
    assert shell[0, 0] == 0
    assert (shell.flatten()[1:] >= 1).all()
    assert shell[1, 0] == shell[0, 1] == shell[7, 0] == 1
    assert sorted(set(shell.flatten().tolist())) == list(range(int(shell.max()) + 1))
