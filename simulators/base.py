"""The contract of a simulator: its parameters, its observables, and the call that runs it."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class SimulationError(Exception):
    """Raised where the model cannot be computed at a theta; the message says why."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a simulator with its default flat prior.

    Attributes
    ----------
    name
        The simulator's own name, as used in configs and files.
    label
        LaTeX without dollar signs.
    low, high
        Bounds of the default prior; the simulator refuses values outside the
        range in which it can be computed, which may be wider.
    fiducial
        Value taken when the parameter is not varied.
    unit, description
        Texts for tables and axis labels; `unit` is empty where there is none.
    """

    name: str
    label: str
    low: float
    high: float
    fiducial: float
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        # NumPy's numbers are written into text files by their names.
        for name in ("low", "high", "fiducial"):
            object.__setattr__(self, name, float(getattr(self, name)))


@dataclass(frozen=True)
class Observable:
    """One array that a simulator returns, as float32.

    Attributes
    ----------
    name
        Key in the simulator's result and name of the bank's dataset.
    shape
        (C, *cells): channels first, the line of sight last.
    unit
        Unit of the values, e.g. ``mK``; empty where there is none.
    axes
        Name of each axis of `shape`, e.g. ``("redshift", "x", "y", "z")``.
    cell_size
        Comoving Mpc along each cell axis; at the middle of a light-cone where it changes
        along the line of sight; 0 for an axis that is no length.
    channels
        Coordinate of each channel: redshifts for ``axes[0] == "redshift"``.
    symmetry
        Changes of the cube that leave its distribution unchanged.
    coordinates
        Coordinate of each cell along the last axis, where its name and `cell_size` are not enough: redshifts of a
        light-cone's slices (last axis ``z``), MHz (``frequency``), redshifts (``redshift``) or magnitudes
        (``magnitude``). Empty for a box at one redshift.
    field_of_view
        Side of an angular light-cone in degrees; 0 where the transverse axes are comoving.
    smoothing
        Standard deviation in arcmin of the Gaussian that the map was smoothed with across the sky; what a survey adds
        is smoothed alike.
    resolution
        R, wavelength over width, of the channels; 0 where it is not said.
    """

    name: str
    shape: tuple[int, ...]
    unit: str
    axes: tuple[str, ...]
    cell_size: tuple[float, ...]
    channels: tuple[float, ...]
    symmetry: "Symmetry"
    coordinates: tuple[float, ...] = ()
    field_of_view: float = 0.0
    smoothing: float = 0.0
    resolution: float = 0.0

    @property
    def cells(self) -> tuple[int, ...]:
        """Return the shape without the channel axis."""
        return self.shape[1:]

    @property
    def box_length(self) -> tuple[float, ...]:
        """Return the side lengths in comoving Mpc."""
        return tuple(n * size for n, size in zip(self.cells, self.cell_size, strict=True))

    @property
    def nbytes(self) -> int:
        """Return the size of one array on disk in bytes."""
        return 4 * int(np.prod(self.shape))


@dataclass(frozen=True)
class Symmetry:
    """Symmetries of the model behind an observable, used to augment training data.

    Attributes
    ----------
    periodic
        Whether the cube may be rolled along each cell axis.
    rotations
        ``"all"``: every cell axis may be swapped with and reflected like any other;
        ``"transverse"``: only the axes before the last (the line of sight);
        ``"none"``: neither.
    """

    periodic: tuple[bool, ...]
    rotations: Literal["all", "transverse", "none"]


@runtime_checkable
class Simulator(Protocol):
    """Forward model: theta and a seed in, clean arrays out, deterministic in both."""

    @property
    def kind(self) -> str:
        """Name under which `simulators.build` finds the class."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters that vary (P of them), in the order of theta."""

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Arrays that `simulate` returns; the first one is the image."""

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed."""

    @property
    def seconds_per_row(self) -> float:
        """Rough cost of one row on one core, for the preflight line only."""

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Run the model at `theta` (P,) with `seed` < 2**32.

        Raises
        ------
        SimulationError
            If the model cannot be computed.
        """

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where `simulate` would refuse theta (P,) without running."""

    def settings(self) -> dict[str, Any]:
        """Return everything that `simulators.build` needs to make this object again."""

    def fingerprint(self) -> str:
        """Hash all settings and the simulator's version."""


class SimulatorSettings(BaseModel):
    """Base of the simulators in this package: an immutable ``[simulator]`` table.

    Subclasses declare their settings as pydantic fields and implement
    `parameters`, `observables` and `simulate`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Raise it when the same settings would give other numbers.
    version: ClassVar[str] = "1"

    kind: str

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters that vary (P of them), in the order of theta."""

    @property
    @abstractmethod
    def observables(self) -> tuple[Observable, ...]:
        """Arrays that `simulate` returns; the first one is the image."""

    @abstractmethod
    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Run the model at `theta` (P,) with `seed`."""

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed."""
        return 1

    @property
    def views_of_a_run(self) -> int:
        """Number of successive rows of a bank that are views of one run: `simulate` takes ``view``, from 0 on."""
        return 1

    @property
    def seconds_per_row(self) -> float:
        """Rough cost of one row on one core, for the preflight line only."""
        return 0.01

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where `simulate` would refuse theta (P,) without running."""
        check_theta(self.parameters, theta)

    def settings(self) -> dict[str, Any]:
        """Return the settings ready for JSON, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)

    def remedy(self, other: dict[str, Any]) -> str:
        """Say which keys would give the simulator with the settings `other`; empty where there is nothing to say."""
        return ""

    def fingerprint(self) -> str:
        """Hash the class, its version and all settings."""
        return fingerprint_of({"class": type(self).__name__, "version": self.version, **self.settings()})


def fingerprint_of(content: dict[str, Any]) -> str:
    """Hash JSON-ready content, independent of key order; the hash is 16 characters long."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def derived_seed(*entropy: int) -> int:
    """Derive a seed that depends on every number of `entropy` and on their count.

    It is below 2**32: 21cmFAST keeps the low 32 bits of a seed.
    """
    # SeedSequence pads with zeros: without the length (s,) and (s, 0) would be the same.
    return int(np.random.SeedSequence((len(entropy), *entropy)).generate_state(1, np.uint32)[0])


def check_theta(parameters: tuple[Parameter, ...], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return theta as float64 (P,), or raise if it cannot be simulated.

    Raises
    ------
    SimulationError
        If the length is wrong or a value is NaN or infinite.
    """
    theta = np.asarray(theta, dtype=np.float64)
    names = ", ".join(parameter.name for parameter in parameters)
    if theta.shape != (len(parameters),):
        raise SimulationError(f"theta has shape {theta.shape}, expected ({len(parameters)},): {names}")
    for parameter, value in zip(parameters, theta, strict=True):
        if not np.isfinite(value):
            raise SimulationError(f"{parameter.name} = {value}: every parameter must be a finite number")
    return theta
