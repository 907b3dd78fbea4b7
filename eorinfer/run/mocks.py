"""Mocks of an observation as files of their own: what falls on the detector, line by line, and what is observed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import simulators
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder
from eorinfer.core.hdf5 import open_hdf5, own_dataset
from eorinfer.core.own import own_key
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import item_seed, second_item_seed
from eorinfer.cubes.fits import write_images
from eorinfer.cubes.formats import text_of
from eorinfer.cubes.observation import Observation
from eorinfer.run.config import Config
from eorinfer.settings.survey import survey_key
from eorinfer.survey import build_survey
from simulators import Observable, SimulationError
from simulators.base import fingerprint_of


def write_mocks(config: Config, out: Path, n: int, seed: int, progress: Progress, *, fits: bool, plot: bool) -> None:
    """Write ``mock-000.h5`` and so on, at the config's theta or at draws from its prior.

    A file has ``observed`` with its axes, as an observation, and beside it each observable of the simulator, clean.
    What is there already is not made again; FITS files and the picture are made of the mocks that are there. Parameters
    are those of the command ``eorinfer lim``.

    Raises
    ------
    InputError
        If a mock that is there is of other parameters, another seed, another simulator or another survey.
    WorkError
        If a simulation fails.
    """
    make_folder(out)
    simulator, observable = config.simulator, config.observable
    survey = build_survey(config.tables.survey, observable)
    rows = simulator.rows_per_realisation
    made_by = _fingerprint(config)
    with progress.bar("mocks", n) as advance:
        for i in range(n):
            path = out / f"mock-{i:03d}.h5"
            # At one theta, maps of one seed would be the same map; at different ones they share a volume.
            own = item_seed(seed, i // rows if config.theta is None else i)
            theta = config.theta
            if theta is None:
                theta = config.prior.sample(1, np.random.default_rng([seed, i]))[0]
            if path.exists():
                observed = _values_of_same(path, observable, theta, own, made_by)
                made = _arrays(path, simulator.observables)
            else:
                which = {} if config.world is None else {"world": config.world}
                try:
                    made = simulator.simulate(theta, own, **which)
                except SimulationError as error:
                    raise WorkError(f"mock {i}: {error}") from error
                clean = torch.from_numpy(made[observable.name])[None]
                noise = torch.Generator().manual_seed(second_item_seed(seed, i))
                observed = survey(clean, noise)[0].numpy()
                Observation.from_observable(observable, observed, theta, own).write(path, made, made_by)
            if fits and not path.with_suffix(".fits").exists():
                write_images(path.with_suffix(".fits"), observable, observed, made)
            if plot and i == 0 and not path.with_suffix(".png").exists():
                from eorinfer.figures.lines import lines_figure
                from eorinfer.figures.style import write_figure

                write_figure(lines_figure(observable, observed, made), path.with_suffix(".png"))
            advance(1, path.name)


def _fingerprint(config: Config) -> str:
    """Hash what makes a mock, besides theta and seed."""
    survey = config.tables.survey
    made_by = {"simulator": simulators.fingerprint(config.simulator), "survey": survey_key(survey)}
    world = {} if config.world is None else {"world": config.world}
    return fingerprint_of(made_by | world | own_key(config.content(), config.modules, ("survey",)))


def _values_of_same(
    path: Path, observable: Observable, theta: NDArray[np.float64], seed: int, made_by: str
) -> NDArray[np.float32]:
    """Return the observed values (C, *cells) of a mock that is there already; refuse one that is not the one wanted."""
    there = Observation.read(path, observable)
    if there.theta is None or not np.array_equal(there.theta, theta) or there.seed != seed:
        raise InputError(f"{path}: is a mock of other parameters or another seed; give another --out")
    with open_hdf5(path) as file:
        # Those of older versions do not say.
        if text_of(file["observed"].attrs.get("made_by", made_by)) != made_by:
            raise InputError(f"{path}: is a mock of another [simulator] or [survey]; give another --out")
    return there.values


def _arrays(path: Path, observables: Sequence[Observable]) -> dict[str, NDArray[np.float32]]:
    """Read the clean arrays (C, *cells) of a mock by name."""
    with open_hdf5(path) as file:
        return {o.name: own_dataset(file, o.name)[()] for o in observables}
