"""What the page draws itself: slices of the observation and training curves, as SVG in the page's own colours."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from eorinfer.core.observation import Observation
from eorinfer.figures.style import pyplot
from eorinfer.report.page import Drawing

#: Colours that stand in a drawing for those of the page, which follow light and dark.
INK = "#010203"
SERIES = tuple(f"#0102{i:02x}" for i in range(0x10, 0x15))
#: Channels that are drawn at most, evenly chosen.
CHANNELS = 9
#: Cells along an image's side up to which each is drawn as it is.
SHARP = 400
#: A last axis that is so much longer than the others has a slice of its own.
LONG = 2.0

#: What the cells along the last axis are where the observation has coordinates for them.
_COORDINATES = {"z": ("redshift", ""), "frequency": ("frequency", " MHz"), "wavelength": ("wavelength", " µm")}


def channel_name(observation: Observation, channel: int) -> str:
    """A channel in words: its redshift, its wavelength or its number."""
    axis, value = observation.axes[0], observation.channels[channel]
    if axis == "redshift":
        return f"z = {value:g}"
    return f"{value:.4g} µm" if axis == "wavelength" else f"{axis} {value:g}"


def slices(observation: Observation) -> list[Drawing]:
    """A slice through the middle of each channel; of a light-cone one along the line of sight too."""
    channels = len(observation.values)
    chosen = np.unique(np.linspace(0, channels - 1, min(channels, CHANNELS)).round().astype(int))
    drawings = []
    for c in map(int, chosen):
        cube, name = observation.values[c], channel_name(observation, c)
        if cube.ndim == 1:
            drawings.append(_line(observation, cube, name))
            continue
        if cube.ndim == 2:
            drawings.append(_image(observation, cube, (0, 1), name))
            continue
        middle = cube.shape[-1] // 2
        if cube.shape[-1] > LONG * max(cube.shape[:-1]):
            along = f"{name}, along the line of sight"
            drawings.append(_image(observation, cube[:, cube.shape[1] // 2], (0, 2), along))
        if observation.coordinates:
            what, unit = _coordinate(observation)
            name = f"{name}, {what} {observation.coordinates[middle]:.4g}{unit}"
        drawings.append(_image(observation, cube[..., middle], (0, 1), name))
    return drawings


def training_curves(title: str, histories: Sequence[Sequence[Mapping[str, Any]]]) -> Drawing:
    """Losses of fits over their epochs.

    Parameters
    ----------
    title
        What was fitted.
    histories
        Of each fit, from `eorinfer.training.fit.FitRecord`.
    """
    with _drawing((4.4, 3.0)) as (figure, axis):
        lowest = []
        for i, history in enumerate(histories):
            epochs = [h.get("epoch", h.get("stage")) for h in history]
            colour = SERIES[i % len(SERIES)]
            number = f", network {i + 1}" if len(histories) > 1 else ""
            validation = [h["validation"] for h in history]
            if all("training" in h for h in history):
                axis.plot(epochs, [h["training"] for h in history], color=colour, lw=0.9, ls=(0, (3, 2)))
            axis.plot(epochs, validation, color=colour, lw=1.6, label=f"validation{number}")
            best = int(np.argmin(validation))
            axis.plot(epochs[best], validation[best], "o", ms=4.5, color=colour)
            lowest.append(validation[best])
        axis.set(xlabel="epoch", ylabel="loss", title=title)
        axis.legend(frameon=False, fontsize=8)
        told = ", ".join(f"{value:.3g}" for value in lowest)
        return Drawing(_svg(figure, f"Training curves of {title}; lowest validation losses: {told}"))


def _image(observation: Observation, image: NDArray[np.float32], cells: tuple[int, int], name: str) -> Drawing:
    """One image; `cells` are the cell axes of its two sides."""
    along = cells[1] > 1
    with _drawing((9.2, 2.8) if along else (4.4, 3.7)) as (figure, axis):
        (width, across), (height, up) = (_side(observation, cell) for cell in cells[:: -1 if along else 1])
        pixels = image if along else image.T
        limits = np.percentile(image, [0.5, 99.5])
        picture = axis.imshow(
            pixels,
            origin="lower",
            extent=(0, width, 0, height),
            vmin=limits[0],
            vmax=max(limits[1], limits[0] + 1e-30),
            aspect="auto" if along else "equal",
            interpolation="none" if max(image.shape) <= SHARP else "antialiased",
        )
        bar = figure.colorbar(picture, ax=axis, pad=0.02, extend="both", fraction=0.05 if along else 0.046)
        bar.solids.set_rasterized(True)
        bar.set_label(observation.unit or "value")
        bar.outline.set_edgecolor(INK)
        if along and observation.coordinates:
            what, unit = _coordinate(observation)
            across = f"{what} [{unit.strip()}]" if unit else what
            places = np.linspace(0, image.shape[1] - 1, 7).round().astype(int)
            axis.set_xticks(
                (places + 0.5) * width / image.shape[1], [f"{observation.coordinates[i]:.4g}" for i in places]
            )
        axis.set(xlabel=across, ylabel=up, title=name)
        middle = "" if observation.values.ndim == 3 else " in the middle of the cube"
        text = f"Observed map, {name}{middle}; from {image.min():.3g} to {image.max():.3g} {observation.unit}"
        return Drawing(_svg(figure, text), wide=along)


def _line(observation: Observation, values: NDArray[np.float32], name: str) -> Drawing:
    with _drawing((4.4, 3.0)) as (figure, axis):
        width, across = _side(observation, 0)
        axis.plot((np.arange(len(values)) + 0.5) * width / len(values), values, color=SERIES[0], lw=1.2)
        axis.set(xlabel=across, ylabel=observation.unit or "value", title=name)
        return Drawing(_svg(figure, f"Observed values, {name}"))


def _coordinate(observation: Observation) -> tuple[str, str]:
    """What the observation's coordinates along its last axis are, and their unit after a space."""
    return _COORDINATES.get(observation.axes[-1], (observation.axes[-1], ""))


