"""Figure of generated images beside real ones, and by how much their statistics differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp, kurtosis, skew

from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import logarithmic_k, subplots
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.power import build_power_spectrum
from simulators import Observable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Number of bins of P(k).
BINS = 10
#: Number of cells whose distributions are compared, at most, of the real and of the generated images.
CELLS = 200_000


@dataclass(frozen=True)
class Images:
    """Images at one condition.

    Attributes
    ----------
    name
        Condition in words.
    generated
        Images of the flow (n, C, *cells).
    real
        Simulated images (m, C, *cells), or None.
    """

    name: str
    generated: NDArray[np.float32]
    real: NDArray[np.float32] | None


def compare_images(images: Images, observable: Observable) -> dict[str, Any]:
    """Compare P(k), moments of the cells and their distributions, by channel.

    ``ratio`` is the generated over the real P(k); ``ratio_error`` is the error of its logarithm from the scatter
    between images, at least that of Gaussian modes. ``ks`` is the largest difference between the cumulative
    distributions of the cells; 0 is perfect.
    """
    spectrum = build_power_spectrum(observable, PowerSpectrumSettings(bins=BINS))
    powers = {
        name: spectrum(torch.from_numpy(cubes)).numpy()
        for name, cubes in (("generated", images.generated), ("real", images.real))
        if cubes is not None
    }
    content: dict[str, Any] = {"k": spectrum.k.tolist(), "channels": []}
    for c, channel in enumerate(observable.channels):
        entry: dict[str, Any] = {
            "channel": channel,
            "generated": _statistics(images.generated[:, c], powers["generated"][:, c]),
        }
        if images.real is not None:
            entry["real"] = _statistics(images.real[:, c], powers["real"][:, c])
            mean = {name: p[:, c].mean(0) for name, p in powers.items()}
            entry["ratio"] = (mean["generated"] / mean["real"]).tolist()
            gaussian = 1 / np.sqrt(spectrum.counts.numpy())
            share = [np.maximum(p[:, c].std(0) / mean[name], gaussian) / np.sqrt(len(p)) for name, p in powers.items()]
            entry["ratio_error"] = np.hypot(*share).tolist()
            cells = _thinned(images.generated[:, c]), _thinned(images.real[:, c])
            entry["ks"] = float(ks_2samp(*cells).statistic)
        content["channels"].append(entry)
    return content


def comparison_line(images: Images, content: dict[str, Any]) -> str:
    """Say the comparison in plain words, on one line."""
    texts = []
    for channel in content["channels"]:
        if "real" not in channel:
            continue
        ratio, error = np.array(channel["ratio"]), np.array(channel["ratio_error"])
        off, sigma = np.abs(ratio - 1), np.abs(np.log(ratio)) / error
        texts.append(
            f"P(k) within {off.max():.0%} of the real one (rms {np.sqrt(np.mean(off**2)):.1%}; the scatter between "
            f"these images allows {np.sqrt(np.mean(error**2)):.1%}; at most {sigma.max():.1f} sigma), cells' "
            f"distribution within {channel['ks']:.3f}"
        )
    return f"{images.name}: {'; '.join(texts) or 'no real images to compare with'}"


def images_figure(conditions: Sequence[Images], contents: Sequence[dict[str, Any]], observable: Observable) -> "Figure":
    """Draw a row for each condition: a real and a generated image, P(k) and the distribution of the cells.

    Only the first channel is drawn, and the first slice of a cube.
    """
    compare = any(images.real is not None for images in conditions)
    rows, columns = len(conditions), 4 if compare else 3
    figure, axes = subplots(rows, columns, figsize=(3.1 * columns, 2.9 * rows + 0.4), squeeze=False)
    for row, images, content in zip(axes, conditions, contents, strict=True):
        pictures = [("real", images.real), ("generated", images.generated)][0 if compare else 1 :]
        shown = images.generated if images.real is None else images.real
        limits = np.percentile(shown[:, 0], [0.5, 99.5])
        for axis, (name, cubes) in zip(row, pictures, strict=False):
            axis.set_axis_off()
            if cubes is not None:
                axis.set_title(f"{name}, {images.name}", fontsize=9)
                _draw(axis, cubes[0, 0], observable, limits, figure)
        for name, colour in (("generated", COLOURS[0]), ("real", "black")):
            maps = images.generated if name == "generated" else images.real
            if maps is None:
                continue
            power = content["channels"][0][name]["power"]
            style = {"color": colour, "label": name, "lw": 1.4, "ls": "-" if name == "generated" else "--"}
            row[-2].plot(content["k"], power, **style)
            low, high = (float(v) for v in np.percentile(shown[:, 0], [0.05, 99.95]))
            edges = np.linspace(low, high, 50)
            density, _ = np.histogram(maps[:, 0], edges, density=True)
            row[-1].stairs(density, edges, **style)
        logarithmic_k(row[-2])
        row[-2].set_yscale("log")
        row[-2].xaxis.label.set_fontsize(9)
        unit = rf", {observable.unit}² Mpc$^{len(observable.cells)}$" if observable.unit else ""
        row[-2].set_title(f"$P(k)${unit}", fontsize=9)
        row[-1].set_xlabel(observable.unit or "value of a cell", fontsize=9)
        row[-1].set_title("distribution of the cells", fontsize=9)
        for axis in row[-2:]:
            axis.tick_params(labelsize=7, which="both")
        row[-2].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _draw(
    axis: "Axes", image: NDArray[np.float32], observable: Observable, limits: NDArray[np.floating], figure: "Figure"
) -> None:
    flat = image if image.ndim == 2 else image[..., 0]
    lengths = observable.box_length
    drawn = axis.imshow(
        flat.T, origin="lower", extent=(0, lengths[0], 0, lengths[1]), vmin=limits[0], vmax=max(limits[1], 1e-30)
    )
    bar = figure.colorbar(drawn, ax=axis, shrink=0.8)
    bar.ax.tick_params(labelsize=7)


def _statistics(cubes: NDArray[np.float32], power: NDArray[np.float64]) -> dict[str, Any]:
    cells = cubes.astype(np.float64).ravel()
    return {
        "images": len(cubes),
        "power": power.mean(0).tolist(),
        "mean": float(cells.mean()),
        "std": float(cells.std()),
        "skewness": float(skew(cells)),
        "excess_kurtosis": float(kurtosis(cells)),
    }


def _thinned(cubes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pick `CELLS` cells at most, spread over all of them."""
    cells = cubes.ravel()
    return cells[:: -(-len(cells) // CELLS)]
