"""Held-out images of different conditions whose power spectra agree: can an image flow tell which is which?"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from eorinfer.core.arrays import as_theta
from eorinfer.core.seeds import StudyStream, stream_seed
from eorinfer.imageflow.equal_power import equal_power_pairs
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood.emulator import Spectra, train_emulator
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.run.run import Run
from eorinfer.studies.image_samples import RealImages
from eorinfer.summaries.power import build_power_spectrum

#: Held-out images among which pairs are looked for, and survey draws that their spectra are averaged over.
CANDIDATES, DRAWS = 1000, 8
#: At least one condition of a pair differs by this share of the range of training.
APART = 0.1
#: Training images of which the power spectrum's likelihood is learned, where the run has none of its own.
LEARNED = 3000
#: Ln p(x | y) in nats of images (n, C, *cells), each at its own condition (n, P): (n,).
ImageLogLikelihood = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class EqualPower:
    """Pairs of images, and what likelihoods say of them.

    Attributes
    ----------
    images
        (n, 2, C, *cells), each observed once.
    y
        (n, 2, P) their conditions.
    power
        (n, 2, D) their spectra, averaged over the noise.
    scatter
        (n, 2, D) of one observation.
    chi2
        (n,) of the difference of their spectra.
    preference
        Preference (n, 2) by method: ln p(x | own y) - ln p(x | the other's y), nats.
    candidates
        Images among which they were found.
    """

    images: NDArray[np.float32]
    y: NDArray[np.float64]
    power: NDArray[np.float64]
    scatter: NDArray[np.float64]
    chi2: NDArray[np.float64]
    preference: dict[str, NDArray[np.float64]]
    candidates: int

    def content(self, names: list[str]) -> dict[str, Any]:
        """Write the pairs for ``beyond.json``; `names` are those of the conditions."""
        n, bins = len(self.chi2), self.power.shape[-1]
        content: dict[str, Any] = {"pairs": n, "candidates": self.candidates, "apart": APART, "bins": bins}
        if n:
            difference = np.median(np.abs(self.y[:, 0] - self.y[:, 1]), axis=0)
            content["chi2"] = {"median": float(np.median(self.chi2)), "largest": float(self.chi2.max())}
            content["difference"] = dict(zip(names, difference.tolist(), strict=True))
            content["methods"] = {name: summarise(preference) for name, preference in self.preference.items()}
        return content


def summarise(preference: NDArray[np.float64]) -> dict[str, Any]:
    """Summarise how well ln p(x | own y) - ln p(x | the other's y) (n, 2) tells the images of a pair apart.

    The AUC is that of ln p(x | first y) - ln p(x | second y) for images of the first against those of the second.
    """
    low, median, high = np.quantile(preference, [0.16, 0.5, 0.84])
    auc = mannwhitneyu(preference[:, 0], -preference[:, 1]).statistic / len(preference) ** 2
    return {
        "preferred": float((preference > 0).mean()),
        "auc": float(auc),
        "difference": {"low": float(low), "median": float(median), "high": float(high)},
    }


def find_equal_power(
    flow: ImageFlow, opened: Run, source: RealImages, methods: dict[str, ImageLogLikelihood], n: int, seed: int
) -> EqualPower:
    """Find n pairs at most, and each method's preferences.

    Parameters
    ----------
    flow
        Trained on the run's images.
    opened, source
        The run, and its images.
    methods
        Log-likelihoods of the methods.
    n
        Pairs, at most; fewer where there are no more.
    seed
        Seed of the choice.
    """
    spectrum = build_power_spectrum(flow.observable, opened.tables.power_spectrum.whole)
    channels, counts = flow.observable.shape[0], spectrum.counts.numpy()
    chosen = source.choose(CANDIDATES)
    draws = source.measured(chosen, DRAWS, lambda x: spectrum(x).flatten(1))
    power = draws.mean(1)
    # Of Gaussian modes, which is the least that a spectrum scatters by; where noise does more, by that.
    gaussian = power / np.sqrt(np.tile(counts, channels))
    scatter = np.maximum(gaussian, draws.std(1, ddof=1))
    apart = APART * (flow.conditions.high - flow.conditions.low)
    pairs = equal_power_pairs(power, scatter, chosen.y, apart, n, stream_seed(seed, StudyStream.EQUAL_POWER_PAIRS))
    both = np.stack([pairs.first, pairs.second], axis=1)
    images = source.images(chosen[both.ravel()]).reshape(*both.shape, *flow.observable.shape)
    y = chosen.y[both]
    preference = {
        name: np.stack([log_l(images[:, i], y[:, i]) - log_l(images[:, i], y[:, 1 - i]) for i in (0, 1)], axis=1)
        for name, log_l in methods.items()
        if len(both)
    }
    return EqualPower(images, y, power[both], scatter[both], pairs.chi2, preference, len(power))


def spectrum_likelihood(flow: ImageFlow, opened: Run, source: RealImages, seed: int) -> PowerSpectrumLikelihood:
    """Train the likelihood of the power spectrum of the flow's images given its conditions.

    The run's own emulator where its images and parameters are the flow's; else one that is trained on spectra of the
    images that the flow was trained on.

    Raises
    ------
    WorkError
        If there are too few realisations.
    """
    if flow.settings.image == "whole" and flow.conditions.names == opened.config.prior.names:
        return opened.likelihood(opened.training_rows(opened.observe()))
    spectrum = build_power_spectrum(flow.observable, opened.tables.power_spectrum.whole)
    chosen = source.choose(LEARNED, held_out=False)
    power = source.measured(chosen, 1, lambda x: spectrum(x).flatten(1))
    spectra = Spectra(as_theta(chosen.y), chosen.seed, torch.from_numpy(power))
    folder = Path(tempfile.mkdtemp(prefix="emulator-", dir=opened.out))
    try:
        emulator = train_emulator(
            spectra,
            flow.conditions,
            folder=folder,
            seed=stream_seed(seed, StudyStream.EMULATOR),
            progress=opened.progress,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return PowerSpectrumLikelihood(emulator, spectrum)
