"""Posterior-predictive check: P(k) of simulations at posterior samples beside the observed one."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from eorinfer.cubes.observation import Observation
from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import channel_name, logarithmic_k, settle, subplots
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.chunks import chunked
from eorinfer.summaries.power import PowerSpectrum, build_power_spectrum, dimensionless
from eorinfer.survey.base import Survey
from eorinfer.validation.predictive import PredictiveCheck
from simulators import Observable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Draws of the noise whose power is averaged, at least and at most, which know that of a bin of three modes to 2%; and
#: cells in all and made at once, as large cubes have many modes in each bin.
FEWEST, DRAWS, CELLS, BATCH = 16, 1024, 2**25, 2**20
#: Simulations, and channels, that are drawn as images, at most.
IMAGES, ROWS = 2, 3
#: Ratio of lengths from which the last axis is drawn.
LONG = 2.0


def predictive_figure(
    clean: NDArray[np.float32],
    observation: Observation,
    survey: Survey,
    observable: Observable,
    settings: PowerSpectrumSettings,
    seed: int,
    noise: ArrayLike | None = None,
) -> "tuple[Figure, dict[str, Any]]":
    """Draw the check, one panel for each channel, or for each chunk of a light-cone.

    Parameters
    ----------
    clean
        Cubes (n, C, *cells) simulated at draws from the posterior.
    observation
        Observed cube.
    survey
        Survey to observe the clean cubes with.
    observable, settings
        Cells of the cubes, and bins of P(k).
    seed
        Seed of the survey's noise.
    noise
        Power of the noise alone (C, bins) to draw beside, as `observed_power` gives it; None for none.

    Returns
    -------
    figure, check
        Figure, and for ``summary.json`` what `eorinfer.validation.predictive` says of the observed power.
    """
    generator = torch.Generator().manual_seed(seed)
    dimension = len(observable.cells)
    with torch.no_grad():
        simulated = survey(torch.from_numpy(clean), generator)
        if dimension == 1:
            return _vector_figure(simulated.numpy(), observation, seed)
        spectrum = build_power_spectrum(observable, settings)
        bands = dimensionless(spectrum.k, spectrum(simulated), dimension).numpy()
        observed = dimensionless(spectrum.k, spectrum(torch.from_numpy(observation.values[None])), dimension)[0].numpy()
    check = PredictiveCheck.of(bands, observed, seed)
    alone = np.zeros_like(observed) if noise is None else np.asarray(noise)
    k = spectrum.k.numpy()
    part = chunked(observable, settings.chunks)
    channels = len(part.channels)
    figure, axes = subplots(1, channels, figsize=(1.2 + 3.4 * channels, 3.4), sharey=True, squeeze=False)
    for c, axis in enumerate(axes[0]):
        _bands(axis, k, check, c, observed[c])
        if (alone > 0).all():
            axis.plot(k, alone[c], color="0.5", lw=1.0, ls="--", label="noise")
        logarithmic_k(axis)
        if (observed > 0).all() and (check.quantiles[0] > 0).all():
            axis.set_yscale("log")
        axis.set_title(channel_name(part, c), fontsize=11)
    unit = f" [{observable.unit}$^2$]" if observable.unit else ""
    axes[0, 0].set_ylabel(rf"$\Delta^2(k)${unit}")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"observed power and {len(clean)} simulations at posterior samples", fontsize=11)
    figure.tight_layout()
    return figure, check.content("power")


def noise_power(spectrum: PowerSpectrum, observable: Observable, survey: Survey, seed: int) -> NDArray[np.float64]:
    """Mean dimensionless power (C, bins) of what the survey makes of an empty cube, in the cube's unit squared."""
    generator = torch.Generator().manual_seed(seed)
    cells = math.prod(observable.shape)
    together = min(max(FEWEST, BATCH // cells), DRAWS)
    empty, batches = torch.zeros(together, *observable.shape), max(1, min(DRAWS, CELLS // cells) // together)
    with torch.no_grad():
        each = [spectrum(survey(empty, generator)).mean(0) for _ in range(batches)]
        power = dimensionless(spectrum.k, torch.stack(each).mean(0), len(observable.cells))
    return np.asarray(power.numpy(), np.float64)


def observed_power(
    observation: Observation, survey: Survey, observable: Observable, settings: PowerSpectrumSettings, seed: int
) -> dict[str, Any]:
    """Power spectrum of the observation beside that of the noise alone, for ``summary.json``.

    Parameters are those of `predictive_figure`.

    Returns
    -------
    dict
        ``k`` in 1/Mpc and number of independent ``modes`` of each bin; ``observed`` and ``noise`` (C, bins): variance
        per logarithmic k, in the unit of the cube squared; ``channels``: their C names, those of chunks perhaps.
    """
    spectrum = build_power_spectrum(observable, settings)
    part = chunked(observable, settings.chunks)
    with torch.no_grad():
        power = spectrum(torch.from_numpy(observation.values[None]))
        observed = dimensionless(spectrum.k, power, len(observable.cells))[0]
    return {
        "channels": [channel_name(part, c) for c in range(len(part.channels))],
        "k": spectrum.k.tolist(),
        "modes": spectrum.counts.tolist(),
        "observed": observed.tolist(),
        "noise": noise_power(spectrum, observable, survey, seed).tolist(),
    }


def predictive_images(
    clean: NDArray[np.float32], observation: Observation, survey: Survey, observable: Observable, seed: int
) -> "Figure":
    """Draw the observed image, simulations at draws from the posterior, and the difference to the first of them.

    Each row is a channel, through the middle of its cube; along the line of sight where that is long. All panels share
    one colour bar. Parameters are those of `predictive_figure`, whose first simulations have the same noise.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        simulated = survey(torch.from_numpy(clean), generator)[:IMAGES].numpy()
    channels = np.unique(np.linspace(0, len(observable.channels) - 1, ROWS).round().astype(int))
    titles = ["observed", *(f"simulation {i + 1}" for i in range(len(simulated))), "observed − simulation 1"]
    rows = [
        [_slice(cube[c]) for cube in (observation.values, *simulated, observation.values - simulated[0])]
        for c in map(int, channels)
    ]
    long = rows[0][0].shape[1] > rows[0][0].shape[0]
    across, down = (1, len(titles) * len(rows)) if long else (len(titles), len(rows))
    size = (9.2, 0.5 + 1.9 * down) if long else (1.0 + 2.7 * across, 0.5 + 2.6 * down)
    figure, axes = subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    panels = axes.reshape(len(rows), len(titles))
    low, high = np.percentile(np.concatenate([image.ravel() for row in rows for image in row]), [0.5, 99.5])
    for row, c, of_channel in zip(rows, channels, panels, strict=True):
        channel = channel_name(observable, c)
        for image, title, axis in zip(row, titles, of_channel, strict=True):
            lengths = [n * size for n, size in zip(image.shape, _sizes(observable, long), strict=True)]
            drawn = axis.imshow(
                image if long else image.T,
                origin="lower",
                extent=(0, lengths[long], 0, lengths[not long]),
                vmin=low,
                vmax=max(high, low + 1e-30),
                aspect="auto" if long else "equal",
                interpolation="none",
            )
            axis.set_title(f"{title}, {channel}" if long or axis is of_channel[0] else title, fontsize=10)
    unit = "Mpc" if max(observable.cell_size) > 0 else "cells"
    for axis in axes[-1]:
        axis.set_xlabel(f"{observable.axes[-1] if long else observable.axes[1]} [{unit}]")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{observable.axes[1] if long else observable.axes[2]} [{unit}]")
    bar = figure.colorbar(drawn, ax=axes, extend="both", fraction=0.03, pad=0.02)
    bar.set_label(observable.unit or "value")
    return settle(figure)


def _slice(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take an image (x, y) through the middle of a channel; (x, line of sight) where the latter is long."""
    if cube.ndim == 2:
        return cube
    along = cube.shape[-1] > LONG * max(cube.shape[:-1])
    return cube[:, cube.shape[1] // 2] if along else cube[..., cube.shape[-1] // 2]


def _sizes(observable: Observable, long: bool) -> tuple[float, float]:
    """Sizes of a cell along the two sides of a slice, in Mpc; 1 where cells have no length."""
    sizes = observable.cell_size
    return (sizes[0] or 1.0, (sizes[-1] if long else sizes[1]) or 1.0)


def _vector_figure(
    simulated: NDArray[np.float32], observation: Observation, seed: int
) -> "tuple[Figure, dict[str, Any]]":
    """Draw the check of data vectors (n, C, m), element by element."""
    check = PredictiveCheck.of(simulated, observation.values, seed)
    channels = len(observation.channels)
    figure, axes = subplots(1, channels, figsize=(1.2 + 3.4 * channels, 3.4), squeeze=False)
    places = np.arange(simulated.shape[-1])
    for c, axis in enumerate(axes[0]):
        _bands(axis, places, check, c, observation.values[c])
        axis.set_xlabel("element")
    axes[0, 0].set_ylabel(observation.unit or "value")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"observed vector and {len(simulated)} simulations at posterior samples", fontsize=11)
    figure.tight_layout()
    return figure, check.content("vector")


def _bands(axis: "Axes", x: NDArray[Any], check: PredictiveCheck, channel: int, observed: NDArray[np.float32]) -> None:
    """Draw the bands of simulations in one channel, and the observed points."""
    outer_low, low, middle, high, outer_high = (quantile[channel] for quantile in check.quantiles)
    outer, inner = check.levels
    axis.fill_between(x, outer_low, outer_high, color=COLOURS[0], alpha=0.2, lw=0, label=f"{outer:.0%} of simulations")
    axis.fill_between(x, low, high, color=COLOURS[0], alpha=0.4, lw=0, label=f"{inner:.0%}")
    axis.plot(x, middle, color=COLOURS[0], lw=1.2)
    axis.plot(x, observed, "ko", ms=4, label="observed")
