"""From a ``[simulator]`` table to a simulator."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulators.base import Simulator, fingerprint_of

#: Kind of simulator and where its class is; imported only when asked for.
KINDS = {
    "gaussian-field": "simulators.gaussian:GaussianField",
    "lognormal-field": "simulators.gaussian:LognormalField",
    "lim-mock": "simulators.lim.mock:LimMock",
    "21cmfast-coeval": "simulators.reionization:Coeval",
    "21cmfast-lightcone": "simulators.reionization:LightCone",
    "imported": "simulators.imported:Imported",
}


class UnknownSimulator(ValueError):
    """`kind` names no simulator; the message lists what would be right."""


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
    try:
        simulator = cls(**settings)
    except TypeError as error:
        raise UnknownSimulator(f'kind = "{kind}" cannot be made from these settings: {error}') from error
    if not isinstance(simulator, Simulator):
        raise UnknownSimulator(f'kind = "{kind}" lacks part of a simulator; derive it from simulators.GaussianField')
    return simulator


def simulator_class(kind: object, beside: Path | None = None) -> Any:
    """The class behind `kind`.

    Raises
    ------
    UnknownSimulator
        As in `build`.
    """
    known = ", ".join(f'"{name}"' for name in KINDS) + ', or "module:Class" for your own'
    if kind is None:
        raise UnknownSimulator(f"kind is missing: one of {known}")
    if not isinstance(kind, str):
        raise UnknownSimulator(f"kind = {kind!r} is no text: one of {known}")
    if kind in KINDS:
        module_name, class_name = KINDS[kind].split(":")
        return getattr(importlib.import_module(module_name), class_name)
    if ":" in kind:
        return _user_class(kind, beside)
    raise UnknownSimulator(f'kind = "{kind}" is not known: one of {known}')


def fingerprint(simulator: Simulator) -> str:
    """The simulator's fingerprint; for a user's own class its source text counts too.

    An edit of the user's module changes the numbers without changing any setting,
    and a bank must never hold rows of both.
    """
    if simulator.kind in KINDS:
        return simulator.fingerprint()
    source = inspect.getsourcefile(type(simulator))
    text = Path(source).read_bytes() if source else b""
    return fingerprint_of({"own": simulator.fingerprint(), "source": hashlib.sha256(text).hexdigest()})


def _user_class(kind: str, beside: Path | None) -> Any:
    module_name, _, class_name = kind.partition(":")
    try:
        module = _load_beside(module_name, beside) or importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise UnknownSimulator(f'kind = "{kind}": importing "{module_name}" failed: {error}') from error
        where = f"in {beside} or " if beside else ""
        raise UnknownSimulator(f'kind = "{kind}": there is no {module_name}.py {where}on the path') from error
    except Exception as error:  # a user's module may do anything
        raise UnknownSimulator(
            f'kind = "{kind}": importing "{module_name}" failed: {type(error).__name__}: {error}'
        ) from error
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        raise UnknownSimulator(f'kind = "{kind}": {module.__file__} has no class "{class_name}"') from error


def _load_beside(module_name: str, folder: Path | None) -> Any:
    """Import FOLDER/module.py under a name of its own, so that it hides no other module."""
    if folder is None:
        return None
    path = folder.joinpath(*module_name.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"_user_simulator_{digest}_{module_name}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # A user's module may import its neighbours.
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(folder))
    return module
