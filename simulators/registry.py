"""Make simulators from ``[simulator]`` tables."""

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from simulators.base import Simulator, SimulatorSettings, fingerprint_of
from simulators.files import with_files
from simulators.function import FunctionSimulator
from simulators.parts import UnknownPart, is_own, load_part, own_module_name
from simulators.sources import OTHERS, digests, is_installed, sources, text_digest
from simulators.worlds import WorldError, Worlds, split_table

#: Module and class of each kind of simulator; imported only when needed.
KINDS = {
    "gaussian-field": "simulators.gaussian:GaussianField",
    "lognormal-field": "simulators.gaussian:LognormalField",
    "gaussian-21cmemu": "simulators.emulated:EmulatedField",
    "lim-mock": "simulators.lim.mock:LimMock",
    "21cmfast-coeval": "simulators.reionization:Coeval",
    "21cmfast-lightcone": "simulators.reionization:LightCone",
    "imported": "simulators.imported:Imported",
}


class UnknownSimulator(ValueError):
    """Raised where `kind` names no simulator; the message lists the kinds."""


def build(settings: Mapping[str, Any], beside: Path | None = None) -> Simulator:
    """Make the simulator that a ``[simulator]`` table describes.

    Parameters
    ----------
    settings
        The table; ``kind`` is one of `KINDS` or ``"module:Class"``.
    beside
        Folder in which a user's module is looked for first, before ``sys.path``, and at which relative paths of files
        start; by default the working folder.

    Raises
    ------
    UnknownSimulator
        If `kind` is missing or names nothing that can be imported.
    WorldError
        If one of ``worlds`` cannot be made, or has other parameters or observables than the first.
    pydantic.ValidationError
        If another setting is wrong.
    """
    if "worlds" in settings:
        return _build_worlds(settings, beside)
    kind = settings.get("kind")
    part = _part(kind, beside)
    if isinstance(part, FunctionType):
        return FunctionSimulator.around(part, settings)
    cls = part
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UnknownSimulator(_incomplete(kind, missing))
    settings = with_files(settings, getattr(cls, "files", {}), lambda path: os.path.abspath((beside or Path()) / path))
    try:
        simulator = cls(**settings)
    except TypeError as error:
        raise UnknownSimulator(f'kind = "{kind}" cannot be made from these settings: {error}') from error
    if not isinstance(simulator, Simulator):
        members = [name for name in vars(Simulator) if not name.startswith("_")]
        raise UnknownSimulator(_incomplete(kind, [name for name in members if not hasattr(simulator, name)]))
    return simulator


def _build_worlds(settings: Mapping[str, Any], beside: Path | None) -> Worlds:
    """Make the simulator of each world of a table."""
    names, tables, trained = split_table(settings)
    simulators = []
    for number, table in enumerate(tables):
        try:
            simulators.append(build(table, beside))
        except ValueError as error:
            raise WorldError(number, str(error)) from error
    return Worlds(tuple(names), tuple(simulators), tuple(trained))


def _incomplete(kind: object, missing: list[str]) -> str:
    """Say what a user's class needs to be a simulator, and what gives most of it."""
    own = ", ".join(sorted(SimulatorSettings.__abstractmethods__))
    base = f"derive it from simulators.SimulatorSettings, which asks for {own} alone"
    return f'kind = "{kind}" is no simulator yet: it has no {", ".join(missing)}; {base}'


def simulator_class(kind: object, beside: Path | None = None) -> Any:
    """Find the class of a `kind`; a function's is `FunctionSimulator`.

    Raises
    ------
    UnknownSimulator
        See `build`.
    """
    part = _part(kind, beside)
    return FunctionSimulator if isinstance(part, FunctionType) else part


def _part(kind: object, beside: Path | None) -> Any:
    """Find the class, or the user's function, of a `kind`."""
    known = ", ".join(f'"{name}"' for name in KINDS) + ', or "module:name" of a class or function of your own'
    if kind is None:
        raise UnknownSimulator(f"kind is missing: one of {known}")
    if not isinstance(kind, str):
        raise UnknownSimulator(f"kind = {kind!r} is no text: one of {known}")
    if kind in KINDS:
        module_name, class_name = KINDS[kind].split(":")
        return getattr(importlib.import_module(module_name), class_name)
    if is_own(kind):
        try:
            return load_part(kind, beside).value
        except UnknownPart as error:
            raise UnknownSimulator(f"kind = {error}") from error
    raise UnknownSimulator(f'kind = "{kind}" is not known: one of {known}')


def fingerprint(simulator: Simulator) -> str:
    """Return the simulator's fingerprint; for a user's own class it includes what its code does.

    An edit of the user's module, or of a module beside it that it imports, changes the numbers without changing any
    setting, and a bank must never hold rows of both. That of several worlds includes all of them and their order.
    """
    if isinstance(simulator, Worlds):
        return simulator.fingerprint_from([fingerprint(world) for world in simulator.simulators])
    if simulator.kind in KINDS:
        return simulator.fingerprint()
    return fingerprint_of({"own": simulator.fingerprint(), "code": digests(own_sources(simulator))})


def earlier_fingerprints(simulator: Simulator) -> tuple[str, ...]:
    """Return fingerprints that older versions gave to the same simulator; a user's own hashed the text of its file."""
    if isinstance(simulator, Worlds):
        each = [(fingerprint(world), *earlier_fingerprints(world)) for world in simulator.simulators]
        most = max(map(len, each))
        return tuple(simulator.fingerprint_from([one[min(i, len(one) - 1)] for one in each]) for i in range(1, most))
    if simulator.kind in KINDS:
        return getattr(simulator, "earlier_fingerprints", ())
    if isinstance(simulator, FunctionSimulator):
        return ()
    source = _source_of(type(simulator))
    return (fingerprint_of({"own": simulator.fingerprint(), "source": text_digest(source)}),)


def own_sources(simulator: Simulator) -> dict[str, Path]:
    """List the files of a user's own simulator: of its function, or its class and those above; and their neighbours.

    Returns
    -------
    dict
        Files by dotted name; empty for a simulator of this package.
    """
    if isinstance(simulator, Worlds):
        return {name: file for world in simulator.simulators for name, file in own_sources(world).items()}
    if simulator.kind in KINDS:
        return {}
    files: dict[str, Path] = {}
    module_name, _, member = simulator.kind.partition(":")
    parts = (simulator.function,) if isinstance(simulator, FunctionSimulator) else type(simulator).__mro__
    for name, module in list(sys.modules.items()):
        # The module that the config names may only import the class.
        if own_module_name(name) == module_name and getattr(module, member, None) is parts[0]:
            files |= sources(Path(module.__file__), module_name) if module.__file__ else {}
    for part in parts:
        source, name = _source_of(part), own_module_name(part.__module__)
        if source is None or name.partition(".")[0] in OTHERS:
            continue
        # Of installed packages only the user's own one counts: a version of pydantic or torch changes no model.
        if not is_installed(source) or name.partition(".")[0] == module_name.partition(".")[0]:
            files |= sources(source, name)
    return dict(sorted(files.items()))


def _source_of(part: Any) -> Path | None:
    """Return the file of a class or a function; None where it has none."""
    try:
        source = inspect.getsourcefile(part)
    except TypeError:
        return None
    return Path(source) if source else None
