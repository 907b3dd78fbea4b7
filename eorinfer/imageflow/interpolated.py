"""The likelihood of one image by a diffusion, cheap to evaluate: what its network adds is interpolated in y.

ln p under the Gaussian field is exact at every y. What the network adds is smooth in y: a polynomial is fitted to its
values at few points; first over the whole range of conditions, then over the part where the posterior may be.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import qmc
from torch import Tensor

from eorinfer.core.arrays import as_theta
from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import BANDS, LEVELS, DiffusionFlow

#: Version of the interpolation: a chain on an earlier one is not continued.
VERSION = 3
#: Degree of the polynomial for each number of conditions, and points over its coefficients.
DEGREES, SURPLUS = {1: 6, 2: 4, 3: 3, 4: 3}, 1.5
#: Rms difference of polynomial and points in the last box, in nats, above which it is made again with a degree higher
#: by two; and by four.
ROUGH, ROUGHER = 0.5, 3.0
#: Boxes after the whole range, at most, and share of a box's volume above which a smaller one is not worth it.
BOXES, SMALLER = 4, 0.5
#: Trial points in a box, and nats below the largest ln p at which a point has no part in the posterior.
TRIALS, DEPTH = 4096, 20.0
#: Levels of noise in all boxes but the last.
FEW = 8
#: Share of a box's sides by which it reaches beyond the trial points inside it.
MARGIN = 0.05
#: Points that pass the flow at once, of all their levels.
BATCH = 512

Array = NDArray[np.float64]


class Box:
    """A polynomial in a box of conditions.

    Parameters
    ----------
    low, high
        (P,) sides.
    points, values
        (n, P) points of the fit, and (n, levels) what the network adds there at each level, in nats.
    log_p
        (n,) ln p(x | y) there, up to a constant.
    powers
        (K, P) degrees of the polynomial's terms.
    counts
        (levels,) what each level counts for in ln p.

    Attributes
    ----------
    peak
        Largest ln p of the points.
    residual
        Rms difference of the polynomial and the points where ln p is large, in nats.
    """

    def __init__(
        self,
        low: Array,
        high: Array,
        points: Array,
        values: Array,
        log_p: Array,
        powers: NDArray[np.int64],
        counts: Array,
    ) -> None:
        self.low, self.high, self.peak, self._powers = low, high, float(log_p.max()), powers
        self._points, self._log_p = points, log_p
        # Thousands of nats below the peak an error matters less: the polynomial is for where ln p is large.
        weight = 1 / (1 + (log_p.max() - log_p) / DEPTH)
        design = self._design(points)
        self._coefficients = np.linalg.lstsq(design * weight[:, None], values * weight[:, None], rcond=None)[0]
        off = weight * ((values - design @ self._coefficients) @ counts)
        free = max(1.0, np.square(weight).sum() * (1 - len(powers) / len(points)))
        self.residual = float(np.sqrt(np.square(off).sum() / free))

    def __call__(self, y: Array) -> Array:
        """Evaluate the polynomial of each level at y (n, P): (n, levels)."""
        return np.asarray(self._design(np.clip(y, self.low, self.high)) @ self._coefficients)

    def bands(self, y: Array) -> Array:
        """Sum the levels of each band at y (n, P): (n, `BANDS`)."""
        return np.asarray(self(y).reshape(len(y), BANDS, -1).sum(2))

    def best(self) -> Array:
        """Give the point of the largest ln p, and its 2 P nearest: a smaller box must not leave them out."""
        apart = (self._points - self._points[self._log_p.argmax()]) / (self.high - self.low)
        return np.asarray(self._points[np.square(apart).sum(1).argsort()[: 2 * self._points.shape[1] + 1]])

    def contains(self, y: Array) -> NDArray[np.bool_]:
        """Tell which y (n, P) are inside."""
        return np.asarray(((y >= self.low) & (y <= self.high)).all(1))

    def _design(self, y: Array) -> Array:
        v = 2 * (y - self.low) / (self.high - self.low) - 1
        one = np.cos(np.arange(self._powers.max() + 1)[:, None, None] * np.arccos(np.clip(v, -1, 1)))
        return np.asarray(np.prod([one[p, :, i] for i, p in enumerate(self._powers.T)], axis=0).T)


class InterpolatedLikelihood:
    """Ln p(x | y) of one image x (1, C, *cells), as a function of y (n, P).

    Parameters
    ----------
    flow, image, conditions
        Diffusion, image, and range of the conditions.
    weights
        (1 + `BANDS`,) what each term of ln p counts for; by default one.
    depth
        Nats below the largest ln p beyond which the last box need not reach.

    Attributes
    ----------
    evaluations
        Number of y at which the network was evaluated.
    error
        Rms error of ln p(y) - ln p(y') in nats, with y and y' one standard deviation of the posterior apart, from what
        levels of noise differ by from the line through their neighbours. It is an upper limit where levels are few.
    residual
        Rms error of the interpolation in nats, each term by its weight.
    """

    def __init__(
        self,
        flow: DiffusionFlow,
        image: Tensor,
        conditions: Prior,
        weights: Array | None = None,
        depth: float = DEPTH,
    ) -> None:
        self._flow, self._image = flow, image
        self._weights = np.ones(1 + BANDS) if weights is None else weights
        self.evaluations = 0
        self._middle = as_theta((np.array(conditions.low) + np.array(conditions.high))[None] / 2)
        low, high = np.array(conditions.low, np.float64), np.array(conditions.high, np.float64)
        self._boxes = [self._fit(low, high, FEW)]
        for last in [*[False] * BOXES, True]:
            before = self._boxes[-1]
            trial, log_p = self._trials()
            # Between its points a polynomial may be far too high: it must not hide where the points say ln p is.
            peak = min(log_p.max(), before.peak + depth / 2)
            side = before.high - before.low
            inside = np.concatenate([trial[log_p > peak - depth - 2 * before.residual], before.best()])
            low = np.maximum(inside.min(0) - MARGIN * side, before.low)
            high = np.minimum(inside.max(0) + MARGIN * side, before.high)
            last = last or bool(np.prod((high - low) / side) > SMALLER)
            self._boxes.append(self._fit(low, high, LEVELS if last else FEW))
            if last:
                break
        if (rough := self._boxes[-1].residual) > ROUGH:
            self._boxes[-1] = self._fit(low, high, LEVELS, 2 if rough < ROUGHER else 4)
        self.residual = self._boxes[-1].residual
        self.error = self._error()

    def __call__(self, y: Array) -> Array:
        """Ln p(x | y) in nats, each term by its weight: (n,)."""
        return np.asarray(self.terms(y) @ self._weights)

    def terms(self, y: Array) -> Array:
        """Compute the terms of ln p(x | y) in nats, as `DiffusionFlow.log_prob_scales`: (n, 1 + `BANDS`)."""
        bands = self._boxes[0].bands(y)
        for box in self._boxes[1:]:
            inside = box.contains(y)
            if inside.any():
                bands[inside] = box.bands(y[inside])
        return np.concatenate([self._gauss(y)[:, None], bands], axis=1)

    def points(self, n: int) -> tuple[Array, float]:
        """Spread n points (n, P) evenly over the last box, and return the log of the volume that each stands for."""
        box = self._boxes[-1]
        side = box.high - box.low
        return box.low + side * qmc.Sobol(len(side), seed=1).random(n), float(np.log(side).sum() - np.log(n))

    def _fit(self, low: Array, high: Array, levels: int, more: int = 0) -> Box:
        """Evaluate the network at points of a box, and fit a polynomial whose degree is higher by `more`."""
        p = len(low)
        degree = DEGREES.get(p, 2) + more
        powers = np.array([n for n in np.ndindex(*(degree + 1,) * p) if sum(n) <= degree])
        n = math.ceil(SURPLUS * len(powers)) + 1
        if p == 1:
            v = np.cos(np.pi * (np.arange(n) + 0.5) / n)[:, None]
        else:
            # Near the sides polynomials are known least: more points there, as Chebyshev's are.
            v = np.cos(np.pi * qmc.Halton(p, seed=0).random(n))
        points = low + (high - low) * (v + 1) / 2
        added = self._added(points, levels)
        bands = added.reshape(n, BANDS, -1).sum(2)
        log_p = self._gauss(points) * self._weights[0] + bands @ self._weights[1:]
        return Box(low, high, points, added, log_p, powers, self._counts(levels))

    def _counts(self, levels: int) -> Array:
        """Give each level the weight of its band: (levels,)."""
        return np.repeat(self._weights[1:], levels // BANDS)

    def _trials(self) -> tuple[Array, Array]:
        """Draw points over the last box, and compute ln p there."""
        box, (trial, _) = self._boxes[-1], self.points(TRIALS)
        return trial, self._gauss(trial) * self._weights[0] + box.bands(trial) @ self._weights[1:]

    def _error(self) -> float:
        """Compute `error`, the root of its mean square over the conditions."""
        trial, log_p = self._trials()
        weight = np.exp(log_p - logsumexp(log_p))
        mean = weight @ trial
        std = np.sqrt(weight @ (trial - mean) ** 2)
        box, squares = self._boxes[-1], []
        for i, s in enumerate(std):
            apart = np.zeros(len(mean))
            apart[i] = s / 2
            added = self._counts(LEVELS) * box(np.stack([mean + apart, mean - apart]))
            difference = added[0] - added[1]
            # Independent errors of three levels add up to six times their square.
            squares.append(np.square(np.diff(difference, 2)).mean() * len(difference) / 6)
        return float(np.sqrt(np.mean(squares)))

    def _gauss(self, y: Array) -> Array:
        """Compute ln p (n,) under the Gaussian field."""
        with torch.no_grad():
            parts = [self._flow.log_prob_gauss(self._image, part) for part in as_theta(y).split(BATCH)]
        return torch.cat(parts).numpy()

    def _added(self, y: Array, levels: int) -> Array:
        """Compute what the network adds to it at each level of noise: (n, levels)."""
        self.evaluations += len(y)
        with torch.no_grad():
            parts = [
                self._flow.log_prob_levels(self._images(part), part, levels)[1] for part in as_theta(y).split(BATCH)
            ]
            added = torch.cat(parts).double().numpy()
            if levels < LEVELS:  # a wide box: what the network adds there varies more with y than the noise does
                return added
            known = self._flow.excess_levels(as_theta(y), levels) - self._flow.excess_levels(self._middle, levels)
        return less_noise(added, known.numpy())

    def _images(self, y: Tensor) -> Tensor:
        return self._image.expand(len(y), *self._image.shape[1:])


def less_noise(added: Array, known: Array) -> Array:
    """Take the part out of `added` (n, levels) that goes with a `known` error of the same shape: a control variate.

    Its coefficient is that of a regression of what is rough over the levels and differs between the n points.
    """
    rough, known_rough = (np.diff(part - part.mean(0), 2) for part in (added, known))
    return np.asarray(added - known * (known_rough * rough).sum() / max(np.square(known_rough).sum(), 1e-30))
