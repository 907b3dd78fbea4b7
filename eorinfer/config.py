"""The config: one TOML file, checked whole before anything is computed."""

import difflib
import inspect
import re
import shutil
import tomllib
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
from eorinfer.survey.settings import NoSurvey, SkaLow, SurveySettings, WhiteNoise
from simulators import Observable, SimulationError, Simulator
from simulators.registry import simulator_class


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
    prior: dict[str, tuple[float, float]] = Field(default={})
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


_SURVEYS: dict[str, Any] = {"none": NoSurvey, "white-noise": WhiteNoise, "ska-low": SkaLow}

#: pydantic's kinds of error in the words of this file.
_TEXTS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "path_type": "must be a path in quotes",
    "string_type": "must be text in quotes",
    "too_short": "must hold at least {min_length}",
    "tuple_type": "must be a list",
}
_HINTS = {
    "simulator": 'kind = "21cmfast-coeval" with redshifts, cells and box_length',
    "simulator.redshifts": "redshifts = [7.0, 8.0, 9.0]",
    "simulator.cells": "cells = 32",
    "simulator.box_length": "box_length = 128.0, in comoving Mpc",
    "survey.sigma": "sigma = 1.0, the noise of a cell in the unit of the image",
    "observation": 'theta = { NAME = value, ... } for a mock, or file = "observed.h5"',
    "inference": "rounds = [600, 300], the simulations of each round",
    "inference.rounds": "rounds = [600, 300], the simulations of each round",
}
_UNION_MEMBER = re.compile(r"\[|^constrained-|^function-|^(float|int|str|bool)$")


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
        """Write the config as it was run, and a user's simulator module beside it."""
        with whole_file(path) as temporary:
            temporary.write_bytes(tomli_w.dumps(self.content()).encode())
        if self.simulator.kind not in simulators.KINDS:
            module = Path(*self.simulator.kind.partition(":")[0].split(".")).with_suffix(".py")
            source = inspect.getsourcefile(type(self.simulator))
            copy = path.resolve().parent / module
            if source and Path(source) == self.folder / module != copy:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(copy) as temporary:
                    shutil.copyfile(source, temporary)


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
        raise InputError(_explained(path, error)) from error
    beside = path.resolve().parent
    try:
        simulator = simulators.build(tables.simulator, beside)
    except ValidationError as error:
        cls = simulator_class(tables.simulator["kind"], beside)
        raise InputError(_explained(path, error, "simulator", cls)) from error
    except ValueError as error:
        raise InputError(f"{path}: [simulator] {error}") from error
    prior = _prior(path, tables, simulator)
    _refuse_impossible(path, tables, simulator)
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
            raise InputError(f"{path}: [prior] {name}: {_instead(name, names, 'parameter')}")
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"{path}: [prior] {name} = [{low}, {high}]: must be [low, high], finite, low below high")
    prior = Prior.of(simulator.parameters, tables.prior)
    for corner in (prior.low, prior.high):
        try:
            simulator.check(corner)
        except SimulationError as error:
            raise InputError(f"{path}: [prior] {error}") from error
    return prior


def _refuse_impossible(path: Path, tables: Tables, simulator: Simulator) -> None:
    """What each table allows by itself and the simulator does not."""
    if simulator.kind == "imported":
        if len(tables.inference.rounds) > 1:
            raise InputError(
                f"{path}: [inference] rounds = {list(tables.inference.rounds)}: imported cubes cannot be simulated "
                f"anew; give one round, rounds = [{tables.inference.rounds[0]}]"
            )
        if tables.observation.theta is not None:
            raise InputError(
                f'{path}: [observation] theta: imported cubes cannot be simulated anew; give file = "observed.h5"'
            )
    fundamental = 2 * np.pi / max(simulator.observables[0].box_length)
    k_max = tables.power_spectrum.k_max
    if k_max is not None and k_max <= fundamental:
        raise InputError(
            f"{path}: [power_spectrum] k_max = {k_max:g}: must be above {fundamental:.3g} 1/Mpc, "
            "the first mode of the box"
        )


