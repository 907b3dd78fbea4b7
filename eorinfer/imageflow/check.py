"""Is an observation unlike the images that a field flow was trained on? What it is compared with, and the words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.observation import Observation
from eorinfer.imageflow.alarm import KnownImages, compare_scales
from eorinfer.imageflow.model import CELLS, ImageFlow, dequantised
from eorinfer.imageflow.training import ImageFlowTrainer, row_conditions
from eorinfer.training.data import validation_rows

#: Chance of warning of an observation that is like the images of training; about twice that is measured.
LEVEL = 0.01
#: Known images that are kept, at most, and cubes at once.
KNOWN, BATCH = 2000, 64


@dataclass(frozen=True)
class ScaleCheck:
    """Ln p(x | y) of an image at each scale, among those of known images.

    Attributes
    ----------
    names
        Names of the S scales, the coarsest first.
    p_scales
        Share of known images whose ln p is as low or as high, for each scale.
    sigmas
        Deviation of each scale, in standard deviations.
    """

    names: tuple[str, ...]
    p_scales: tuple[float, ...]
    sigmas: tuple[float, ...]

    @property
    def p(self) -> float:
        """p-value of all scales together (Bonferroni)."""
        return min(1.0, len(self.p_scales) * min(self.p_scales))

    @property
    def unlike(self) -> bool:
        """Whether to warn."""
        return self.p < LEVEL

    @property
    def deviations(self) -> tuple[tuple[str, float], ...]:
        """Scales by name, the one that is furthest off first."""
        return tuple(sorted(zip(self.names, self.sigmas, strict=True), key=lambda one: -abs(one[1])))

    def line(self) -> str:
        """The result in plain words, on one line."""
        if not self.unlike:
            return f"the observation is like the images that the flow was trained on (p = {self.p:.2g})"
        wrong = [
            f"{name} {abs(sigma):.1f} sigma too {'high' if sigma > 0 else 'low'}"
            for name, sigma in self.deviations
            if self.p_scales[self.names.index(name)] * len(self.names) < LEVEL
        ]
        return (
            "WARNING: the observation is unlike the images that the flow was trained on "
            f"(p = {max(self.p, 1e-9):.1g}): {', '.join(wrong)}. Do not trust this posterior before you know why: "
            "the unit, the noise level, foregrounds, or physics that the simulator lacks"
        )

    def content(self) -> dict[str, Any]:
        """Write the check for JSON."""
        scales = zip(self.names, self.p_scales, self.sigmas, strict=True)
        return {
            "unlike": self.unlike,
            "p": self.p,
            "scales": [{"name": name, "p": p, "deviation_sigma": sigma} for name, p, sigma in scales],
            "deviations_sigma": dict(self.deviations),
            "line": self.line(),
        }


def check_images(flow: ImageFlow, images: NDArray[np.float32], y: NDArray[np.float64]) -> list[ScaleCheck]:
    """Compare images (n, C, *cells) with those that the flow knows, each by itself.

    Parameters
    ----------
    flow
        Carries known images.
    images
        Observed ones.
    y
        (n, P) means of their posteriors.
    """
    assert flow.known is not None
    prepared = torch.cat([flow.prepared(Observation.of(flow.observable, image)) for image in images])
    found = compare_scales(log_prob_scales(flow, prepared, torch.from_numpy(y)), y, flow.known)
    names = scale_names(flow)
    return [
        ScaleCheck(names, tuple(p), tuple(d)) for p, d in zip(found.p.tolist(), found.deviation.tolist(), strict=True)
    ]


def check_observation(flow: ImageFlow, observation: Observation, y: NDArray[np.float64]) -> ScaleCheck | None:
    """Compare an observation at the mean y (P,) of its posterior; None for a flow that carries no known images.

    Raises
    ------
    InputError
        If the observation's shape, unit or axes do not fit.
    """
    observation.check(flow.observable, "observation")
    return check_images(flow, observation.values[None], y[None])[0] if flow.known is not None else None


def scale_names(flow: ImageFlow) -> tuple[str, ...]:
    """Name the terms of ln p, the coarsest first."""
    scales = flow.network.scales
    if len(scales) == 1:
        return ("ln p",)
    return tuple(f"ln p at {' x '.join(map(str, cells))} cells" for cells in scales)


def log_prob_scales(flow: ImageFlow, images: torch.Tensor, y: torch.Tensor) -> NDArray[np.float64]:
    """Ln p(x | y) by scale (n, S) of prepared images (n, C, *cells) at conditions y (n, P)."""
    part = max(1, CELLS // images[0].numel())
    with torch.no_grad():
        parts = zip(images.split(part), y.split(part), strict=True)
        return torch.cat([flow.network.log_prob_scales(*one) for one in parts]).numpy()


def known_images(flow: ImageFlow, trainer: ImageFlowTrainer, bank: Bank, rows: Rows, seed: int) -> KnownImages:
    """Ln p by scale, at their own conditions, of the images that training held out.

    Parameters
    ----------
    flow
        Just trained.
    trainer, bank, rows
        Trainer of the flow, bank, and rows of its training.
    seed
        Seed of the noise, and of the choice if there are more than `KNOWN`.
    """
    held = rows[validation_rows(rows.seed, trainer.validation_fraction)]
    y = row_conditions(bank, held, trainer.prior, flow.settings)
    sliced = flow.settings.image == "slices"
    slices = trainer.observable.shape[-1] if sliced else 1
    # A slice has a condition of its own only where that is a neutral fraction.
    y = y.expand(-1, slices, -1)
    box = np.unique(held.seed, return_inverse=True)[1]
    most = max(1, KNOWN // len(held)) if sliced else 1
    held_numbers = np.random.default_rng(seed).permutation(len(held))[:KNOWN]
    generator = torch.Generator().manual_seed(seed)
    logs, conditions, realisations = [], [], []
    for start in range(0, len(held_numbers), BATCH):
        some = np.sort(held_numbers[start : start + BATCH])
        clean = torch.from_numpy(bank.read(trainer.observable.name, held[some]))
        with torch.no_grad():
            observed = trainer.survey(clean, generator)
        images = observed.movedim(-1, 1) if sliced else observed[:, None]
        places = torch.randperm(slices, generator=generator)[:most]
        images = dequantised(images[:, places].flatten(0, 1), flow.dequantisation, generator)
        own = y[torch.from_numpy(some)][:, places].flatten(0, 1)
        logs.append(log_prob_scales(flow, images, own))
        conditions.append(own.numpy())
        realisations.append(np.repeat(box[some], len(places)))
    whole = KnownImages(np.concatenate(logs), np.concatenate(conditions), np.concatenate(realisations))
    # Outside of what training saw its density means nothing.
    return whole.of(flow.conditions.contains(whole.y))
