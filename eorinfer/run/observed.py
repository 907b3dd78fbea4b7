"""The observation of a run: what a telescope saw, a clean cube that the survey observes, or a mock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.targets import write_true_targets
from eorinfer.core.errors import InputError, WorkError, naming
from eorinfer.core.files import file_digest, read_json, write_json
from eorinfer.core.hdf5 import open_hdf5, read_array
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.formats import format_of
from eorinfer.cubes.mask import order_note
from eorinfer.cubes.observation import Observation
from eorinfer.cubes.saved_21cmfast import SavedCube, is_21cmfast, read_21cmfast
from eorinfer.run.config import Config
from simulators import SimulationError
from simulators.reionization.lightcone import LightCone
from simulators.worlds import first_world

if TYPE_CHECKING:
    from eorinfer.run.context import RunContext

#: What was read for the observation, in the run folder.
RECORD = "observation.json"
#: Relative difference at which a box of 21cmFAST has another redshift or other cells than the config's.
TOLERANCE = 1e-4


def read_observed(context: "RunContext") -> Observation:
    """Read the config's file, or observe its clean cube with noise that the seed fixes; say what was taken.

    Raises
    ------
    InputError
        If a file cannot be read, or is of another cube than the config's.
    """
    config, settings = context.config, context.config.tables.observation
    if settings.file is not None:
        observation = observed_file(config, context.mask)
        context.progress.line(f"observation: {settings.file} is taken as what the telescope saw; no noise is added")
        for note in observation.notes:
            context.progress.line(f"observation: {note}")
    else:
        observation = _observe_clean(context)
    if settings.mask is not None and not settings.nan_masks:
        of_mask = order_note(settings.mask, settings.file or settings.clean_files[0], config.observable)
        if of_mask is not None:
            context.progress.line(f"observation: {of_mask}")
    return observation


def observed_file(config: Config, mask: NDArray[np.bool_] | None) -> Observation:
    """Read ``[observation] file``, without the cells (C, *cells) of the run's mask.

    Raises
    ------
    InputError
        If it cannot be read or does not fit, or has a mask of its own, with which nothing would be simulated.
    """
    named = config.tables.observation.file
    assert named is not None
    path = config.folder / named
    observation = Observation.read(path, config.observable, mask)
    own = 0 if observation.mask is None else int(observation.mask.sum()) - (0 if mask is None else int(mask.sum()))
    if own:
        raise InputError(
            f"{path}: has a mask, of {own} cells that [observation] mask has not; simulations must have the same: "
            f'give [observation] mask = "{named}"'
        )
    return observation


def mock_observation(context: "RunContext", theta: NDArray[np.float64]) -> Observation:
    """Simulate at theta with a seed that no row of the bank has, and observe it once.

    Raises
    ------
    WorkError
        If it could not be simulated.
    """
    config, observable = context.config, context.config.observable
    taken = {seed for plan in context.bank.plans() for seed in plan.seed.tolist()}
    taken |= context.preprocessing.seeds() if context.preprocessing else set()
    attempt = 0
    while (seed := run_seed(config.tables.seed, RunStream.OBSERVATION, attempt)) in taken:
        attempt += 1
    result = context.simulations.one(theta, seed, config.world)
    if result.status != "ok":
        raise WorkError(f"the mock observation could not be simulated: {result.status}, {result.message}")
    context.simulations.try_seed(theta, seed, seed + 1, config.world, result)
    observed = _seen(context, result.arrays[observable.name])
    if targets := config.targets:
        write_true_targets(context.folder, targets, theta, result.arrays, config.simulator.observables)
    return Observation.from_observable(observable, observed, theta, seed, context.mask)


def refuse_changed(context: "RunContext") -> None:
    """Refuse to continue where a file has changed since the observation was read from it.

    Raises
    ------
    InputError
        With the date of the change and that of the reading.
    """
    path = context.folder / RECORD
    if not path.exists():
        return
    record = read_json(path)
    moved = {file.name: file for file in _files(context.config)}
    for name, before in record["files"].items():
        file = Path(name) if Path(name).is_file() else moved.get(Path(name).name, Path(name))
        if file.is_file() and file.stat().st_mtime != before["modified"] and file_digest(file) != before["sha256"]:
            raise InputError(
                f"{file}: changed on {_date(file.stat().st_mtime)}, after this run read it on {_date(record['read'])} "
                f"(then it was of {_date(before['modified'])}); give another --out (and [bank] path to share the "
                "simulations), or put the old file back"
            )


def record_files(context: "RunContext") -> None:
    """Note which files an observation is made of, and when they were read."""
    paths = list(_files(context.config))
    if files := {str(path): {"modified": path.stat().st_mtime, "sha256": file_digest(path)} for path in paths}:
        write_json(context.folder / RECORD, {"read": datetime.now().timestamp(), "files": files})


def _files(config: Config) -> Iterator[Path]:
    settings = config.tables.observation
    named = [settings.file, *settings.clean_files, None if settings.nan_masks else settings.mask]
    yield from ((config.folder / path).resolve() for path in named if path is not None)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


# -- clean cubes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CleanCube:
    """A cube without noise, as `[observation] clean` names it.

    Attributes
    ----------
    values
        Cube (C, *cells) in the unit of the config's observable.
    theta, seed
        Parameters (P,) and seed that the file gives, or None.
    notes
        What was taken or converted, a line each.
    """

    values: NDArray[np.float32]
    theta: NDArray[np.float64] | None
    seed: int | None
    notes: tuple[str, ...]


def read_clean(config: Config) -> CleanCube:
    """Read ``[observation] clean``.

    Raises
    ------
    InputError
        If a file cannot be read, or is of another cube than the config's.
    """
    files = [config.folder / path for path in config.tables.observation.clean_files]
    if all(is_21cmfast(path) for path in files):
        return _of_21cmfast(config, files)
    if len(files) > 1:
        raise InputError(f"{config.file}: [observation] clean: a list is for boxes of 21cmFAST, one a redshift")
    read = Observation.read(files[0], config.observable)
    if (beside := _clean_beside(files[0], config)) is not None:
        note = f'the clean "{config.observable.name}" is taken, beside the observed cube of a mock'
        return CleanCube(beside, read.theta, read.seed, (note,))
    return CleanCube(read.values, read.theta, read.seed, tuple(read.notes))


def _observe_clean(context: "RunContext") -> Observation:
    """Observe a clean cube once, with the noise of the run's mock."""
    config, progress = context.config, context.progress
    clean = read_clean(config)
    files = config.tables.observation.clean_files
    shown = ", ".join(path.name for path in files)
    progress.line(f"observation: {shown} is taken as a clean cube; {added_to_clean(config)}")
    for note in clean.notes:
        progress.line(f"observation: {note}")
    observed = _seen(context, clean.values)
    return Observation.from_observable(config.observable, observed, clean.theta, clean.seed, context.mask)


