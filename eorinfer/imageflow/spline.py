"""A monotone rational-quadratic spline shared by all values of a row, for every cell of a map.

Durkan et al. 2019 (arXiv 1906.04032), equations 4 to 8, with straight tails that continue the slope of the end
knots. In each interval, with t the distance from its left knot,

    y = y_j + (d_j t + a t^2) / (1 + p t - q t^2),    dy/dx = (d_j + 2 a t + c t^2) / (1 + p t - q t^2)^2,

with c = a p + d_j q, and the tails are the intervals with a = p = q = 0. These numbers belong to intervals, not
to cells: they are computed once a row and looked up, and gradients are gathered by interval, which makes it quick.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

#: Largest logarithm of a width, height or slope over that of the identity.
LIMIT = 4.0
#: Number of values processed together: a dozen such arrays fit a processor's cache.
PART = 2**16


@dataclass(frozen=True)
class Spline:
    """One spline for each of R rows.

    Attributes
    ----------
    x, y
        (R, K) positions and values of the knots, rising.
    table
        (6, R, K + 1) coefficients x_j, y_j, d_j, a, p, q of the intervals, the tails first and last.
    """

    x: Tensor
    y: Tensor
    table: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor, bound: float) -> "Spline":
        """Build splines from unbounded parameters; zeros give the identity.

        Parameters
        ----------
        parameters
            (R, 3 K): first knot and logarithms of the K - 1 widths, the same for the values, K logarithms of slopes.
        bound
            The identity's knots are equally spaced in [-bound, bound].
        """
        k = parameters.shape[-1] // 3
        step = 2 * bound / (k - 1)
        x_first, widths, y_first, heights, slopes = parameters.split([1, k - 1, 1, k - 1, k], dim=-1)
        dx, dy, d = step * _positive(widths), step * _positive(heights), _positive(slopes)
        x = torch.cat([x_first, x_first + dx.cumsum(-1)], dim=-1) - bound
        y = torch.cat([y_first, y_first + dy.cumsum(-1)], dim=-1) - bound
        s = dy / dx
        p = (d[:, :-1] + d[:, 1:] - 2 * s) / (s * dx)
        a, q = (s - d[:, :-1]) / dx, p / dx
        inner = torch.stack([x[:, :-1], y[:, :-1], d[:, :-1], a, p, q])
        zero = torch.zeros_like(d[:, :1])
        tails = [torch.stack([x[:, i], y[:, i], d[:, i], *(zero,) * 3]) for i in (slice(0, 1), slice(-1, None))]
        return cls(x, y, torch.cat([tails[0], inner, tails[1]], dim=-1))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Map values (R, N), and return the logarithm of the slope summed over each row, (R,) float64."""
        out: tuple[Tensor, Tensor] = _Forward.apply(values, self.x.detach(), self.table)
        return out

    @torch.no_grad()
    def inverse(self, values: Tensor) -> Tensor:
        """Undo `forward` for values (R, N), without gradients, which sampling does not need."""
        out = torch.empty_like(values)
        for block in _blocks(values):
            x_j, y_j, d, a, p, q = _look_up(self.table[:, block[0]], _intervals(values[block], self.y[block[0]]))
            u = values[block] - y_j
            linear = torch.addcmul(d, u, p, value=-1)
            root = torch.addcmul(linear.square(), u, torch.addcmul(a, u, q), value=4).clamp_min_(0).sqrt_()
            # The root that stays finite in the tails, where the square term is zero.
            torch.addcdiv(x_j, u, linear.add_(root), value=2, out=out[block])
        return out


def _positive(logarithm: Tensor) -> Tensor:
    return torch.exp(LIMIT * torch.tanh(logarithm / LIMIT))


def _intervals(values: Tensor, knots: Tensor) -> Tensor:
    """Count the knots (R, K) below each value (R, N): 0 in the left tail, K in the right one; (R, N) int64."""
    # For these few knots, counting is three times faster than a search.
    below = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
    for knot in knots.unbind(-1):
        below += (values > knot[:, None]).view(torch.uint8)
    return below.long()


def _look_up(table: Tensor, interval: Tensor) -> tuple[Tensor, ...]:
    """Look up the coefficients (R, N) of the intervals (R, N)."""
    return tuple(row.gather(1, interval) for row in table)


def _numerator(t: Tensor, d: Tensor, a: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Compute the slope times the denominator squared: d + 2 a t + c t^2."""
    c = torch.addcmul(a * p, d, q)
    return c.mul_(t).add_(a, alpha=2).mul_(t).add_(d)


def _blocks(values: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the blocks of values (R, N) that are processed together."""
    rows, columns = values.shape
    if values.device.type != "cpu":
        yield slice(0, rows), slice(0, columns)
        return
    width = min(columns, PART)
    height = max(1, PART // width)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, top + height), slice(left, left + width)


class _Forward(torch.autograd.Function):
    """Spline with derivatives of its own: autograd would keep a dozen arrays of the maps' size."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, knots: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(values)
        log_slope = values.new_zeros(len(values), dtype=torch.float64)
        intervals = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
        for block in _blocks(values):
            interval = _intervals(values[block], knots[block[0]])
            x_j, y_j, d, a, p, q = _look_up(table[:, block[0]], interval)
            t = torch.sub(values[block], x_j, out=x_j)
            above = _numerator(t, d, a, p, q)
            below = torch.addcmul(p, q, t, value=-1, out=q).mul_(t).add_(1)
            torch.addcdiv(y_j, torch.addcmul(d, a, t, out=a).mul_(t), below, out=out[block])
            log_slope[block[0]] += above.div_(below.square_()).log_().sum(-1, dtype=torch.float64)
            intervals[block] = interval
        ctx.save_for_backward(values, intervals, table)
        return out, log_slope

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        values, intervals, table = ctx.saved_tensors
        by_values, by_table = torch.empty_like(values), torch.zeros_like(table)
        g_log = gradients[1].to(values)[:, None]
        for block in _blocks(values):
            interval = intervals[block].long()
            partials = _partials(
                values[block], _look_up(table[:, block[0]], interval), gradients[0][block], g_log[block[0]]
            )
            for row, partial in zip(by_table[:, block[0]], partials, strict=True):
                row.scatter_add_(1, interval, partial)
            by_values[block] = partials[0].neg_()
        return by_values, None, by_table


def _partials(values: Tensor, coefficients: tuple[Tensor, ...], g: Tensor, g_log: Tensor) -> tuple[Tensor, ...]:
    """Compute the derivatives of the loss by each coefficient (R, N) from those by y (R, N) and log slope (R, 1)."""
    x_j, _, d, a, p, q = coefficients
    t = values - x_j
    inverse = 1 / (1 + t * (p - q * t))
    c = torch.addcmul(a * p, d, q)
    above = _numerator(t, d, a, p, q)
    along = g * t * inverse
    by_above = g_log / above
    by_below = -inverse * (along * (d + a * t) + 2 * g_log)
    by_t = g * above * inverse.square() + 2 * by_above * (a + c * t) - 2 * g_log * inverse * (p - 2 * q * t)
    by_p = by_below * t
    by_c = by_above * t * t
    by_d, by_a = along + by_above + by_c * q, t * (along + 2 * by_above) + by_c * p
    return -by_t, g, by_d, by_a, by_p + by_c * a, by_c * d - by_p * t
