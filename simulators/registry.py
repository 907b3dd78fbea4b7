"""Make simulators from ``[simulator]`` tables."""

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulators.base import Simulator, SimulatorSettings, fingerprint_of
from simulators.parts import UnknownPart, is_own, load_part

#: Module and class of each kind of simulator; imported only when needed.
KINDS = {
    "gaussian-field": "simulators.gaussian:GaussianField",
    "lognormal-field": "simulators.gaussian:LognormalField",
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
        Folder in which a user's module is looked for first, before ``sys.path``.

    Raises
    ------
    UnknownSimulator
        If `kind` is missing or names nothing that can be imported.
    pydantic.ValidationError
        If another setting is wrong.
    """
    kind = settings.get("kind")
    cls = simulator_class(kind, beside)
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UnknownSimulator(_incomplete(kind, missing))
    try:
        simulator = cls(**settings)
    except TypeError as error:
        raise UnknownSimulator(f'kind = "{kind}" cannot be made from these settings: {error}') from error
    if not isinstance(simulator, Simulator):
        members = [name for name in vars(Simulator) if not name.startswith("_")]
        raise UnknownSimulator(_incomplete(kind, [name for name in members if not hasattr(simulator, name)]))
    return simulator


def _incomplete(kind: object, missing: list[str]) -> str:
    """Say what a user's class needs to be a simulator, and what gives most of it."""
    own = ", ".join(sorted(SimulatorSettings.__abstractmethods__))
    base = f"derive it from simulators.SimulatorSettings, which asks for {own} alone"
    return f'kind = "{kind}" is no simulator yet: it has no {", ".join(missing)}; {base}'


def simulator_class(kind: object, beside: Path | None = None) -> Any:
    """Find the class of a `kind`.

    Raises
    ------
    UnknownSimulator
        See `build`.
    """
    known = ", ".join(f'"{name}"' for name in KINDS) + ', or "module:Class" for your own'
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
    """Return the simulator's fingerprint; for a user's own class it includes the source text.

    An edit of the user's module changes the numbers without changing any setting, and a bank must never hold rows of
    both.
    """
    if simulator.kind in KINDS:
        return simulator.fingerprint()
    source = inspect.getsourcefile(type(simulator))
    text = Path(source).read_bytes() if source else b""
    return fingerprint_of({"own": simulator.fingerprint(), "source": hashlib.sha256(text).hexdigest()})
