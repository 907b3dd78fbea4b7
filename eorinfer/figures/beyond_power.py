"""Figures of real images beside copies with the same power spectrum, and of how likelihoods tell them apart."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.prior import Prior
from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import logarithmic_k, subplots
from simulators import Observable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of bins of the histograms.
BINS = 30


def beyond_power_figure(
    observable: Observable,
    images: dict[str, NDArray[np.float32]],
    scores: dict[str, dict[str, NDArray[np.float64]]],
) -> "Figure":
    """Draw one image of each kind, and for each method by how much it prefers the real image to its copies.

    Parameters
    ----------
    observable
        Cells and unit of the images.
    images
        Images (n, C, *cells) by kind, real ones first.
    scores
        Log-likelihoods (n,) by method and kind.
    """
    real, *copies = images
    columns = max(len(images), len(scores))
    figure, axes = subplots(2, columns, figsize=(3.4 * columns, 6.0), squeeze=False, layout="constrained")
    differences = {method: {name: by[real] - by[name] for name in copies} for method, by in scores.items()}
    # The image that is as easy to tell from its copy as most are.
    typical = next(iter(next(iter(differences.values())).values()))
    index = int(np.argsort(typical)[len(typical) // 2])
    shown = {name: x[index, 0] if x.ndim == 4 else x[index, 0, ..., 0] for name, x in images.items()}
    low, high = np.percentile(shown[real], [0.5, 99.5])
    for axis, (name, picture) in zip(axes[0], shown.items(), strict=False):
        drawn = axis.imshow(picture.T, origin="lower", vmin=low, vmax=high)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes[0][: len(shown)].tolist(), shrink=0.8, label=observable.unit)
    for axis, (method, by_copy) in zip(axes[1], differences.items(), strict=False):
        together = np.concatenate(list(by_copy.values()))
        spread = max(float(np.quantile(np.abs(together), 0.9)), 1e-3)
        edges = np.linspace(-spread, spread, BINS)
        for name, values in by_copy.items():
            axis.hist(np.clip(values, -spread, spread), edges, histtype="step", label=f"real over {name}")
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.set_xlabel(f"ln ratio of likelihoods, {method} [nats]", fontsize=9)
        axis.set_ylabel("images; beyond the ends in the last bins", fontsize=8)
    axes[1][-1].legend(*axes[1][0].get_legend_handles_labels(), fontsize=9, loc="upper left")
    for axis in [*axes[0][len(shown) :], *axes[1][len(scores) :]]:
        axis.set_axis_off()
    return figure


class Pairs(Protocol):
    """Attributes of `eorinfer.studies.equal_power.EqualPower` that are drawn."""

    @property
    def images(self) -> NDArray[np.float32]: ...
    @property
    def y(self) -> NDArray[np.float64]: ...
    @property
    def power(self) -> NDArray[np.float64]: ...
    @property
    def scatter(self) -> NDArray[np.float64]: ...
    @property
    def preference(self) -> dict[str, NDArray[np.float64]]: ...


def equal_power_figure(observable: Observable, conditions: Prior, k: NDArray[np.float64], pairs: Pairs) -> "Figure":
    """Draw a typical pair, its spectra, and by how much each method prefers the right conditions.

    The typical pair is the one that the first method tells apart as easily as the median pair.

    Parameters
    ----------
    observable, conditions
        Cells and unit of the images, and the parameters that they were made at.
    k
        Wavenumbers (K,) of the spectra's bins, 1/Mpc.
    pairs
        Pairs of images and scores, at least one.
    """
    figure, axes = subplots(
        1, 3 + len(pairs.preference), figsize=(3.2 * (3 + len(pairs.preference)), 3.2), layout="constrained"
    )
    first = next(iter(pairs.preference.values())).sum(1)
    typical = int(np.argsort(first)[len(first) // 2])
    pictures = pairs.images[typical, :, 0]
    pictures = pictures if pictures.ndim == 3 else pictures[..., 0]
    low, high = np.percentile(pictures, [0.5, 99.5])
    for axis, picture, y in zip(axes, pictures, pairs.y[typical], strict=False):
        drawn = axis.imshow(picture.T, origin="lower", vmin=low, vmax=high)
        named = zip(conditions.parameters[:2], y, strict=False)
        axis.set_title(", ".join(f"${p.label}$ = {value:.3g}" for p, value in named), fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes[:2].tolist(), shrink=0.8, label=observable.unit)
    bins = len(k)  # of the first channel
    for power, scatter, colour in zip(pairs.power[typical], pairs.scatter[typical], COLOURS, strict=False):
        axes[2].errorbar(k, power[:bins], scatter[:bins], color=colour, marker="o", ms=3, lw=1.2, capsize=2)
    logarithmic_k(axes[2])
    axes[2].set_yscale("log")
    axes[2].set_title("$P(k)$, scatter of one observation", fontsize=9)
    for axis, (method, preference) in zip(axes[3:], pairs.preference.items(), strict=True):
        spread = max(float(np.quantile(np.abs(preference), 0.95)), 1e-3)
        axis.hist(np.clip(preference.ravel(), -spread, spread), np.linspace(-spread, spread, BINS), histtype="step")
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.set_xlabel(f"ln p(own y) - ln p(other's y), {method} [nats]", fontsize=8)
        axis.set_ylabel("images; beyond the ends in the last bins", fontsize=8)
    return figure
