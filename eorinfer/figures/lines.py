"""Figure of a map beside the lines that it is made of, and its noise."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import channel_name, subplots
from simulators import Observable
from simulators.lim.lines import line_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines_figure(
    observable: Observable, observed: NDArray[np.float32], clean: dict[str, NDArray[np.float32]]
) -> "Figure":
    """Draw the observed map, each clean one, and what the survey added: a row for each channel, cubes by a slice.

    Parameters
    ----------
    observable
        Cells, channels and unit of the map.
    observed
        Observed map (C, *cells).
    clean
        Clean maps of the same shape by name; the observable's own is among them.
    """
    panels = {"observed": observed, **clean, "observed $-$ clean": observed - clean[observable.name]}
    channels = len(observed)
    figure, axes = subplots(
        channels, len(panels), figsize=(3.1 * len(panels), 2.7 * channels + 0.4), squeeze=False, layout="constrained"
    )
    half = 30 * observable.field_of_view
    for channel in range(channels):
        for axis, (name, cube) in zip(axes[channel], panels.items(), strict=True):
            image = cube[channel] if cube[channel].ndim == 2 else cube[channel][..., 0]
            limits = np.percentile(image, [0.5, 99.7])
            picture = axis.imshow(
                image.T, origin="lower", extent=(-half, half, -half, half), vmin=limits[0], vmax=max(limits[1], 1e-30)
            )
            figure.colorbar(picture, ax=axis, shrink=0.75)
            label = line_label(name)
            axis.set_title(label if channels == 1 else f"{label}, {channel_name(observable, channel)}", fontsize=10)
            axis.set_xlabel("arcmin", fontsize=8)
            axis.tick_params(labelsize=7)
    only = f", {channel_name(observable, 0)}" if channels == 1 else ""
    figure.suptitle(f"{observable.unit}{only}", fontsize=10)
    return figure
