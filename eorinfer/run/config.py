"""Config of a run: one TOML file, checked whole before anything is computed."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w
from pydantic import ValidationError

from eorinfer.bank.targets import Target, parse_targets
from eorinfer.core.errors import InputError, naming
from eorinfer.core.files import whole_file
from eorinfer.core.own import own_names, part
from eorinfer.core.prior import Prior
from eorinfer.core.toml import read_toml, with_home
from eorinfer.imageflow.conditions import check_image_flow
from eorinfer.run.checks import (
    WORLD_TARGET,
    bins_without_modes,
    build_simulator,
    check_worlds,
    mock_theta,
    refuse_impossible,
    with_lowest_bin,
)
from eorinfer.run.names import check_names, check_sizes
from eorinfer.settings.build_prior import build_prior
from eorinfer.settings.contest import check_contest
from eorinfer.settings.explain import explained
from eorinfer.settings.old_names import with_new_names
from eorinfer.settings.survey import SurveySettings, survey_key
from eorinfer.settings.tables import Tables
from simulators import Observable, Simulator
from simulators.cell import folders as written_modules
from simulators.files import files_of, with_files
from simulators.parts import copy_sources, is_own, load_part
from simulators.registry import own_sources
from simulators.worlds import Worlds, worlds_of

if TYPE_CHECKING:
    from eorinfer.npe.architecture import Architecture

Task = Literal["run", "mocks", "separation"]
#: Tables that the training of a separator uses; a file may have the tables of a run too.
OF_SEPARATION = ("seed", "simulator", "prior", "survey", "separation", "bank", "executor")
#: Name, in errors, of a config that came as a dict.
GIVEN = Path("config (dict)")
#: Keys that hold paths, which start at the config's folder.
PATHS = (
    *(("observation", key) for key in ("file", "clean", "mask")),
    *(("bank", "path"), ("preprocessing", "model")),
)
#: Content in place of the tables that only a run needs.
_UNNEEDED: dict[str, Any] = {"observation": {}, "inference": {"rounds": [1]}}


class Config:
    """A checked config.

    Attributes
    ----------
    file
        File that it was read from; relative paths in it start at the file's folder.
    tables
        All settings, defaults filled in.
    simulator, prior
        Simulator and prior of these settings.
    theta
        Parameters (P,) of the mock observation; None where a file or nothing is observed.
    task
        Task that it was checked for, and whose tables `content` has.
    notes
        A line for each old name in the file, and for bins of P(k) without a measured mode.
    modules
        Folder in which a user's own modules are looked for first: that of the file, or the one that the user named.
    received
        Whether the file came with a folder of results, and was not named by the user.
    targets
        What is inferred in place of the prior's parameters; empty for these.

    Examples
    --------
    >>> from eorinfer import load_config
    >>> config = load_config("examples/gaussian.toml")
    >>> config.prior.names
    ['log_amplitude', 'slope']
    """

    def __init__(
        self,
        file: Path,
        tables: Tables,
        simulator: Simulator,
        prior: Prior,
        task: Task = "run",
        notes: tuple[str, ...] = (),
        modules: Path | None = None,
        received: bool = False,
        targets: tuple[Target, ...] = (),
    ) -> None:
        self.file, self.notes, self.received, self.targets = file, notes, received, targets
        self.modules = self.folder if modules is None else modules
        self.tables = tables
        self.simulator = simulator
        self.prior = prior
        self.task = task
        wanted = task == "run" or (task == "mocks" and tables.observation.theta is not None)
        self.theta = mock_theta(file, tables, prior) if wanted else None

    def __repr__(self) -> str:
        return f"Config({self.file}: {self.simulator.kind}, {', '.join(self.prior.names)})"

    @property
    def folder(self) -> Path:
        """Folder of the config file, at which relative paths start."""
        return self.file.resolve().parent

    @property
    def architecture(self) -> "Architecture":
        """Settings that posterior networks are built from."""
        from eorinfer.npe.architecture import Architecture

        return Architecture(self.tables.embedding, self.tables.flow, self.tables.power_spectrum, self.modules)

    @property
    def own_names(self) -> frozenset[str]:
        """``"module:name"`` of each of the user's own parts."""
        return frozenset(name for _, name in own_names(self.tables.model_dump()))

    @property
    def observable(self) -> Observable:
        """Observable that is an image, the simulator's first."""
        return self.simulator.observables[0]

    @property
    def worlds(self) -> Worlds | None:
        """The simulator where it has worlds, else None."""
        return worlds_of(self.simulator)

    @property
    def world(self) -> int | None:
        """Number of the world of the mock observation; None for the one that its seed draws."""
        name = self.tables.observation.world
        return None if name is None or self.worlds is None else self.worlds.number(name)

    @property
    def imported(self) -> bool:
        """Tell whether nothing can be simulated, since the cubes came from elsewhere."""
        return self.simulator.kind == "imported"

    @property
    def infers_world(self) -> bool:
        """Whether the odds of worlds are wanted."""
        return WORLD_TARGET in (self.tables.inference.targets or ())

    @property
    def held_out_world(self) -> int | None:
        """Number of the world that a contest trains nothing on, and asks about; None for none."""
        name = self.tables.contest.held_out_world
        return None if name is None or self.worlds is None else self.worlds.number(name)

    def with_survey(self, settings: SurveySettings, note: str) -> "Config":
        """Give the same config with another survey, and a note that says so."""
        changed = copy(self)
        changed.tables = self.tables.model_copy(update={"survey": settings})
        changed.notes = (*self.notes, note)
        return changed

    def bank_path(self, out: Path) -> Path:
        """Give the folder of the bank, of a run in folder `out`."""
        path = self.tables.bank.path
        return out / "bank" if path is None else Path(os.path.normpath(self.folder / path))

    def content(self) -> dict[str, Any]:
        """Give all settings as a TOML file has them, defaults filled in and paths from the root."""
        return with_paths(self._as_given(), lambda path: (self.folder / path).resolve())

    def _as_given(self) -> dict[str, Any]:
        """Give all settings, with paths as the file has them."""
        content = self.tables.model_dump(mode="json", exclude_none=True)
        content["simulator"] = _without_none(self.simulator.settings())
        if self.task == "separation":
            content = {name: content[name] for name in OF_SEPARATION}
        else:
            del content["separation"]
        return content

    def key_of(self, *tables: str) -> dict[str, Any]:
        """Give some tables as they count for hashes: of a prior that is not flat its densities, not its files."""
        content = {name: value for name, value in self.content().items() if name in tables}
        if "survey" in content:
            content["survey"] = survey_key(self.tables.survey)
        return content if self.prior.flat else content | {"prior": self.prior.hash()}

    def simulator_key(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Give the simulator's table as it counts for hashes: files, and texts that change no number, as in a bank."""
        table: dict[str, Any] = self.content()["simulator"]
        if files := files_of(self.simulator):
            table |= {key: kept[key] for key in (*files, "worlds") if key in table and key in kept}
        if table["kind"] == "imported":
            texts = {name: {key: p.get(key, "") for key in ("label", "unit")} for name, p in kept["ranges"].items()}
            table["ranges"] = {name: p | texts[name] for name, p in table["ranges"].items()}
        return table

    def write(self, path: Path) -> None:
        """Write the config as it was run, and beside it a user's own modules with all that they import from there.

        Relative paths stay so where it is written below the config's folder: all may be moved together.
        """
        home, written = self.folder, path.resolve().parent
        together = written.is_relative_to(home)

        def named(given: str) -> Path:
            there = (home / given).resolve()
            return Path(os.path.relpath(there, written)) if together and not Path(given).is_absolute() else there

        def simulated(file: str) -> str:
            return os.path.relpath(file, written) if together and Path(file).is_relative_to(home) else file

        content = with_paths(self._as_given(), named)
        content["simulator"] = with_files(content["simulator"], files_of(self.simulator), simulated)
        with whole_file(path) as temporary:
            temporary.write_bytes(tomli_w.dumps(content).encode())
        files = own_sources(self.simulator)
        for name in self.own_names:
            files |= load_part(name, self.modules).sources
        # Modules that were written from a notebook first: their folder may stand below the config's.
        for folder in (*written_modules(), self.modules):
            copied = copy_sources(files, folder, path.resolve().parent)
            files = {name: file for name, file in files.items() if name not in copied}


def with_paths(content: dict[str, Any], function: Callable[[str], Path]) -> dict[str, Any]:
    """Give the content of a config with a function applied to its paths, those of `PATHS` and of the prior's tables."""
    changed = {name: dict(table) if isinstance(table, dict) else table for name, table in content.items()}
    for table, key in PATHS:
        value = changed.get(table, {}).get(key)
        if isinstance(value, list):
            changed[table][key] = [str(function(path)) for path in value]
        elif value and (key, value) != ("mask", "nan"):
            changed[table][key] = str(function(value))
    prior = changed.get("prior", {})
    for name, entry in prior.items():
        if name == "table" and isinstance(entry, str):
            prior[name] = str(function(entry))
        elif isinstance(entry, dict) and isinstance(entry.get("table"), str):
            prior[name] = entry | {"table": str(function(entry["table"]))}
    return changed


def load_config(config: Path | str | Mapping[str, Any], task: Task = "run") -> Config:
    """Read and check a config.

    Parameters
    ----------
    config
        TOML file, or its content as nested dicts; relative paths in a dict start at the working folder.
    task
        Task of the config: mocks and a separation need no observation and no rounds.

    Raises
    ------
    InputError
        If anything is wrong; names the file, the first few keys and what would be right.

    Examples
    --------
    >>> from eorinfer import load_config
    >>> load_config("examples/gaussian.toml").tables.inference.rounds
    (48,)
    """
    if isinstance(config, Mapping):
        return check_config(GIVEN, {name: dict(v) if isinstance(v, Mapping) else v for name, v in config.items()}, task)
    if not isinstance(config, str | Path):
        raise InputError(f"load_config takes a TOML file, or its content as a dict, not {config!r:.60}")
    path = Path(config)
    return check_config(path, read_toml(path), task)


def check_config(
    path: Path, content: dict[str, Any], task: Task = "run", *, modules: Path | None = None, received: bool = False
) -> Config:
    """Check the content of a config; `path` is named in errors and anchors relative paths.

    Parameters
    ----------
    path, content, task
        File, its content, and what it is for.
    modules
        Folder of the user's own modules; by default that of the file.
    received
        See `Config`.

    Raises
    ------
    InputError
        See `load_config`.
    """
    with naming(f"{path}: "):
        content, lines = with_new_names(with_home(content))
    notes = tuple(f"{path}: {line}" for line in lines)
    beside = path.resolve().parent if modules is None else modules
    try:
        tables = Tables.model_validate(content if task == "run" else _UNNEEDED | content, context={"beside": beside})
    except ValidationError as error:
        raise InputError("\n".join([*notes, explained(path, error)])) from error
    simulator = build_simulator(path, tables, beside)
    check_sizes(path, simulator.observables)
    if is_own(simulator.kind) or simulator.kind == "imported":  # ours are tested
        check_names(path, simulator.parameters, simulator.observables)
    if tables.observation.mask is not None and tables.inference.method != "npe":
        raise InputError(
            f"{path}: [observation] mask: the image flow is of whole images and cannot leave cells out; "
            'take [inference] method = "npe", or eorinfer mcmc'
        )
    prior = build_prior(path, tables.prior, simulator.parameters, simulator.check)
    refuse_impossible(path, tables, simulator)
    with naming(f"{path}: "):
        check_worlds(tables, simulator)
    with naming(f"{path}: [inference] "):
        names = [name for name in tables.inference.targets or () if name != WORLD_TARGET]
        targets = parse_targets(names, simulator.parameters, simulator.observables)
    if tables.mcmc.walkers < 2 * len(prior.parameters):
        raise InputError(
            f"{path}: [mcmc] walkers = {tables.mcmc.walkers}: emcee needs at least twice the number of "
            f"parameters, {2 * len(prior.parameters)}"
        )
    with naming(f"{path}: [image_flow] "):
        check_image_flow(tables.image_flow, simulator)
    with naming(f"{path}: [contest] "):
        check_contest(tables.contest, simulator, tables.survey, tables.image_flow)
    with naming(f"{path}: [power_spectrum] "):
        from eorinfer.summaries.chunks import chunked

        part = chunked(simulator.observables[0], tables.power_spectrum.chunks)
    with naming(f"{path}: [survey] "):
        from eorinfer.survey import check_survey, lowest_mode, measured_modes

        check_survey(tables.survey, simulator.observables[0])
        modes = measured_modes(tables.survey, part)
        lowest = lowest_mode(tables.survey, simulator.observables[0]) if modes is None else float(modes.min())
    tables = with_lowest_bin(path, tables, part, lowest)
    if task == "run" and len(part.cells) > 1:
        with naming(f"{path}: [power_spectrum] "):
            lines = bins_without_modes(tables, part, modes)
        notes += tuple(f"{path}: {line}" for line in lines)
    config = Config(path, tables, simulator, prior, task, notes, modules, received, targets)
    _check_own_parts(config)
    return config


def _check_own_parts(config: Config) -> None:
    """Build a network once where the user's parts or options go into it: before simulations are made for it.

    Raises
    ------
    InputError
        If a part cannot be imported, or does not make of cubes what it should.
    """
    tables, path = config.tables, config.file
    for key, name in own_names(tables.model_dump()):
        part(name, config.modules, f"{path}: {key}")
    if any(own_names(tables.model_dump(), ("survey",))):
        from eorinfer.survey.trial import try_survey

        with naming(f"{path}: [survey] "):
            try_survey(tables.survey, config.observable)
    if tables.flow.options or any(own_names(tables.model_dump(), ("embedding", "flow"))):
        from eorinfer.npe.trial import try_architecture

        with naming(f"{path}: "):
            try_architecture(config.architecture, config.prior, config.observable)


def _without_none(content: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in content.items() if v is not None}
