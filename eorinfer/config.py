"""The config: one TOML file, checked whole before anything is computed."""

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

import simulators
from eorinfer.errors import InputError
from eorinfer.files import whole_file
from eorinfer.inference.settings import (
    EmbeddingSettings,
    FlowSettings,
    InferenceSettings,
    McmcSettings,
    PowerSpectrumSettings,
    Settings,
    TrainingSettings,
)
from eorinfer.prior import Prior
from eorinfer.survey.settings import NoSurvey, SurveySettings
from simulators import Observable, SimulationError, Simulator


class ObservationSettings(Settings):
    """``[observation]``: a mock at `theta`, or a `file`."""

    theta: dict[str, float] | None = None
    file: Path | None = None


class BankSettings(Settings):
    """``[bank]``: where the simulations are kept; by default in the run folder."""

    path: Path | None = None


class ExecutorSettings(Settings):
    """``[executor]``: where simulations run.

    Parameters
    ----------
    kind
        ``"local"`` processes or ``"dask"``.
    workers
        Processes; by default one for each core.
    address
        Of a Dask scheduler; by default a cluster on this machine.
    timeout
        Seconds that one row may take.
    memory_gb
        Memory that one simulator process may take.
    failure_share
        Share of failed rows above which the command ends with exit code 1.
    """

    kind: Literal["local", "dask"] = "local"
    workers: PositiveInt | None = None
    address: str | None = None
    timeout: PositiveFloat = 3600.0
    memory_gb: PositiveFloat | None = None
    failure_share: float = Field(default=0.2, ge=0, le=1)


class Tables(Settings):
    """The tables of the file, as pydantic checks them."""

    seed: int = Field(default=1, ge=0, lt=2**32)
    simulator: dict[str, Any]
    prior: dict[str, tuple[float, float]] = {}
    survey: SurveySettings = NoSurvey()
    observation: ObservationSettings
    inference: InferenceSettings
    embedding: EmbeddingSettings = EmbeddingSettings()
    flow: FlowSettings = FlowSettings()
    training: TrainingSettings = TrainingSettings()
    power_spectrum: PowerSpectrumSettings = PowerSpectrumSettings()
    mcmc: McmcSettings = McmcSettings()
    bank: BankSettings = BankSettings()
    executor: ExecutorSettings = ExecutorSettings()


class Config:
    """A checked config.

    Attributes
    ----------
    file
        Where it was read from; relative paths in it count from there.
    tables
        All settings, defaults filled in.
    simulator, prior
        Built from them.
    theta
        (P,) of the mock observation, or None when a file is observed.
    """

    def __init__(self, file: Path, tables: Tables, simulator: Simulator, prior: Prior) -> None:
        self.file = file
        self.tables = tables
        self.simulator = simulator
        self.prior = prior
        self.theta = _mock_theta(file, tables, prior)

    @property
    def folder(self) -> Path:
        """Folder of the config file: a user's simulator module is looked for here first."""
        return self.file.resolve().parent

    @property
    def observable(self) -> Observable:
        """The image."""
        return self.simulator.observables[0]

    def bank_path(self, out: Path) -> Path:
        """The bank of a run in folder `out`."""
        path = self.tables.bank.path
        return out / "bank" if path is None else self.folder / path

    def content(self) -> dict[str, Any]:
        """Everything as TOML would hold it, defaults filled in."""
        content = self.tables.model_dump(mode="json", exclude_none=True)
        content["simulator"] = _without_none(self.simulator.settings())
        for table, key in (("observation", "file"), ("bank", "path")):
            if content[table].get(key):
                content[table][key] = str((self.folder / content[table][key]).resolve())
        return content

    def write(self, path: Path) -> None:
        """Write the config as it was run."""
        with whole_file(path) as temporary:
            temporary.write_bytes(tomli_w.dumps(self.content()).encode())


