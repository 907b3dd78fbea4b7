"""A continuous-time flow of maps by denoising diffusion, which starts as the Gaussian field.

The observed map is x = s + n with white noise n of the telescope. That is the diffusion of s itself at the noise level
sigma = 1, in units of n: exact zeros of ionised cells need no dequantisation, and one denoiser serves all levels from
1 up. The denoiser (Karras et al. 2022, arXiv 2206.00364) is the Wiener filter of the mean m(y) and the power P(k, y),
plus its rms error times a U-Net:

    D(x; sigma, y) = m + F^-1 [Q / (Q + sigma^2)] F (x - m) + e(sigma, y) U(x; sigma, y).

Q is P(k, y), corrected by what the map's own power says (`MapPower`). An untrained denoiser has Q = P and U = 0. Then
samples and density are exactly those of the Gaussian field.

Samples: Heun's method on the probability-flow equation for the whitened field v = (P + sigma^2)^-1/2 F (x - m), which
stands still where the field is Gaussian: dv / d ln sigma = -(P + sigma^2)^-1/2 F (D - x_G).

Density: by the pointwise relation of information and mean squared error (Kong et al. 2023, arXiv 2302.03792),
with the Gaussian field in place of their Gaussian distribution,

    ln p(x | y) = ln p_G(x | y) + int d ln tau  tau^-2  E_n [|x - x_G|^2 - |x - x_D|^2],

where x_G and x_D estimate x from x + tau n by the Wiener filter of P and by D. The noise n is the same for all x and y,
and comes with its negative. What its draws say of E |x - x_G|^2 is off by a known amount, see `excess_levels`.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from eorinfer.imageflow.denoising_network import DenoisingNetwork
from eorinfer.imageflow.density import ImageDensity, log_normal
from eorinfer.imageflow.gaussian_part import GaussianPart
from eorinfer.imageflow.isotropic_convolution import Modes
from eorinfer.imageflow.map_power import MapPower
from eorinfer.imageflow.whitening import Whitening

#: Steps of Heun's method.
STEPS = 18
#: Levels tau of the integral, each in an interval of its own with noise and its negative; and terms of ln p beyond the
#: Gaussian one, which are the integral over as many bands of tau.
LEVELS, BANDS = 24, 4
#: Steps of the fit of the map's own power, maps and cells of each at most, and the largest rate of its optimiser.
FIT_STEPS, FIT_BATCH, FIT_CELLS, FIT_RATE = 500, 256, 2**18, 5e-3
#: Number of modes above the noise with which a map counts for half in training; see `DiffusionFlow.worth`.
HALF = 40.0
#: Least tau, and largest sigma over the root of the largest power, above which the network is not asked.
LEAST, MOST = 0.1, 2.0


class DiffusionFlow(ImageDensity):
    """Density p(x | y) of maps x = s + n (B, C, *cells), n white.

    Parameters
    ----------
    shape
        (C, *cells) of the maps, in two or three dimensions, which are taken to be periodic.
    cell_size
        Comoving Mpc along each cell axis.
    low, high
        (P,) range of each condition, which is scaled to [-1, 1].
    width
        Channels of the U-Net's first level.
    k_knots, hidden
        Knots of the power along k, and hidden layers of the small network from the condition to them.
    line_of_sight
        Whether the last axis differs from the others.
    whitening
        Makes the noise of maps white where it is not. ln p is then that of the modes it keeps, in units of their noise.

    Attributes
    ----------
    noise
        Buffer: standard deviation of n in the unit of x.
    largest
        Buffer: largest noise level of the diffusion, in units of n.
    """

    noise: Tensor
    largest: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        cell_size: tuple[float, ...],
        low: Tensor,
        high: Tensor,
        *,
        width: int = 32,
        k_knots: int = 12,
        hidden: tuple[int, ...] = (64, 64),
        line_of_sight: bool = False,
        whitening: Whitening | None = None,
    ) -> None:
        super().__init__(shape, low, high)
        self.whitening = whitening
        self._box = [n * size for n, size in zip(shape[1:], cell_size, strict=True)]
        self._build: dict[str, Any] = {
            "width": width,
            "k_knots": k_knots,
            "hidden": hidden,
            "line_of_sight": line_of_sight,
        }
        self.keep(shape[1:])
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("largest", torch.ones(()))

    def keep(self, cells: tuple[int, ...], *, own_power: bool = True) -> None:
        """Build Gaussian part and network for a grid of so many cells, of the modes that the whitening is to keep.

        Flows of the first version did without the power of the map (`own_power`).
        """
        build, channels, p = self._build, self.shape[0], len(self.low)
        if self.whitening is not None:
            self.whitening.keep(cells)
        size = tuple(side / n for side, n in zip(self._box, cells, strict=True))
        modes = Modes.from_grid(cells, size, build["k_knots"], build["line_of_sight"])
        self.gauss = GaussianPart(channels, cells, modes, p, build["hidden"]).requires_grad_(False)
        self.map_power = MapPower(channels, modes.basis, self.gauss.count, p) if own_power else None
        known = self.map_power.size if self.map_power is not None else 0
        self.network = DenoisingNetwork(2 * channels, channels, cells, p, build["width"], known)
        self.inner = (channels, *cells)
        if self.whitening is not None:
            self.gauss.template.copy_(self.whitening.template)
            self.gauss.partial = True

    @property
    def terms(self) -> tuple[str, ...]:
        """Name the terms of `log_prob_scales`."""
        edges = torch.exp(self._log_edges(BANDS)).tolist()
        bands = [f"ln p at {a:.2g} to {b:.2g} times the noise" for a, b in itertools.pairwise(edges)]
        return ("Gaussian ln p", *bands)

    def set_noise(self, sigma: float) -> None:
        """Take maps to have white noise of standard deviation `sigma` in their unit."""
        self.noise.fill_(sigma)

    @torch.no_grad()
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Start as the Gaussian field of maps x (n, C, *cells) without noise, of conditions y (n, P)."""
        u = self.unit(y, x.dtype)
        self.gauss.fit(self._signal(x), u)
        power = torch.stack([self.gauss(part)[1].amax() for part in u.split(64)]).amax()
        self.largest.copy_((MOST * (1 + power).sqrt()).clamp_min(4.0))

    @torch.enable_grad()
    def fit_map_power(self, s: Tensor, y: Tensor) -> None:
        """Fit what the map's own power says to maps s (n, C, *cells) without noise, of conditions y (n, P).

        It is the loss of `losses` without a U-Net, mode by mode, so that a step costs next to nothing.
        """
        assert self.map_power is not None
        parameters, generator = list(self.map_power.parameters()), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(parameters, FIT_RATE)
        n = min(FIT_BATCH, max(16, FIT_CELLS // math.prod(self.inner)))
        signal, u = self.gauss.fourier(self._signal(s)), self.unit(y, s.dtype)
        for step in range(FIT_STEPS):
            optimizer.param_groups[0]["lr"] = FIT_RATE * 0.5 * (1 + math.cos(math.pi * step / FIT_STEPS))
            some = torch.randint(len(s), (n,), generator=generator)
            part = (torch.arange(n) + torch.rand(n, generator=generator)) / n
            sigma = self._wide(torch.exp(part * self.largest.log()))
            mean, power = self.gauss(u[some])
            about_mean = signal[some] - self.gauss.fourier(mean.expand(-1, *self.inner))
            seen = about_mean + sigma * self.gauss.fourier(torch.randn(n, *self.inner, generator=generator))
            change = self.map_power(seen / (power + sigma**2).sqrt(), sigma.flatten().log(), u[some])[1]
            own = power * change.exp()
            off = (own / (own + sigma**2) * seen - about_mean).abs().square()
            of_wiener = power * sigma**2 / (power + sigma**2)
            errors = (self.gauss.count * torch.stack([off, of_wiener])).flatten(2).sum(2)
            relative = errors[0] / errors[1]
            loss = (relative if self.whitening is None else self.worth(power, sigma) * relative).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

    def losses(self, s: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the error of the denoiser over that of the Wiener filter, times `worth` with a whitening: (B,).

        It is one on average where the network says nothing.

        Parameters
        ----------
        s
            (B, C, *cells) maps without noise.
        y
            (B, P) conditions.
        generator
            Source of noise and levels; the levels are spread evenly over the batch.
        """
        s = self._signal(s)
        device = generator.device
        where = torch.arange(len(s), device=device) + torch.rand(len(s), generator=generator, device=device)
        part = where[torch.randperm(len(s), generator=generator, device=device)].to(s) / len(s)
        sigma = self._wide(torch.exp(part * self.largest.log()))
        noise = torch.randn(s.shape, generator=generator, device=device).to(s)
        u = self.unit(y, s.dtype)
        estimate, more, error = self._denoise(s + sigma * noise, sigma, u)
        off = (more - (s - estimate) / error).square().flatten(1).mean(1)
        return off if self.whitening is None else self.worth(self.gauss(u)[1], sigma) * off

    def worth(self, power: Tensor, sigma: Tensor) -> Tensor:
        """Compute what maps of this power (B, C, *half plane) at noise levels (B, 1, ...) count in training: (B,).

        The fewer modes are above the noise, the more the error over the Wiener filter's scatters, and the less it says
        of ln p. Through a telescope most levels have few. It is one on average.
        """
        modes = (self.gauss.count * power / (power + sigma**2)).flatten(1).sum(1)
        share = modes / (modes + HALF)
        return share / share.mean()

    def log_prob_levels(self, x: Tensor, y: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
        """Compute ln p (B,) under the Gaussian field, and what each level of tau adds to it (B, levels), in nats."""
        x, u = self._data(x), self.unit(y, x.dtype)
        twice = x.repeat(2, *(1,) * (x.ndim - 1))
        edges, added = self._log_edges(levels), []
        for i in range(levels):
            tau, noise = self._level(i, edges, x)
            noise = tau * torch.stack([noise, -noise]).repeat_interleave(len(x), 0)
            seen, sigma = twice + noise, torch.sqrt(1 + tau**2)
            estimate, more, error = self._denoise(seen, self._wide(sigma.expand(len(seen))), u.repeat(2, 1))
            # x is estimated by what is seen and by the estimate of s, of which the first has noise in common with x.
            rest = tau**2 / sigma**2
            off = twice - rest * estimate - (1 - rest) * seen
            change = rest * error * more
            gain = (2 * off * change - change.square()).flatten(1).sum(1, dtype=torch.float64) / tau.double() ** 2
            added.append(gain.view(2, -1).mean(0) * (edges[i + 1] - edges[i]))
        return self._log_prob_gauss(x, u), torch.stack(added, dim=1)

    def excess_levels(self, y: Tensor, levels: int = LEVELS) -> Tensor:
        """Compute by how much the noise of each level makes E |x - x_G|^2 too large, as a part of ln p: (B, levels).

        It is sum_k h_k^2 (|n_k|^2 - 1), with h x + (1 - h) m the filter of x_G, for whatever x. On average it is zero.
        """
        mean, power = self.gauss(self.unit(y, torch.float32))
        edges, found = self._log_edges(levels), []
        for i in range(levels):
            tau, noise = self._level(i, edges, mean)
            rest = tau**2 / (1 + tau**2)
            kept = 1 - rest + rest * power / (power + 1 + tau**2)
            excess = self.gauss.count * (self.gauss.fourier(noise[None]).abs().square() - 1)
            found.append((excess * kept.square()).flatten(1).sum(1, dtype=torch.float64) * (edges[i + 1] - edges[i]))
        return torch.stack(found, dim=1)

    def _level(self, i: int, edges: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Draw tau of a level, somewhere in its interval, and its noise (`inner`): the same for all maps and y."""
        generator = torch.Generator().manual_seed(i)
        part = torch.rand((), generator=generator).to(like)
        noise = torch.randn(self.inner, generator=generator, dtype=torch.float32).to(like)
        return torch.exp(edges[i] + part * (edges[i + 1] - edges[i])).to(like), noise

    def log_prob_gauss(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p (B,) float64 in nats under the Gaussian field."""
        return self._log_prob_gauss(self._data(x), self.unit(y, x.dtype))

    def _log_prob_gauss(self, x: Tensor, u: Tensor) -> Tensor:
        return self.gauss.log_prob(x, u) - math.prod(self.inner) * self.noise.double().log()

    def _data(self, x: Tensor) -> Tensor:
        """Give observed maps (B, C, *cells) white noise of unit variance: (B, `inner`)."""
        x = x / self.noise
        return x if self.whitening is None else self.whitening.data(x)

    def _signal(self, s: Tensor) -> Tensor:
        """Turn maps without noise as `_data` turns observed ones."""
        s = s / self.noise
        return s if self.whitening is None else self.whitening.signal(s)

    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p under the Gaussian field and what bands of tau add to it, in nats: (B, 1 + `BANDS`) float64."""
        gauss, added = self.log_prob_levels(x, y)
        return torch.cat([gauss[:, None], added.view(len(x), BANDS, -1).sum(-1)], dim=1)

    @torch.no_grad()
    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn white noise z (B, C, *cells) into maps of conditions y (B, P)."""
        white = z if self.whitening is None else self.whitening.cropped(z)
        v, u = self.gauss.fourier(white), self.unit(y, z.dtype)
        mean, power = self.gauss(u)
        logs = torch.linspace(float(self.largest.log()), 0.0, STEPS + 1).tolist()
        for now, then in itertools.pairwise(logs):
            slope = self._slope(v, now, mean, power, u)
            ahead = self._slope(v + (then - now) * slope, then, mean, power, u)
            v = v + (then - now) * 0.5 * (slope + ahead)
        made = mean + self.gauss.back(v * (1 + power).sqrt())
        return self.noise * (made if self.whitening is None else self.whitening.observed(made, z))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps x (B, C, *cells) of conditions y (B, P) into white noise z, and return ln |dz/dx| (B,) float64.

        With a whitening z is that of the modes it keeps, on their grid. The determinant is the integral of a trace,
        which is estimated by one random probe a step (Grathwohl et al. 2019, arXiv 1810.01367): a check of `log_prob`,
        with an error of some nats.
        """
        x, u, generator = self._data(x), self.unit(y, x.dtype), torch.Generator().manual_seed(0)
        mean, power = self.gauss(u)
        v = self.gauss.fourier(x - mean) / (1 + power).sqrt()
        log_det = -0.5 * (self.gauss.count * (1 + power.double()).log()).flatten(1).sum(-1)
        logs = torch.linspace(0.0, float(self.largest.log()), STEPS + 1).tolist()
        for now, then in itertools.pairwise(logs):
            probe = torch.randint(0, 2, self.inner, generator=generator).to(x) * 2 - 1
            slope, trace = self._slope_and_trace(v, now, mean, power, u, probe)
            ahead, trace_ahead = self._slope_and_trace(v + (then - now) * slope, then, mean, power, u, probe)
            v = v + (then - now) * 0.5 * (slope + ahead)
            log_det = log_det + (then - now) * 0.5 * (trace + trace_ahead)
        return self.gauss.back(v), log_det - math.prod(self.inner) * self.noise.double().log()

    def log_prob_by_flow(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p (B,) float64 in nats by the probability flow: independent of `log_prob`, with more scatter."""
        z, log_det = self(x, y)
        return log_normal(z) + log_det

    def _denoise(self, x: Tensor, sigma: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the Wiener estimate of s from x, what D adds to it over its rms error, and that error (B, 1, ...).

        Parameters
        ----------
        x
            (B, C, *cells) maps with noise of sigma.
        sigma
            (B, 1, ...) noise level.
        u
            (B, P) scaled conditions.
        """
        mean, power = self.gauss(u)
        modes, log_sigma = self.gauss.fourier(x - mean), sigma.flatten().log()
        gain = power / (power + sigma**2)
        estimate = mean + self.gauss.back(gain * modes)
        share = (gain * self.gauss.count.to(gain)).flatten(1).sum(1) / math.prod(self.inner)
        error = sigma * self._wide(share.clamp_min(1e-12).sqrt())
        better, of_map = estimate, x.new_zeros(len(x), 0)
        if self.map_power is not None:
            of_map, change = self.map_power(modes / (power + sigma**2).sqrt(), log_sigma, u)
            own = power * change.exp()
            better = mean + self.gauss.back(own / (own + sigma**2) * modes)
        inputs = torch.cat([better / self.gauss.unit, (x - better) / sigma], dim=1)
        more = self.network(inputs, log_sigma, u, of_map)
        return estimate, self.gauss.measured(more) + (better - estimate) / error, error

    def _slope(self, v: Tensor, log_sigma: float, mean: Tensor, power: Tensor, u: Tensor) -> Tensor:
        """Compute dv / d ln sigma of the whitened modes v (B, C, *half plane)."""
        root = (power + math.exp(2 * log_sigma)).sqrt()
        sigma = self._wide(torch.full((len(v),), math.exp(log_sigma), device=u.device, dtype=u.dtype))
        _, more, error = self._denoise(mean + self.gauss.back(root * v), sigma, u)
        return -self.gauss.fourier(error * more) / root

    def _slope_and_trace(
        self, v: Tensor, log_sigma: float, mean: Tensor, power: Tensor, u: Tensor, probe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `_slope`, and the trace (B,) of its derivative by a probe (C, *cells) of ones and minus ones."""
        with torch.enable_grad():
            field = self.gauss.back(v).requires_grad_(True)
            modes = self._slope(self.gauss.fourier(field), log_sigma, mean, power, u)
            (along,) = torch.autograd.grad((self.gauss.back(modes) * probe).sum(), field)
        return modes.detach(), (probe * along).flatten(1).sum(1, dtype=torch.float64)

    def _log_edges(self, parts: int) -> Tensor:
        """Divide the range of ln tau: (parts + 1,) float64."""
        return torch.linspace(math.log(LEAST), float(self.largest.log()), parts + 1, dtype=torch.float64)

    def _wide(self, values: Tensor) -> Tensor:
        """Give values (B,) the axes of maps."""
        return values.view(-1, *(1,) * len(self.shape))
