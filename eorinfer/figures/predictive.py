"""Posterior-predictive check: P(k) of simulations at posterior samples beside the observed one."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.core.observation import Observation
from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import subplots
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.power import build_power_spectrum, dimensionless
from eorinfer.survey.base import Survey
from simulators import Observable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def predictive_figure(
    clean: NDArray[np.float32],
    observation: Observation,
    survey: Survey,
    observable: Observable,
    settings: PowerSpectrumSettings,
    seed: int,
) -> "tuple[Figure, dict[str, Any]]":
    """Draw the check, one panel for each channel.

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

    Returns
    -------
    figure, check
        Figure, and for ``summary.json`` the number of simulations and the share of bins in which the observed power
        is inside the central 95%; about 0.95 is good.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    spectrum = build_power_spectrum(observable, settings)
    generator = torch.Generator().manual_seed(seed)
    dimension = len(observable.cells)
    with torch.no_grad():
        simulated = survey(torch.from_numpy(clean), generator)
        bands = dimensionless(spectrum.k, spectrum(simulated), dimension).numpy()
        observed = dimensionless(spectrum.k, spectrum(torch.from_numpy(observation.values[None])), dimension)[0].numpy()
    low95, low68, middle, high68, high95 = np.quantile(bands, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0)
    k = spectrum.k.numpy()
    channels = len(observable.channels)
    figure: Figure
    figure, axes = subplots(1, channels, figsize=(1.2 + 3.4 * channels, 3.4), sharey=True, squeeze=False)
    for c, axis in enumerate(axes[0]):
        axis.fill_between(k, low95[c], high95[c], color=COLOURS[0], alpha=0.2, lw=0, label="95% of simulations")
        axis.fill_between(k, low68[c], high68[c], color=COLOURS[0], alpha=0.4, lw=0, label="68%")
        axis.plot(k, middle[c], color=COLOURS[0], lw=1.2)
        axis.plot(k, observed[c], "ko", ms=4, label="observed")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        if (observed > 0).all() and (low95 > 0).all():
            axis.set_yscale("log")
        axis.set_xlabel(r"$k$ [Mpc$^{-1}$]")
        name = "z" if observable.axes[0] == "redshift" else observable.axes[0]
        axis.set_title(f"{name} = {observable.channels[c]:g}", fontsize=11)
    unit = f" [{observable.unit}$^2$]" if observable.unit else ""
    axes[0, 0].set_ylabel(rf"$\Delta^2(k)${unit}")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"observed power and {len(clean)} simulations at posterior samples", fontsize=11)
    figure.tight_layout()
    inside = (observed >= low95) & (observed <= high95)
    return figure, {"simulations": len(clean), "bins_inside_95": float(inside.mean())}
