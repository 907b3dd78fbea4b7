"""Find the nearest box of the first world to boxes of another, for `worlds`: is it another sky at all?

Both have the same initial conditions, so that the difference of two boxes is known mode by mode. In units of the noise
it is what an observer finds who knows the initial conditions, and so a bound on what any statistic of the image finds.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from eorinfer import Run
from eorinfer.bank.rows import Rows

#: Boxes of each world, and the neutral fractions that these lie between; simulations for each; draws of the noise.
BOXES, NEUTRAL, SIMULATIONS, NOISES = 3, (0.1, 0.95), 36, 128
#: First step of the search in theta.
STEP = (-0.2, -0.1)


def nearest(run: Run, world: int) -> list[dict[str, Any]]:
    """Search the first world for the box nearest to each of some boxes of another one.

    Returns
    -------
    list
        For each box: theta, its neutral fraction, and the significance in σ of the difference at the same theta and at
        the nearest theta, over all modes, beside that of the box itself; theta and neutral fraction of the nearest one.
    """
    noise = _noise(run)
    return [_nearest_to(run, row, noise) for row in _chosen(run, world)]


def _nearest_to(run: Run, row: Rows, noise: Tensor) -> dict[str, Any]:
    worlds, bank, name, theta = run.config.worlds, run.bank, run.config.observable.name, row.theta[0]
    assert worlds is not None
    low, high = (np.array([getattr(p, end) for p in worlds.parameters]) for end in ("low", "high"))
    box = _observed(run, torch.from_numpy(bank.read(name, row)[0]))
    tried: list[tuple[float, list[float], float]] = []

    def significance(difference: Tensor) -> float:
        return float((difference.abs().square() / noise)[noise > 0].sum().sqrt())

    def apart(at: NDArray[np.float64]) -> float:
        at = np.clip(at, low, high)
        made = worlds.simulate(at, int(row.seed[0]), world=0)
        off = significance(_observed(run, torch.from_numpy(made[name])) - box)
        tried.append((off, at.tolist(), float(made["neutral_fraction"].mean())))
        return off

    simplex = np.stack([theta, theta + np.array([STEP[0], 0.0]), theta + np.array(STEP)])
    minimize(apart, theta, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": SIMULATIONS})
    off, best, neutral = min(tried)
    found = {
        "theta": theta.tolist(),
        "neutral_fraction": float(bank.read("neutral_fraction", row).mean()),
        "signal": significance(box),
        "same_theta": {"apart": tried[0][0], "neutral_fraction": tried[0][2]},
        "nearest": {"apart": off, "theta": best, "neutral_fraction": neutral},
    }
    print(worlds.names[int(row.world[0])], found, flush=True)
    return found


def _chosen(run: Run, world: int) -> list[Rows]:
    """Boxes of different realisations with a neutral fraction inside `NEUTRAL`, one row each."""
    rows = run.bank.rows().ok
    rows = rows[rows.world == world]
    neutral = run.bank.read("neutral_fraction", rows).mean((1, 2, 3, 4))
    rows = rows[(neutral > NEUTRAL[0]) & (neutral < NEUTRAL[1])]
    rows = rows[np.unique(rows.seed, return_index=True)[1]]
    return [rows[[i]] for i in np.linspace(0, len(rows) - 1, BOXES).astype(int).tolist()]


def _modes(cube: Tensor) -> Tensor:
    return torch.fft.fftn(cube[0], dim=(0, 1, 2))


def _observed(run: Run, clean: Tensor) -> Tensor:
    """Modes of a cube (1, *cells) as the survey sees it, without noise: the same noise is drawn without the cube."""
    both = [run.context.survey(x[None], torch.Generator().manual_seed(1))[0] for x in (clean, torch.zeros_like(clean))]
    return _modes(both[0] - both[1])


def _noise(run: Run) -> Tensor:
    """Power of the noise by mode, (*cells); 0 where nothing is measured."""
    generator = torch.Generator().manual_seed(1)
    empty = torch.zeros(NOISES, *run.config.observable.shape)
    power = torch.stack([_modes(cube).abs().square() for cube in run.context.survey(empty, generator)]).mean(0)
    return torch.where(power > 1e-6 * power.max(), power, torch.zeros(()))
