"""Calls of 21cmFAST: imported late, quiet, without files, and with initial conditions used again."""

import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from simulators.base import SimulationError

if TYPE_CHECKING:
    from py21cmfast import InputParameters

#: Initial conditions of the last realisation of this process, by their inputs. They hold
#: C memory and cannot be pickled, so they live here and not in the settings object.
_last_realisation: dict[tuple[Any, ...], tuple[Any, ...]] = {}


def installed_version() -> str:
    """Return the version of 21cmFAST, without importing it."""
    try:
        return importlib.metadata.version("21cmFAST")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def import_21cmfast() -> ModuleType:
    """Import 21cmFAST late: it takes seconds, and the settings alone do not need it.

    Raises
    ------
    SimulationError
        If it cannot be imported; the message says how to install it.
    """
    try:
        with quiet():
            import py21cmfast
    except ImportError as error:
        raise SimulationError(f"21cmFAST cannot be imported: {error}; pip install 21cmFAST==4.1.1") from error
    return py21cmfast


def initial_conditions(p21c: ModuleType, inputs: "tuple[InputParameters, ...]") -> tuple[Any, ...]:
    """Compute initial conditions for each of `inputs`, and keep them until others are computed."""
    if inputs not in _last_realisation:
        _last_realisation.clear()  # before the next ones, so that never two are in memory
        _last_realisation[inputs] = tuple(
            p21c.compute_initial_conditions(inputs=own, write=False, regenerate=True) for own in inputs
        )
    return _last_realisation[inputs]


def evolve(p21c: ModuleType, inputs: "InputParameters", initial: Any, redshifts: Sequence[float]) -> Iterator[Any]:
    """Yield coevals in falling redshift: at `redshifts`, and at the nodes of `inputs` above the lowest of them."""
    with tempfile.TemporaryDirectory(prefix="21cmfast-") as folder:
        for coeval, _ in p21c.generate_coeval(
            inputs=inputs,
            out_redshifts=list(redshifts),
            initial_conditions=initial,
            # By default it writes into the working directory and reads back what it finds there.
            write=False,
            cache=p21c.OutputCache(folder),
            regenerate=True,
        ):
            yield coeval


@contextmanager
def as_simulation_errors(p21c: ModuleType) -> Iterator[None]:
    """Turn what 21cmFAST raises into a `SimulationError` of one line."""
    errors = p21c.wrapper.exceptions
    with quiet():
        try:
            yield
        except (errors.ParameterError, errors.FatalCError, ValueError) as error:
            text = " ".join(str(error).split())[:200]
            raise SimulationError(f"21cmFAST, {type(error).__name__}: {text}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep 21cmFAST's warnings and logged errors off the terminal; its exceptions say the same."""
    logger = logging.getLogger("py21cmfast")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
