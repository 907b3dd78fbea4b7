"""Mocks of an observation as files of their own: what falls on the detector, line by line, and what is observed."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import item_seed, second_item_seed
from eorinfer.cubes.fits import write_images
from eorinfer.cubes.observation import Observation
from eorinfer.run.config import Config
from eorinfer.survey import build_survey
from simulators import Observable, SimulationError


def write_mocks(config: Config, out: Path, n: int, seed: int, progress: Progress, *, fits: bool, plot: bool) -> None:
    """Write ``mock-000.h5`` and so on, at the config's theta or at draws from its prior.

    A file has ``observed`` with its axes, as an observation, and beside it each observable of the simulator, clean.
    What is there already is not made again. Parameters are those of the command ``eorinfer lim``.

    Raises
    ------
    InputError
        If a mock that is there is of other parameters, another seed or another simulator.
    WorkError
        If a simulation fails.
    """
    make_folder(out)
    simulator, observable = config.simulator, config.observable
    survey = build_survey(config.tables.survey, observable)
    rows = simulator.rows_per_realisation
    with progress.bar("mocks", n) as advance:
        for i in range(n):
            path = out / f"mock-{i:03d}.h5"
            # At one theta, maps of one seed would be the same map; at different ones they share a volume.
            own = item_seed(seed, i // rows if config.theta is None else i)
            theta = config.theta
            if theta is None:
                theta = config.prior.sample(1, np.random.default_rng([seed, i]))[0]
            if path.exists():
                _refuse_other(path, observable, theta, own)
            else:
                which = {} if config.world is None else {"world": config.world}
                try:
                    made = simulator.simulate(theta, own, **which)
                except SimulationError as error:
                    raise WorkError(f"mock {i}: {error}") from error
                clean = torch.from_numpy(made[observable.name])[None]
                noise = torch.Generator().manual_seed(second_item_seed(seed, i))
                observed = survey(clean, noise)[0].numpy()
                if fits:
                    write_images(path.with_suffix(".fits"), observable, observed, made)
                if plot and i == 0:
                    from eorinfer.figures.lines import lines_figure
                    from eorinfer.figures.style import write_figure

                    write_figure(lines_figure(observable, observed, made), path.with_suffix(".png"))
                # Last: what is there counts as done.
                Observation.from_observable(observable, observed, theta, own).write(path, made)
            advance(1, path.name)


def _refuse_other(path: Path, observable: Observable, theta: NDArray[np.float64], seed: int) -> None:
    """Refuse a mock that is there already and is not the one that is wanted."""
    there = Observation.read(path, observable)
    if there.theta is None or not np.array_equal(there.theta, theta) or there.seed != seed:
        raise InputError(f"{path}: is a mock of other parameters or another seed; give another --out")
