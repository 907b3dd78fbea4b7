"""Flow matching of lines about their posterior mean: a velocity that carries coloured noise to residuals."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import normal_batch
from eorinfer.separation.spectra import ModeBins, whitening

#: Numbers that describe a time, and length of the vector that the network sees of them.
WAVES, CONDITIONS = 8, 32
#: Factor by which the power of a bin may be changed after a step, at most; and power that counts as none.
MOST, TINY = 2.0, 1e-12

#: Gives velocities (B, L, *cells) from z (B, L, *cells) and times (B,).
Velocity = Callable[[Tensor, Tensor], Tensor]


class ResidualFlow(nn.Module):
    """Draw residuals of lines, truth minus posterior mean, given the observed map and the mean.

    Conditional flow matching (Lipman et al. 2023, arXiv 2210.02747) along arcs (Albergo & Vanden-Eijnden 2023, arXiv
    2209.15571, trigonometric interpolant): z = cos(a) y0 + sin(a) y1 at an angle a from 0 to pi / 2, with y1 a true
    residual and y0 Gaussian noise, and a network learns the mean velocity, cos(a) y1 - sin(a) y0, at z. The noise has
    the power and cross power of the residuals, so that of Gaussian residuals that know nothing of the observed map the
    velocity is zero, and no step of an integration is in error. Residuals are whitened, so that modes of little power
    count as much.

    Parameters
    ----------
    network
        Module from contexts and z (B, inputs + L, *cells) and a condition (B, CONDITIONS) to velocities (B, L, *cells).
    lines
        Number of lines L.
    bins
        Bins of the modes of a map.
    steps
        Steps of an integration.
    """

    whitening: Tensor
    source: Tensor
    kept: Tensor

    def __init__(self, network: nn.Module, lines: int, bins: ModeBins, steps: int) -> None:
        super().__init__()
        self._bins, self.network = bins, network
        self.register_buffer("whitening", torch.ones(bins.count, lines))
        self.register_buffer("source", torch.eye(lines).repeat(bins.count, 1, 1))
        self.register_buffer("kept", torch.ones(steps, bins.count, lines))
        self.time = nn.Sequential(nn.Linear(2 * WAVES, CONDITIONS), nn.SiLU())

    def fit(self, residuals: Tensor) -> None:
        """Set whitening and noise from residuals (B, L, *cells) in physical units."""
        spectra = self._bins.spectra(residuals, residuals)
        factors = whitening(spectra)
        values, vectors = torch.linalg.eigh(factors[:, :, None] * spectra * factors[:, None])
        self.whitening.copy_(factors)
        self.source.copy_((vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT)

    def white(self, residuals: Tensor) -> Tensor:
        """Whiten residuals (B, L, *cells) in physical units."""
        return self._bins.filtered(residuals, self.whitening)

    def losses(self, context: Tensor, white: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the squared error of the velocity (B, L).

        Parameters
        ----------
        context
            (B, C + L, *cells) observed maps and means, scaled to order one.
        white
            (B, L, *cells) whitened true residuals y1.
        generator
            Source of times and noise.
        """
        batch = len(white)
        # Spread evenly over the batch: the loss depends on it.
        share = torch.rand((), generator=generator, device=generator.device).to(white)
        time = (torch.arange(batch, device=white.device) + share) / batch
        noise = self.noise(tuple(white.shape), generator).to(white)
        sine, cosine = _directions(time.view(-1, *(1,) * (white.ndim - 1)))
        z = cosine * noise + sine * white
        return (self.velocity(context, z, time) - (cosine * white - sine * noise)).square().flatten(2).mean(2)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
        """Draw whitened noise y0 of a shape (B, L, *cells), on the device of the flow."""
        return self._bins.filtered(normal_batch(shape, generator).to(self.source), self.source)

    def velocity(self, context: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """Compute the velocity (B, L, *cells) by angle.

        Parameters
        ----------
        context, z
            Maps as for `losses`, and the noisy residuals (B, L, *cells).
        time
            (B,) shares tan(a) / (1 + tan(a)) of the true residuals in z, from 0 to 1.
        """
        waves = math.pi * torch.arange(1, WAVES + 1, device=z.device) * time[:, None]
        condition = self.time(torch.cat([waves.sin(), waves.cos()], dim=1))
        velocity: Tensor = self.network(torch.cat([context, z], dim=1), condition=condition).float()
        return velocity

    def integrated(self, velocity: Velocity, z: Tensor, *, fit: bool = False) -> Tensor:
        """Carry noise (B, L, *cells) to whitened residuals by Euler's method, in steps of equal angle.

        Along an arc from noise to residuals of the same power that power stays the same. What a step of a velocity that
        is learned changes of it is undone, by a factor for each step, line and bin of k: otherwise errors add up.

        Parameters
        ----------
        velocity
            Gives velocities from z and times (B,).
        z
            Noise, see `noise`.
        fit
            Measure these factors first, from the z of many maps.
        """
        steps, wanted = len(self.kept), self._bins.spectra(z, z).diagonal(dim1=1, dim2=2) if fit else None
        for step in range(steps):
            tangent = math.tan(0.5 * math.pi * step / steps)
            z = z + 0.5 * math.pi / steps * velocity(z, z.new_full((len(z),), tangent / (1 + tangent)))
            if wanted is not None:
                found = self._bins.spectra(z, z).diagonal(dim1=1, dim2=2)
                self.kept[step] = (wanted / found.clamp(min=TINY)).sqrt().clamp(1 / MOST, MOST)
            if bool((self.kept[step] != 1).any()):
                z = self._bins.filtered(z, self.kept[step])
        return z

    def residuals(self, white: Tensor) -> Tensor:
        """Undo `white`."""
        return self._bins.filtered(white, self.whitening, inverse=True)


def _directions(time: Tensor) -> tuple[Tensor, Tensor]:
    """Compute sine and cosine of the angle at which residuals have this share."""
    length = torch.hypot(time, 1 - time)
    return time / length, (1 - time) / length
