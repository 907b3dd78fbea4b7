"""A map beside the lines that it is made of, and its noise."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import pyplot
from simulators import Observable


def lines_figure(observable: Observable, observed: NDArray[np.float32], clean: dict[str, NDArray[np.float32]]) -> Any:
    """Observed map, each clean one, and what the survey added; of cubes the first slice, a row for each cube.

    Parameters
    ----------
    observable
        The image.
    observed
        (C, *cells)
    clean
        Arrays of the same shape by name; the image's own is among them.
    """
    plt = pyplot()
    panels = {"observed": observed, **clean, "observed $-$ clean": observed - clean[observable.name]}
    channels = len(observed)
    figure, axes = plt.subplots(
        channels, len(panels), figsize=(3.1 * len(panels), 2.7 * channels + 0.4), squeeze=False, layout="constrained"
    )
    half = 30 * observable.field_of_view
    for row, wavelength in enumerate(observable.channels):
        for axis, (name, cube) in zip(axes[row], panels.items(), strict=True):
            part = cube[row] if cube[row].ndim == 2 else cube[row][..., 0]
            limits = np.percentile(part, [0.5, 99.7])
            picture = axis.imshow(
                part.T, origin="lower", extent=(-half, half, -half, half), vmin=limits[0], vmax=max(limits[1], 1e-30)
            )
            figure.colorbar(picture, ax=axis, shrink=0.75)
            axis.set_title(name if channels == 1 else f"{name}, {wavelength:.3f} um", fontsize=10)
            axis.set_xlabel("arcmin", fontsize=8)
            axis.tick_params(labelsize=7)
    figure.suptitle(f"{observable.unit}, {observable.axes[0]} {observable.channels[0]:g}", fontsize=10)
    return figure