def load_config(path: Path) -> Config:
    """Read and check a config.

    Raises
    ------
    InputError
        On the first few things that are wrong: file, key and what would be right.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    return check_config(path, content)


def check_config(path: Path, content: dict[str, Any]) -> Config:
    """Check the content of a config; `path` is named in errors and anchors relative paths.

    Raises
    ------
    InputError
        As in `load_config`.
    """
    try:
        tables = Tables.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explained(path, error, ""))) from error
    try:
        simulator = simulators.build(tables.simulator, path.resolve().parent)
    except ValidationError as error:
        raise InputError("\n".join(_explained(path, error, "simulator"))) from error
    except ValueError as error:
        raise InputError(f"{path}: [simulator] {error}") from error
    prior = _prior(path, tables, simulator)
    if tables.mcmc.walkers < 2 * len(prior.parameters):
        raise InputError(
            f"{path}: [mcmc] walkers = {tables.mcmc.walkers}: emcee needs at least twice the number of "
            f"parameters, {2 * len(prior.parameters)}"
        )
    try:
        from eorinfer.survey import check_survey

        check_survey(tables.survey, simulator.observables[0])
    except ValueError as error:
        raise InputError(f"{path}: [survey] {error}") from error
    return Config(path, tables, simulator, prior)


def _prior(path: Path, tables: Tables, simulator: Simulator) -> Prior:
    names = [p.name for p in simulator.parameters]
    for name, (low, high) in tables.prior.items():
        if name not in names:
            raise InputError(f"{path}: [prior] {name}: {_instead(name, names)}; the parameters are {', '.join(names)}")
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"{path}: [prior] {name} = [{low}, {high}]: must be [low, high], finite, low below high")
    prior = Prior.of(simulator.parameters, tables.prior)
    for corner in (prior.low, prior.high):
        try:
            simulator.check(corner)
        except SimulationError as error:
            raise InputError(f"{path}: [prior] {error}") from error
    return prior


def _mock_theta(path: Path, tables: Tables, prior: Prior) -> NDArray[np.float64] | None:
    theta, file = tables.observation.theta, tables.observation.file
    if (theta is None) == (file is None):
        raise InputError(f"{path}: [observation] needs one of the two: theta = {{...}} for a mock, or file = \"...\"")
    if theta is None:
        return None
    for name in theta:
        if name not in prior.names:
            raise InputError(f"{path}: [observation] theta.{name}: {_instead(name, prior.names)}")
    for p in prior.parameters:
        if p.name not in theta:
            raise InputError(f"{path}: [observation] theta lacks {p.name}; it needs {', '.join(prior.names)}")
        value = theta[p.name]
        if not (np.isfinite(value) and p.low <= value <= p.high):
            raise InputError(
                f"{path}: [observation] theta.{p.name} = {value} is outside the prior [{p.low:g}, {p.high:g}]"
            )
    return np.array([theta[name] for name in prior.names])


def _explained(path: Path, error: ValidationError, table: str) -> Iterator[str]:
    """One line for each problem, three at most."""
    problems = error.errors(include_url=False, include_context=False)
    for problem in problems[:3]:
        where = [str(part) for part in problem["loc"]]
        if table:
            where = [table, *where]
        # pydantic names the member of a union that it tried; it is no key of the file
        where = [part for i, part in enumerate(where) if not (i == 1 and where[0] == "survey" and len(where) > 2)]
        key = f"[{where[0]}] {'.'.join(where[1:])}".strip() if len(where) > 1 else f"[{where[0]}]" if where else ""
        if problem["type"] == "missing":
            text = "is missing"
        elif problem["type"] == "extra_forbidden":
            text = _instead(where[-1], _known_keys(where))
        else:
            given = problem.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | list | bool) else ""
            text = problem["msg"].removeprefix("Value error, ") + shown
        if len(where) == 1 and problem["type"] != "missing":
            key = where[0]
        yield f"{path}: {key}: {text}" if key else f"{path}: {text}"
    if len(problems) > 3:
        yield f"{path}: and {len(problems) - 3} more"


def _known_keys(where: list[str]) -> list[str]:
    if len(where) == 1:
        return list(Tables.model_fields)
    field = Tables.model_fields.get(where[0])
    annotation = field.annotation if field else None
    models = [annotation, *getattr(annotation, "__args__", ())]
    return [key for model in models for key in getattr(model, "model_fields", {})]


def _instead(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'unknown key, did you mean "{close[0]}"?' if close else "unknown key"


def _without_none(content: dict[str, Any]) -> dict[str, Any]:
    return {
        k: _without_none(v) if isinstance(v, dict) else v for k, v in content.items() if v is not None
    }
