"""Fit the correction of a separator on validation maps, measure whether its draws spread, and choose thresholds."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eorinfer.core.seeds import WorkStream, item_seed, stream_seed
from eorinfer.separation.apply import FEWEST, flow_draw, gan_draw, tiled
from eorinfer.separation.data import Lines, Pairs
from eorinfer.separation.model import Separator
from eorinfer.separation.peaks import best_threshold, find_peaks, flat
from simulators import Observable

#: Number of maps (more are made of fewer, and of more the first are taken), of draws of each, and of maps at once.
MAPS, DRAWS, BATCH = 256, 4, 32
#: Height of the true peaks sought, in standard deviations of the true maps; radius of peaks in arcmin; and precision.
SOUGHT, RADIUS, PRECISION = 3.0, 4.0, 0.6


@torch.no_grad()
def calibrate(separator: Separator, lines: Lines, pairs: Pairs, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Fit the correction of a separator on validation maps, and tell what they say of its results.

    Parameters
    ----------
    separator
        Separator whose networks are trained.
    lines
        Clean lines that no network was trained on.
    pairs
        Makes observed maps of them.
    seed
        Seed of noise, symmetries and draws.

    Returns
    -------
    dict
        ``sureness``, empty for a separator that makes no draws; and ``thresholds``, empty for a GAN.
    """
    seed = stream_seed(seed, WorkStream.SEPARATOR_CORRECTION)
    generator = torch.Generator().manual_seed(seed)
    correction, cells = separator.correction, separator.spec.observable.cells
    kind = separator.spec.settings.kind
    # With few maps lines are turned, and mixed if they are in training, to make more.
    passes = math.ceil(MAPS / len(lines))
    made = [
        pairs(lines.__getitems__(list(range(start, min(start + BATCH, len(lines)))))[0], generator, training=passes > 1)
        for _ in range(passes)
        for start in range(0, len(lines), BATCH)
    ]
    observed, true = (torch.cat(x) for x in zip(*made, strict=True))
    batches = observed.split(BATCH)
    if kind == "cgan":
        seeds = [item_seed(seed, i) for i in range(FEWEST)]
        raw = torch.stack([torch.cat([gan_draw(separator, x, one) for x in batches]) for one in seeds])
        mean = raw.mean(0)
    else:
        mean = torch.cat([tiled(separator, x, cells) for x in batches])
    correction.fit_mean(observed, true, mean)
    mean = correction.of_mean(observed, mean)
    thresholds = {} if kind == "cgan" else peak_thresholds(true, mean, separator.spec.lines, separator.spec.observable)
    if kind == "mean":
        return {"sureness": {}, "thresholds": thresholds}
    if kind == "flow-matching":
        _fit_steps(separator, observed, mean, generator)
        both = list(zip(batches, mean.split(BATCH), strict=True))
        seeds = [item_seed(seed, i) for i in range(DRAWS)]
        raw = torch.stack([torch.cat([flow_draw(separator, x, m, one) for x, m in both]) for one in seeds])
    correction.fit_draws(observed, true, mean, raw, generator)
    draws = torch.stack([correction.of_draw(observed, mean, draw, generator) for draw in raw])
    return {"sureness": sureness(true, draws, separator.spec.lines), "thresholds": thresholds}


def _fit_steps(separator: Separator, observed: Tensor, mean: Tensor, generator: torch.Generator) -> None:
    """Fit what the steps of a flow are corrected by, on observed maps (B, C, *cells) and means (B, L, *cells)."""
    flow = separator.flow
    assert flow is not None
    context = separator.context(observed, mean).split(BATCH)

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        parts = zip(context, z.split(BATCH), time.split(BATCH), strict=True)
        return torch.cat([flow.velocity(known, some, times) for known, some, times in parts])

    flow.integrated(velocity, flow.noise(tuple(mean.shape), generator), fit=True)


def sureness(true: Tensor, draws: Tensor, lines: list[str]) -> dict[str, dict[str, float]]:
    """Compare the spread of draws with what their distance from the truth asks for: 1 for those of a posterior.

    Two draws of a posterior are as far apart as a draw and the truth, in the mean of squares.

    Parameters
    ----------
    true
        (B, L, *cells) lines.
    draws
        (D, B, L, *cells) two draws or more of each.
    lines
        Names of the lines.

    Returns
    -------
    dict
        For each line the ratio of each quantity: pixels, map mean, and standard deviation of the map.
    """
    cells = tuple(range(2, true.ndim))
    quantities = {
        "pixels": lambda maps: maps.flatten(2),
        "map mean": lambda maps: maps.mean(cells)[..., None],
        "standard deviation of the map": lambda maps: maps.std(cells)[..., None],
    }
    found: dict[str, dict[str, float]] = {line: {} for line in lines}
    for name, quantity in quantities.items():
        several, wanted = torch.stack([quantity(draw.double()) for draw in draws]), quantity(true.double())
        apart = 2 * several.var(0).mean((0, 2))
        off = (several - wanted).square().mean((0, 1, 3))
        for line, ratio in zip(lines, (apart / off).sqrt().tolist(), strict=True):
            found[line][name] = ratio
    return found


def peak_thresholds(true: Tensor, mean: Tensor, lines: list[str], observable: Observable) -> dict[str, dict[str, Any]]:
    """Choose the thresholds above which peaks of a posterior mean are counted: it shrinks faint peaks.

    Parameters
    ----------
    true, mean
        (B, L, *cells) lines and their means.
    lines
        Names of the lines.
    observable
        Observable of the image, for the pixel.

    Returns
    -------
    dict
        For each line the height of true peaks that is ``sought``, the threshold of the largest harmonic mean of
        precision and recall (``best``), and that of the largest recall at a precision of `PRECISION` (``precise``),
        both by pairs and in the unit of the maps; None where no threshold will do.
    """
    radius = max(1.0, RADIUS / (60 * observable.field_of_view / observable.cells[0] or 1.0))
    found: dict[str, dict[str, Any]] = {}
    for i, line in enumerate(lines):
        maps = [flat(x[:, i].numpy()) for x in (true, mean)]
        sought = SOUGHT * float(true[:, i].std())
        first, second = ([find_peaks(image, radius) for image in x] for x in maps)
        levels = (best_threshold(first, second, radius, sought, least) for least in (None, PRECISION))
        best, precise = (level if np.isfinite(level) else None for level in levels)
        found[line] = {"sought": sought, "best": best, "precise": precise}
    return found
