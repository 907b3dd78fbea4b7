"""Check whether an observation is like the images that an image flow was trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.alarm import KnownImages, compare_scales
from eorinfer.imageflow.conditions import spread_evenly
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import CELLS, ImageFlow, dequantised
from eorinfer.imageflow.training import ImageFlowTrainer, row_conditions
from eorinfer.training.data import validation_rows
from eorinfer.validation.check import DISTRUST, FEWEST, deviation_words, is_far, smallest_p, weak_line

#: Chance of a false alarm; measured false alarms are about twice as frequent.
LEVEL = 0.01
#: Number of known images kept, at most, of a diffusion, whose density is slow, and of cubes observed at once.
KNOWN, KNOWN_OF_DIFFUSION, BATCH = 2000, 300, 64


@dataclass(frozen=True)
class ScaleCheck:
    """Result of comparing the ln p(x | y) of an image with that of known images, at each of S scales.

    Attributes
    ----------
    names
        Names of the scales, the coarsest first.
    p_scales
        Two-sided p-value at each scale.
    sigmas
        Deviation of ln p at each scale, in standard deviations of the known images.
    realisations
        Number of realisations that training held out.
    """

    names: tuple[str, ...]
    p_scales: tuple[float, ...]
    sigmas: tuple[float, ...]
    realisations: int

    @property
    def p(self) -> float:
        """Return the p-value of all scales together (Bonferroni); 0 where one is not a number, which is an alarm."""
        scales = np.array(self.p_scales)
        return float(min(1.0, len(scales) * scales.min())) if np.isfinite(scales).all() else 0.0

    @property
    def unlike(self) -> bool:
        """Tell whether to warn."""
        return self.p < LEVEL or (self.weak and is_far(self.p, self.deviations))

    @property
    def weak(self) -> bool:
        """Tell whether too few realisations were held out to call the observation like the images of training."""
        return self.realisations < FEWEST

    @property
    def deviations(self) -> tuple[tuple[str, float], ...]:
        """Return names and deviations of the scales, the largest deviation first."""
        return tuple(sorted(zip(self.names, self.sigmas, strict=True), key=lambda scale: -abs(scale[1])))

    def line(self) -> str:
        """Write the result in words, on one line."""
        if not self.unlike:
            like = f"the observation is like the images that the flow was trained on (p = {self.p:.2g})"
            return weak_line(self.realisations, len(self.names)) if self.weak else like
        wrong = [
            deviation_words(name, sigma)
            for name, sigma in self.deviations
            if self.p_scales[self.names.index(name)] * len(self.names) < LEVEL or self.p >= LEVEL
        ]
        if not np.isfinite(self.p_scales).all():
            wrong = ["its ln p is not a number"]
        few = f", only {self.realisations} realisations held out" if self.weak else ""
        return (
            "WARNING: the observation is unlike the images that the flow was trained on "
            f"(p = {max(self.p, 1e-9):.1g}{few}): {', '.join(wrong)}. {DISTRUST}"
        )

    def content(self) -> dict[str, object]:
        """Return the result ready for JSON."""
        scales = zip(self.names, self.p_scales, self.sigmas, strict=True)
        return {
            "unlike": self.unlike,
            "weak": self.weak,
            "p": self.p,
            "realisations": self.realisations,
            "smallest_p": smallest_p(self.realisations, len(self.names)),
            "scales": [{"name": name, "p": p, "deviation_sigma": sigma} for name, p, sigma in scales],
            "deviations_sigma": dict(self.deviations),
            "line": self.line(),
        }


def check_images(flow: ImageFlow, images: NDArray[np.float32], y: NDArray[np.float64]) -> list[ScaleCheck]:
    """Compare each of n images with the known images of a flow.

    Parameters
    ----------
    flow
        Image flow that carries known images.
    images
        (n, C, *cells) observed images.
    y
        (n, P) means of their posteriors.
    """
    assert flow.known is not None
    prepared = torch.cat([flow.prepared(Observation.from_observable(flow.observable, image)) for image in images])
    comparison = compare_scales(log_prob_scales(flow, prepared, torch.from_numpy(y)), y, flow.known)
    names, rows = flow.network.terms, zip(comparison.p.tolist(), comparison.deviation.tolist(), strict=True)
    realisations = len(np.unique(flow.known.realisation))
    return [ScaleCheck(names, tuple(p), tuple(deviation), realisations) for p, deviation in rows]


def check_observation(flow: ImageFlow, observation: Observation, y: NDArray[np.float64]) -> ScaleCheck | None:
    """Compare an observation at the mean y (P,) of its posterior; None for a flow that carries no known images.

    Raises
    ------
    InputError
        See `ImageFlow.check`.
    """
    flow.check(observation)
    return check_images(flow, observation.values[None], y[None])[0] if flow.known is not None else None


def log_prob_scales(flow: ImageFlow, images: torch.Tensor, y: torch.Tensor) -> NDArray[np.float64]:
    """Compute ln p(x | y) by scale (n, S), in nats, of prepared images (n, C, *cells) at conditions y (n, P)."""
    size = max(1, CELLS // images[0].numel())
    with torch.no_grad():
        batches = zip(images.split(size), y.split(size), strict=True)
        return torch.cat([flow.network.log_prob_scales(*batch) for batch in batches]).numpy()


def known_images(flow: ImageFlow, trainer: ImageFlowTrainer, bank: Bank, rows: Rows, seed: int) -> KnownImages:
    """Compute ln p by scale of the images that training held out, each at its own condition.

    Parameters
    ----------
    flow
        Image flow, just trained.
    trainer, bank, rows
        Trainer of the flow, and the rows of a bank on which it was trained.
    seed
        Seed of the noise, and of the choice where there are more images than are kept.
    """
    limit = KNOWN_OF_DIFFUSION if isinstance(flow.network, DiffusionFlow) else KNOWN
    images, y, realisation = held_out_images(flow, trainer, bank, rows, seed, limit)
    whole = KnownImages(log_prob_scales(flow, images, torch.from_numpy(y)), y, realisation)
    # Outside the range of conditions in training the density means nothing.
    return whole.select(flow.conditions.contains(whole.y))


def held_out_images(
    flow: ImageFlow, trainer: ImageFlowTrainer, bank: Bank, rows: Rows, seed: int, limit: int, evenly: bool = False
) -> tuple[torch.Tensor, NDArray[np.float64], NDArray[np.int64]]:
    """Observe images (n, C, *cells), `limit` at most, that training held out; other parameters as of `known_images`.

    Parameters
    ----------
    evenly
        Choose them evenly in the (mean) neutral fraction that they are conditioned on. Rows of a bank are not, since
        their parameters are drawn from the prior: many boxes are all neutral.

    Returns
    -------
    tuple
        Images, their conditions (n, P), and numbers (n,) of their realisations.
    """
    held = rows[validation_rows(rows.seed, trainer.validation_fraction)]
    sliced = flow.settings.image == "slices"
    slices = trainer.observable.shape[-1] if sliced else 1
    # A slice has a condition of its own only where that is a neutral fraction.
    y = row_conditions(bank, held, trainer.prior, flow.settings).expand(-1, slices, -1).numpy()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    if evenly:
        chosen = spread_evenly(y.mean(-1).ravel(), limit, rng)
    else:
        of_each = rng.permuted(np.tile(np.arange(slices), (len(held), 1)), axis=1)[:, : max(1, limit // len(held))]
        some = rng.permutation(len(held))[:limit]
        chosen = (some[:, None] * slices + of_each[some]).ravel()
    numbers, places = np.divmod(np.sort(chosen), slices)
    found = []
    for start in range(0, len(numbers), BATCH):
        batch = slice(start, start + BATCH)
        few, of = np.unique(numbers[batch], return_inverse=True)
        clean = torch.from_numpy(bank.read(trainer.observable.name, held[few]))
        with torch.no_grad():
            observed = trainer.survey(clean, generator)
        images = observed.movedim(-1, 1) if sliced else observed[:, None]
        found.append(dequantised(images[of, places[batch]], flow.dequantisation, generator))
    box = np.unique(held.seed, return_inverse=True)[1]
    return torch.cat(found), y[numbers, places], box[numbers]
