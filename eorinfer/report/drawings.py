"""Pictures that the page draws itself: slices of the observation and training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.cubes.observation import Observation
from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import channel_name, png_bytes, subplots
from eorinfer.report.page import Picture

#: Number of channels to draw, at most; evenly chosen.
CHANNELS = 9
#: Cells along an image's side up to which each cell is drawn sharp.
SHARP = 400
#: Ratio of lengths from which the last axis has a slice of its own.
LONG = 2.0

#: Name and unit of the coordinates along the last axis, by its own name.
_COORDINATES = {"z": ("redshift", ""), "frequency": ("frequency", " MHz"), "wavelength": ("wavelength", " µm")}


def slices(observation: Observation) -> list[Picture]:
    """Draw a slice through the middle of each channel; of a light-cone one along the line of sight too."""
    channels = len(observation.values)
    drawn = np.unique(np.linspace(0, channels - 1, min(channels, CHANNELS)).round().astype(int))
    pictures = []
    for c in map(int, drawn):
        cube, name = observation.values[c], channel_name(observation, c)
        if cube.ndim == 1:
            pictures.append(_curve(observation, cube, name))
            continue
        if cube.ndim == 2:
            pictures.append(_image(observation, cube, (0, 1), name))
            continue
        middle = cube.shape[-1] // 2
        if cube.shape[-1] > LONG * max(cube.shape[:-1]):
            along = f"{name}, along the line of sight"
            pictures.append(_image(observation, cube[:, cube.shape[1] // 2], (0, 2), along))
        if observation.coordinates:
            coordinate, unit = _coordinate(observation)
            name = f"{name}, {coordinate} {observation.coordinates[middle]:.4g}{unit}"
        pictures.append(_image(observation, cube[..., middle], (0, 1), name))
    return pictures


def training_curves(title: str, histories: Sequence[Sequence[Mapping[str, Any]]]) -> Picture:
    """Draw losses over epochs.

    Parameters
    ----------
    title
        Name of what was fitted.
    histories
        Epochs of each fit, as `eorinfer.training.fit.FitRecord` keeps them.
    """
    figure, axis = subplots(figsize=(4.4, 3.0))
    from matplotlib.ticker import MaxNLocator

    lowest = []
    for i, history in enumerate(histories):
        epochs = [h.get("epoch", h.get("stage")) for h in history]
        colour = COLOURS[i % len(COLOURS)]
        network = f", network {i + 1}" if len(histories) > 1 else ""
        validation = [h["validation"] for h in history]
        if all("training" in h for h in history):
            axis.plot(epochs, [h["training"] for h in history], color=colour, lw=0.9, ls=(0, (3, 2)))
        axis.plot(epochs, validation, color=colour, lw=1.6, label=f"validation{network}")
        best = int(np.argmin(validation))
        axis.plot(epochs[best], validation[best], "o", ms=4.5, color=colour)
        lowest.append(validation[best])
    axis.set(xlabel="epoch", ylabel="loss", title=title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize=8)
    losses = ", ".join(f"{loss:.3g}" for loss in lowest)
    return Picture.from_png(png_bytes(figure), f"Training curves of {title}; lowest validation losses: {losses}")


def _image(observation: Observation, image: NDArray[np.float32], cells: tuple[int, int], name: str) -> Picture:
    """Draw an image; `cells` are the numbers of the cell axes along its two sides."""
    along = cells[1] > 1
    figure, axis = subplots(figsize=(9.2, 2.8) if along else (4.4, 3.7))
    (width, across), (height, up) = (_side(observation, cell) for cell in cells[:: -1 if along else 1])
    low, high = np.percentile(image, [0.5, 99.5])
    drawn = axis.imshow(
        image if along else image.T,
        origin="lower",
        extent=(0, width, 0, height),
        vmin=low,
        vmax=max(high, low + 1e-30),
        aspect="auto" if along else "equal",
        interpolation="none" if max(image.shape) <= SHARP else "antialiased",
    )
    bar = figure.colorbar(drawn, ax=axis, pad=0.02, extend="both", fraction=0.05 if along else 0.046)
    bar.set_label(observation.unit or "value")
    if along and observation.coordinates:
        coordinate, unit = _coordinate(observation)
        across = f"{coordinate} [{unit.strip()}]" if unit else coordinate
        places = np.linspace(0, image.shape[1] - 1, 7).round().astype(int)
        ticks = (places + 0.5) * width / image.shape[1]
        axis.set_xticks(ticks, [f"{observation.coordinates[i]:.4g}" for i in places])
    axis.set(xlabel=across, ylabel=up, title=name)
    middle = "" if observation.values.ndim == 3 else " in the middle of the cube"
    alt = f"Observed map, {name}{middle}; from {image.min():.3g} to {image.max():.3g} {observation.unit}"
    return Picture.from_png(png_bytes(figure), alt, wide=along)


def _curve(observation: Observation, values: NDArray[np.float32], name: str) -> Picture:
    """Draw the values of a channel with one axis."""
    figure, axis = subplots(figsize=(4.4, 3.0))
    width, across = _side(observation, 0)
    axis.plot((np.arange(len(values)) + 0.5) * width / len(values), values, color=COLOURS[0], lw=1.2)
    axis.set(xlabel=across, ylabel=observation.unit or "value", title=name)
    return Picture.from_png(png_bytes(figure), f"Observed values, {name}")


def _coordinate(observation: Observation) -> tuple[str, str]:
    """Name the observation's coordinate along its last axis; its unit stands after a space."""
    return _COORDINATES.get(observation.axes[-1], (observation.axes[-1], ""))


def _side(observation: Observation, cell: int) -> tuple[float, str]:
    """Return the length of an image's side, and the label to write along it."""
    n, size = observation.values.shape[1 + cell], observation.cell_size[cell]
    last = cell == observation.values.ndim - 2 and cell > 1
    if observation.field_of_view and not last:
        degrees = observation.field_of_view * n / observation.values.shape[1]
        return (degrees, "degrees") if degrees > 3 else (60 * degrees, "arcmin")
    name = observation.axes[1 + cell]
    return (n * size, f"{name} [Mpc]") if size > 0 else (float(n), f"{name} [cells]")