def _mock_theta(path: Path, tables: Tables, prior: Prior) -> NDArray[np.float64] | None:
    theta, file = tables.observation.theta, tables.observation.file
    if (theta is None) == (file is None):
        raise InputError(f'{path}: [observation] needs one of the two: theta = {{...}} for a mock, or file = "..."')
    if theta is None:
        return None
    for name in theta:
        if name not in prior.names:
            problem = _instead(name, prior.names, "parameter")
            raise InputError(f"{path}: [observation] theta.{name}: {problem}")
    for p in prior.parameters:
        if p.name not in theta:
            raise InputError(f"{path}: [observation] theta lacks {p.name}; it needs {', '.join(prior.names)}")
        value = theta[p.name]
        if not (np.isfinite(value) and p.low <= value <= p.high):
            raise InputError(
                f"{path}: [observation] theta.{p.name} = {value}: must lie in the prior [{p.low:g}, {p.high:g}]"
            )
    return np.array([theta[name] for name in prior.names])


def _explained(path: Path, error: ValidationError, table: str = "", cls: Any = None) -> str:
    """One line for each key that is wrong, three at most.

    Parameters
    ----------
    path, error
        Which file, and what pydantic says of it.
    table
        The table that was checked, if not the whole file.
    cls
        The class of that table.
    """
    lines: dict[str, str] = {}
    suggested = set()
    problems = error.errors(include_url=False)
    # Misspelt keys first: each explains a missing one.
    for problem in sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden"):
        where = [table] * bool(table) + [part for part in problem["loc"] if isinstance(part, str)]
        tags = [where.pop(1)] if where[0] == "survey" and where[1:2] and where[1] in _SURVEYS else []
        # pydantic names the member of a union that it tried; that is no key of the file
        where = [part for part in where if not _UNION_MEMBER.search(part)]
        if problem["type"] == "missing" and tuple(where) in suggested:
            continue
        if problem["type"] == "extra_forbidden":
            known = _known_keys(where, tags, cls)
            suggested |= {(*where[:-1], near) for near in _near(where[-1], known)}
            text = _instead(where[-1], known, "key" if table or not _is_table(where, problem) else "table")
        else:
            text = _text(where, problem)
        head = f"[{where[0]}] {'.'.join(where[1:])}".strip()
        if len(where) == 1 and not _is_table(where, problem):
            head = where[0]
        lines.setdefault(head, f"{path}: {head}{'' if text.startswith('kind ') else ':'} {text}")
    shown = list(lines.values())[:3]
    if len(lines) > 3:
        shown.append(f"{path}: and {len(lines) - 3} more")
    return "\n".join(shown)


def _text(where: list[str], problem: Any) -> str:
    """What is wrong and what would be right, in the words of the file."""
    kind, context = problem["type"], problem.get("ctx", {})
    if where[0] == "prior" and len(where) > 1:
        return "must be [low, high], two numbers"
    if kind == "missing":
        hint = _HINTS.get(".".join(where))
        return f"is missing; for example {hint}" if hint else "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind.startswith("union_tag"):
        given = f'= "{context["tag"]}" is not known' if "tag" in context else "is missing"
        return f"kind {given}: one of {', '.join(map(_quoted, _SURVEYS))}"
    text = problem["msg"].replace("Input should", "must")
    if kind in _TEXTS:
        text = _TEXTS[kind].format(**context)
    given = problem["input"]
    return f"{text} (given: {given!r})" if isinstance(given, str | int | float | list) else text


def _is_table(where: list[str], problem: Any) -> bool:
    """Whether this key at the top of the file is, or should be, a table."""
    if len(where) > 1:
        return False
    return where[0] != "seed" if where[0] in Tables.model_fields else isinstance(problem["input"], dict)


def _known_keys(where: list[str], tags: list[str], cls: Any) -> list[str]:
    """The keys of the table in which `where` stands."""
    if len(where) == 1:
        return list(Tables.model_fields)
    if len(where) > 2:
        return []
    annotation = Tables.model_fields[where[0]].annotation
    models = [cls, annotation] + [_SURVEYS[tag] for tag in tags]
    return [field.alias or name for model in models for name, field in getattr(model, "model_fields", {}).items()]


def _near(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1)


def _instead(name: str, known: list[str], what: str = "key") -> str:
    if near := _near(name, known):
        return f'unknown {what}, did you mean "{near[0]}"?'
    return f"unknown {what}" + (f"; there are {', '.join(known)}" if known else "")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _without_none(content: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in content.items() if v is not None}