def _seen(context: "RunContext", clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Send a clean cube (C, *cells) through the survey, with the noise of the run's mock."""
    import torch

    generator = torch.Generator().manual_seed(run_seed(context.config.tables.seed, RunStream.OBSERVATION_NOISE))
    return context.survey(torch.from_numpy(np.array(clean, order="C"))[None], generator)[0].numpy()


def _clean_beside(path: Path, config: Config) -> NDArray[np.float32] | None:
    """Return the clean cube that a mock of `eorinfer lim` has beside the observed one; None in other files."""
    if format_of(path) not in (".h5", ".hdf5"):
        return None
    with open_hdf5(path) as file:
        if config.observable.name not in file:
            return None
        cube = read_array(file, config.observable.name)
    if cube.shape != config.observable.shape:
        raise InputError(f"{path}: {config.observable.name} has shape {cube.shape}, expected {config.observable.shape}")
    return cube.astype(np.float32)


def added_to_clean(config: Config) -> str:
    """Say what is added to a clean cube."""
    kind = config.tables.survey.kind
    if kind == "none":
        return "nothing is added, since there is no [survey]"
    return f'[survey] kind = "{kind}" observes it with the noise of seed = {config.tables.seed}'


def _of_21cmfast(config: Config, files: list[Path]) -> CleanCube:
    """Put saved cubes into the shape of the config's, with their parameters and seed.

    Raises
    ------
    InputError
        If they are other cubes; the message shows both.
    """
    cubes, observable = [read_21cmfast(path) for path in files], config.observable
    if observable.unit != "mK":
        raise InputError(f"{files[0]}: is brightness temperature in mK, the config's cubes are in {observable.unit!r}")
    if cubes[0].distances is not None:
        values, notes = _light_cone(config, files[0], cubes[0])
    else:
        values, notes = _boxes(config, files, cubes), []
    names = config.prior.names
    known = all(name in cubes[0].parameters for name in names)
    theta = np.array([cubes[0].parameters[name] for name in names]) if known else None
    return CleanCube(values, theta, cubes[0].seed, tuple(notes))


def _boxes(config: Config, files: list[Path], cubes: list[SavedCube]) -> NDArray[np.float32]:
    observable = config.observable
    channels: list[NDArray[Any]] = []
    if observable.axes[0] != "redshift" or observable.coordinates:
        raise InputError(f"{files[0]}: is a box at one redshift, the config's cubes are not ({observable.name})")
    for redshift in observable.channels:
        near = [c.redshift is not None and abs(c.redshift - redshift) <= TOLERANCE * redshift for c in cubes]
        if not any(near):
            there = ", ".join(f"{cube.redshift:g}" for cube in cubes if cube.redshift is not None)
            raise InputError(f"{files[0]}: redshifts is [{there}], expected {list(observable.channels)}")
        path, cube = files[near.index(True)], cubes[near.index(True)]
        if cube.values.shape != observable.cells:
            raise InputError(f"{path}: the cube has shape {cube.values.shape}, expected {observable.cells}")
        if not np.allclose(cube.cell, observable.cell_size, rtol=TOLERANCE):
            raise InputError(f"{path}: cell_size is {cube.cell:g}, expected {observable.cell_size[0]:g}")
        channels.append(cube.values)
    return np.stack(channels).astype(np.float32)


def _light_cone(config: Config, path: Path, cube: SavedCube) -> tuple[NDArray[np.float32], list[str]]:
    if not isinstance(simulator := first_world(config.simulator), LightCone):
        raise InputError(f'{path}: is a light-cone; the config needs [simulator] kind = "21cmfast-lightcone"')
    assert cube.distances is not None
    with naming(f"{path}: ", SimulationError):
        return simulator.from_slices(cube.values, cube.distances, cube.cell)
