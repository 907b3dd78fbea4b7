"""Coverage of a posterior on the rows that its training held out, at the cost of some draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.errors import WorkError
from eorinfer.core.seeds import WorkStream, stream_seed
from eorinfer.npe.batched import draw_untruncated
from eorinfer.npe.candidates import Comparison
from eorinfer.npe.check import observed_rows
from eorinfer.npe.density import Ensemble
from eorinfer.npe.ensemble import log_density
from eorinfer.survey.base import Survey
from eorinfer.training.data import Part

#: Rows at most, draws of each, and draws inside the regions below which a row is left out.
ROWS, DRAWS, KEPT = 600, 200, 50
#: Rows below which shares mean nothing.
FEWEST = 10
#: Draws of the noise of each row by which the widths are judged.
NOISE_DRAWS = 4
#: Factors on the widths among which the best is chosen.
WIDENINGS = np.geomspace(1.0, 3.0, 56)
#: Central intervals that are counted.
LEVELS = (0.68, 0.95)
#: Realisations for each parameter below which a network rarely learns.
REALISATIONS = 50


@dataclass(frozen=True)
class HeldOutCoverage:
    """Coverage of central intervals on held-out rows.

    Attributes
    ----------
    rows
        Number of held-out rows.
    inside
        Share of them whose interval of 68% and of 95% holds the truth, by parameter.
    """

    rows: int
    inside: Mapping[str, tuple[float, float]]

    def line(self) -> str:
        """Say it, with the scatter that chance alone gives."""
        shares = "; ".join(f"{name} {low:.0%} and {high:.0%}" for name, (low, high) in self.inside.items())
        chance = " and ".join(f"{100 * (level * (1 - level) / self.rows) ** 0.5:.0f}" for level in LEVELS)
        return (
            f"{self.rows} held-out rows that chose nothing: the central 68% and 95% hold the truth in {shares} "
            f"(± {chance} points by chance); eorinfer validate tests it on fresh truths"
        )

    def content(self) -> dict[str, object]:
        """Give it for JSON."""
        return {"rows": self.rows, "inside": {name: list(shares) for name, shares in self.inside.items()}}


def held_out_coverage(folds: Sequence[tuple[Ensemble, Part]], survey: Survey, seed: int) -> HeldOutCoverage | None:
    """Count how often central intervals hold the truth of rows that training held out.

    Of a truncated posterior only rows inside its regions count, and draws inside them.

    Parameters
    ----------
    folds
        Posteriors just trained, and the rows that each held out.
    survey
        Observes them.
    seed
        Seed of noise and draws.

    Returns
    -------
    HeldOutCoverage or None
        None where fewer than `FEWEST` rows count.
    """
    below = [_shares_below(posterior, held, survey, ROWS // len(folds), seed) for posterior, held in folds]
    together = np.concatenate(below)
    if len(together) < FEWEST:
        return None
    return HeldOutCoverage(len(together), _inside(together, folds[0][0].prior.names))


def find_widening(folds: Sequence[tuple[Ensemble, Part]], survey: Survey, seed: int) -> float:
    """Find the factor on all widths under which held-out rows are most probable; 1 where that does not pay.

    One number for the whole posterior, which a few dozen rows determine. It pays where the rows gain more than one
    standard error, as a candidate does: chance asks for it every other time, and would always widen. It only widens:
    too narrow is the error of few simulations, and narrowing would trust the rows too much. Parameters as for
    `held_out_coverage`.
    """
    of_folds: list[NDArray[np.float64]] = []
    known = []
    for posterior, held in folds:
        rows, reads = _read(posterior, held, survey, ROWS // len(folds), seed, NOISE_DRAWS)
        if len(rows):
            theta = held.theta.numpy()[rows][:, None]
            tried = [[_log_density(posterior, theta, features, w) for features in reads] for w in WIDENINGS]
            of_folds.append(np.mean(tried, axis=1))
            known.append(held.theta[rows])
    log_q = torch.from_numpy(np.concatenate(of_folds, axis=1) if of_folds else np.empty((len(WIDENINGS), 0)))
    if log_q.shape[1] < FEWEST:
        return 1.0
    best = int(log_q.mean(1).argmax())
    return float(WIDENINGS[best]) if Comparison.from_losses(-log_q[0], -log_q[best], torch.cat(known)).pays else 1.0


def _log_density(
    posterior: Ensemble, theta: NDArray[np.float64], features: Sequence[Tensor], widening: float
) -> NDArray[np.float64]:
    """Log density (B,) at theta (B, 1, P) with the widths times `widening`."""
    before = [network.widening for network in posterior.networks]
    for network in posterior.networks:
        network.widening = widening
    values = log_density(posterior.networks, theta, features)[:, 0]
    for network, own in zip(posterior.networks, before, strict=True):
        network.widening = own
    return values


def _read(
    posterior: Ensemble, held: Part, survey: Survey, most: int, seed: int, draws: int = 1
) -> tuple[NDArray[np.int64], list[list[Tensor]]]:
    """Choose rows inside the regions, at most `most` of them, and let the networks read them in draws of the noise.

    Returns the rows (n,), and for each draw the features of each network.
    """
    rows = np.flatnonzero(posterior.contains(held.theta.numpy()))[:most]
    generator = torch.Generator().manual_seed(stream_seed(seed, WorkStream.HELD_OUT_NOISE))
    reads = []
    for _ in range(draws):
        blocks = [posterior.read(observed) for observed in observed_rows(held, rows, survey, generator)]
        reads.append([torch.cat(of_network) for of_network in zip(*blocks, strict=True)])
    return rows, reads


def _shares_below(posterior: Ensemble, held: Part, survey: Survey, most: int, seed: int) -> NDArray[np.float64]:
    """Shares (B, P) of draws below the truths of held-out rows, at most `most` of them."""
    rows, (features,) = _read(posterior, held, survey, most, seed)
    if not len(rows):
        return np.empty((0, held.theta.shape[1]))
    draws = draw_untruncated(posterior.networks, features, DRAWS, stream_seed(seed, WorkStream.HELD_OUT_NOISE))
    inside = posterior.contains(draws.reshape(-1, draws.shape[-1])).reshape(draws.shape[:2])
    counts = inside.sum(1)
    good = counts >= KEPT
    below: NDArray[np.float64] = ((draws < held.theta.numpy()[rows][:, None]) & inside[..., None])[good].sum(1)
    return below / counts[good][:, None]


def after_training(
    folds: Sequence[tuple[Ensemble, Part, Part]],
    survey: Survey,
    seed: int,
    seeds: NDArray[np.uint64],
    of_prior: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Say how good a posterior looks at no cost: its coverage on held-out rows, and a warning of too few simulations.

    Parameters
    ----------
    folds
        Posteriors just trained, rows that each held out and that chose its weights and form, and rows that it held out
        and that chose nothing: the first choose the widening too, the second are counted.
    survey, seed
        As for `held_out_coverage`.
    seeds
        Seed of the realisation of each row, those held out included.
    of_prior
        Whether the rows are drawn from the prior, perhaps truncated; a posterior covers no others as often as it says.

    Returns
    -------
    facts, lines
        Entries for the posterior's facts, and sentences.
    """
    realisations, lines = len(np.unique(seeds)), []
    facts: dict[str, Any] = {"realisations": realisations, "held_out": None, "widening": 1.0}
    coverage = None
    try:
        if of_prior:
            facts["widening"] = find_widening([(one, chooses) for one, chooses, _ in folds], survey, seed)
            for posterior, *_ in folds:
                for network in posterior.networks:
                    network.widening = facts["widening"]
            coverage = held_out_coverage([(one, judges) for one, _, judges in folds], survey, seed)
    except WorkError as error:  # the training is done, and is kept
        lines.append(f"WARNING: the coverage on held-out rows is not known: {error}")
    if facts["widening"] > 1:
        lines.append(f"all widths are multiplied by {facts['widening']:.2f}: so held-out rows are most probable")
    if coverage is not None:
        facts["held_out"] = coverage.content()
        lines.append(coverage.line())
    if (warning := too_few(realisations, len(folds[0][0].prior.parameters))) is not None:
        lines.append(warning)
    return facts, lines


def too_few(realisations: int, parameters: int) -> str | None:
    """Warn of a training on too few realisations; None where there are enough."""
    if realisations >= REALISATIONS * parameters:
        return None
    return (
        f"WARNING: {realisations} realisations for {parameters} parameter(s) are fewer than {REALISATIONS} each; "
        'posteriors of so few are often wrong: give more simulations, or [training] effort = "thorough", and validate'
    )


def _inside(below: NDArray[np.float64], names: list[str]) -> dict[str, tuple[float, float]]:
    """Shares of central intervals that hold the truth, from the shares (B, P) of draws below it."""
    low, high = ((np.abs(below - 0.5) <= level / 2).mean(0) for level in LEVELS)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
