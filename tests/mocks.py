"""Shared by tests of the separation: a bank of small line-intensity mocks."""

import atexit
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import plan_round
from eorinfer.separation.data import Split, find_targets, split
from eorinfer.separation.model import SeparatorSpec
from eorinfer.settings.separation import SeparationSettings
from eorinfer.settings.survey import WhiteNoise
from simulators import build

#: Slabs of 32 x 32 pixels.
SLAB: dict[str, Any] = {
    "kind": "lim-mock",
    "pixels": 32,
    "pixel": 0.8,
    "mass_min": 11.5,
    "box_length": 210.0,
    "cell": 5.0,
    "rows_per_realisation": 8,
}
#: Noise of a pixel, about that of the deep fields, nW/m^2/sr.
NOISE = 6e-3


@lru_cache
def mock_bank(n: int = 96) -> Bank:
    """A bank of slabs, filled in this process, once for all tests."""
    simulator = build(SLAB)
    folder = Path(mkdtemp(prefix="eorinfer-mocks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bank = Bank.create(folder / "bank", simulator)
    theta = np.random.default_rng(1).uniform(-0.1, 0.1, (n, 2))
    plan = bank.add(plan_round(0, "mocks", theta, simulator, 5))
    for shard in range(plan.shards):
        rows = range(n)[plan.rows(shard)]
        made = [simulator.simulate(plan.theta[i], int(plan.seed[i])) for i in rows]
        bank.write_shard(
            plan,
            shard,
            status=["ok"] * len(made),
            message=[""] * len(made),
            seconds=[0.1] * len(made),
            arrays={name: np.stack([m[name] for m in made]) for name in made[0]},
        )
    return bank


def parts(bank: Bank) -> Split:
    """Its rows for training, validation and test."""
    return split(bank.rows().ok, 0.1, 0.1)


def separator_spec(bank: Bank, noise: float = NOISE, **settings: Any) -> SeparatorSpec:
    """A small separator of both lines."""
    chosen = SeparationSettings(**({"width": 4, "widest": 8, "batch_size": 8, "steps": 40, "flow_steps": 4} | settings))
    survey = WhiteNoise(sigma=noise)
    return SeparatorSpec(bank.observables[0], find_targets(bank.observables, chosen.targets), survey, chosen, {})
