"""Does ln p by scale tell maps of another world? Other noise, another source model, a residual of foregrounds.

A part of maps_21cm.py. Maps of one half of the held-out boxes are known, those of the other half are asked about as
they look

as trained     and with half and twice the noise,
residual       with the lowest modes of the map added (those up to twice the fundamental one), of so many mK rms: what
               a smooth foreground leaves of itself in one slice,
ramp           with a straight line along one axis added, of so many mK rms: what does not end where it began,

and maps of the same condition from 21cmFAST's Park19 template (spin temperature, recombinations, larger bubbles), and
from the model of training with a steeper escape fraction. As an observer would, ln p is taken where the flow itself
says that the condition is, for known maps too.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.imageflow.neutral_fraction import NOISES, flow_posteriors
from benchmarks.imageflow.other_sources import other_sources
from benchmarks.imageflow.slices import Maps, observed
from eorinfer import Run
from eorinfer.imageflow.alarm import KnownImages, compare_scales
from eorinfer.imageflow.model import ImageFlow

#: Maps that are known, and maps of each world.
KNOWN, ASKED = 480, 96
#: Strengths of residuals, mK rms.
RMS = (0.5, 1.0, 2.0)
Array = NDArray[np.float64]


def alarms(run: Run, flow: ImageFlow, out: Path) -> None:
    """Print how often maps are called unlike those of training, by world and by scale."""
    print("\n21cm alarm: held-out maps whose smallest p-value over scales, times their number, is below 0.05; by scale")
    maps = observed(run, only=True)
    known = _some(maps, maps.box % 2 == 1, KNOWN)
    y = estimated(flow, known.x)
    compared = KnownImages(scales(flow, known.x, y), y, known.box)
    for name, x in worlds(run, maps, out).items():
        inside = estimated(flow, x)
        p = compare_scales(scales(flow, x, inside), inside, compared).p
        flagged = (p.min(1) * p.shape[1] < 0.05).mean()
        parts = ", ".join(f"{share:.0%}" for share in (p < 0.05).mean(0))
        print(f"{name:16s} {len(x)} maps: {flagged:.0%}; p < 0.05 from the coarsest scale on: {parts}", flush=True)


def worlds(run: Run, maps: Maps, out: Path) -> dict[str, Tensor]:
    """Maps (n, 1, *cells) by name."""
    asked = maps.box % 2 == 0
    known = _some(maps, asked, ASKED).x
    found = {"as trained": known}
    for noise in NOISES:
        found[f"noise {noise:g} mK"] = _some(observed(run, only=True, noise=noise), asked, ASKED).x
    for name, made in (("residual", residual), ("ramp", ramp)):
        for rms in RMS:
            found[f"{name} {rms:g} mK"] = known + rms * made(known.shape)
    for name, there in other_sources(run, out).items():
        seen = (there.y >= maps.y.min()) & (there.y <= maps.y.max())
        found[name] = _some(there, seen[:, 0].numpy(), ASKED).x
    return found


def residual(shape: tuple[int, ...]) -> Tensor:
    """Maps of unit rms with modes up to twice the fundamental one, of equal power."""
    modes = torch.fft.rfft2(torch.randn(shape, generator=torch.Generator().manual_seed(8)))
    k = torch.hypot(torch.fft.fftfreq(shape[-2], 1 / shape[-2])[:, None], torch.fft.rfftfreq(shape[-1], 1 / shape[-1]))
    return _unit(torch.fft.irfft2(modes * ((k > 0) & (k < 2.1)), s=shape[-2:]))


def ramp(shape: tuple[int, ...]) -> Tensor:
    """Maps of unit rms that rise along one axis."""
    return _unit(torch.linspace(-1, 1, shape[-1]).expand(shape).clone())


@torch.no_grad()
def scales(flow: ImageFlow, x: Tensor, y: Array) -> Array:
    """Ln p by scale (n, S) of maps at conditions y (n, 1)."""
    parts = zip(x.split(64), torch.from_numpy(y).split(64), strict=True)
    return torch.cat([flow.network.log_prob_scales(*part) for part in parts]).numpy()


def estimated(flow: ImageFlow, x: Tensor) -> Array:
    """Mean (n, 1) of the flow's own posterior of the neutral fraction."""
    return flow_posteriors(flow, x).mean[:, None]


def _unit(maps: Tensor) -> Tensor:
    return maps / maps.std((-2, -1), keepdim=True)


def _some(maps: Maps, which: NDArray[np.bool_], n: int) -> Maps:
    """Draw n of them at random, at most."""
    return maps[np.sort(np.random.default_rng(9).permutation(np.flatnonzero(which))[:n])]