def _side(observation: Observation, cell: int) -> tuple[float, str]:
    """Length of an image's side, and what to write along it."""
    n, size = observation.values.shape[1 + cell], observation.cell_size[cell]
    last = cell == observation.values.ndim - 2 and cell > 1
    if observation.field_of_view and not last:
        degrees = observation.field_of_view * n / observation.values.shape[1]
        return (degrees, "degrees") if degrees > 3 else (60 * degrees, "arcmin")
    name = observation.axes[1 + cell]
    return (n * size, f"{name} [Mpc]") if size > 0 else (float(n), f"{name} [cells]")


@contextmanager
def _drawing(size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, in `INK` on nothing; closed afterwards."""
    plt = pyplot()
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    with plt.rc_context(
        dict.fromkeys(inks, INK)
        | {"axes.facecolor": "none", "svg.fonttype": "path", "font.size": 10, "svg.hashsalt": ""}
    ):
        figure, axis = plt.subplots(figsize=size)
        try:
            yield figure, axis
        finally:
            plt.close(figure)


def _svg(figure: Any, alt: str) -> Markup:
    """The figure as an SVG element that can stand in a page beside others."""
    buffer = io.StringIO()
    # Cropped, because matplotlib's layout engines take longer than all the rest.
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        bbox_inches="tight",
        pad_inches=0.03,
        metadata=dict.fromkeys(("Date", "Creator")),
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Comments hold the texts that are drawn, and the style would hold for the whole page.
    for unwanted in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>"):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:10]}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'href="#|url\(#', lambda m: m[0] + prefix, text)
    text = text.replace(INK, "currentColor")
    for i, colour in enumerate(SERIES):
        text = text.replace(colour, f"var(--series-{i})")
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', text)[1]) * 4 / 3 for side in ("width", "height"))  # type: ignore[index]
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    head = f'<svg role="img" aria-label="{escape(alt)}" width="{width:.0f}" height="{height:.0f}" '
    return Markup(head + 'style="stroke-linejoin: round; stroke-linecap: butt"' + text[4:])
