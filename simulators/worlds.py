"""Several simulators of the same parameters as one: each realisation is made by one of them, a world.

Which simulation to train on is a nuisance like any other. A table ``[simulator]`` with ``worlds = [{...}, {...}]`` has
the keys of each world that differ from its own; a posterior that is trained on all of them marginalises over the world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.base import Observable, Parameter, SimulationError, Simulator, derived_seed, fingerprint_of

#: Stream by which a realisation's seed chooses its world.
STREAM = 0x301D
#: Parts of an observable that all worlds share; coordinates and symmetries too, see `_problem`.
SAME = ("name", "shape", "unit", "axes", "channels")


class WorldError(ValueError):
    """Raised where a world cannot be made; `number` counts from 0, `__cause__` is the error of its table."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"worlds[{number}]: {text}")
        self.number = number


@dataclass(frozen=True)
class Worlds:
    """Simulators with the same parameters and observables, as one simulator.

    Parameters, observables and the default prior are those of the first world, and each world accepts the others'.

    Attributes
    ----------
    names
        Name of each of the W worlds.
    simulators
        Simulator of each world.
    trained
        Numbers of the worlds that realisations draw from; the others make test observations only.
    """

    names: tuple[str, ...]
    simulators: tuple[Simulator, ...]
    trained: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.trained:
            raise ValueError("worlds: train = false in all of them; one must be left to train on")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"worlds: {', '.join(self.names)}: each needs a name of its own")
        for number, other in enumerate(self.simulators[1:], 1):
            if problem := _problem(self.first, other):
                raise WorldError(number, problem)

    @property
    def first(self) -> Simulator:
        """The first world's simulator, which describes parameters and observables."""
        return self.simulators[0]

    @property
    def kind(self) -> str:
        """Kind of the first world."""
        return self.first.kind

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters that vary (P of them), in the order of theta."""
        return self.first.parameters

    @cached_property
    def observables(self) -> tuple[Observable, ...]:
        """Arrays that `simulate` returns, with the symmetries that all worlds have."""
        each = zip(*(simulator.observables for simulator in self.simulators), strict=True)
        return tuple(min(same, key=_symmetries) for same in each)

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed, and so one world."""
        return self.first.rows_per_realisation

    @property
    def views_of_a_run(self) -> int:
        """Number of successive rows of a bank that are views of one run."""
        return int(getattr(self.first, "views_of_a_run", 1))

    @property
    def seconds_per_row(self) -> float:
        """Mean cost of a row on one core, in seconds."""
        return float(np.mean([simulator.seconds_per_row for simulator in self.simulators]))

    def world_of(self, seed: int) -> int:
        """Draw the number of the world that makes the realisation with this seed."""
        return self.trained[derived_seed(seed, STREAM) % len(self.trained)]

    def number(self, name: str) -> int:
        """Find the number of a world.

        Raises
        ------
        ValueError
            If there is none of that name; the message lists the names.
        """
        if name not in self.names:
            raise ValueError(f'"{name}" is no world: one of {", ".join(self.names)}')
        return self.names.index(name)

    def counts(self, world: NDArray[np.int64]) -> dict[str, int]:
        """Count rows by the name of their world, from numbers (n,); worlds without any are left out."""
        counted = {name: int((world == number).sum()) for number, name in enumerate(self.names)}
        return {name: n for name, n in counted.items() if n}

    def simulate(
        self, theta: NDArray[np.float64], seed: int, view: int = 0, world: int | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run one world at `theta` (P,): the one with number `world`, by default the one that the seed draws.

        Raises
        ------
        SimulationError
            If that world's model cannot be computed.
        """
        simulator = self.simulators[self.world_of(seed) if world is None else world]
        which = {"view": view} if view else {}
        return simulator.simulate(theta, seed, **which)

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where one of the worlds would refuse theta (P,) without running."""
        for name, simulator in zip(self.names, self.simulators, strict=True):
            try:
                simulator.check(theta)
            except SimulationError as error:
                raise SimulationError(f"world {name}: {error}") from error

    def check_available(self) -> None:
        """Raise `SimulationError` where a package that a world needs is missing."""
        for simulator in self.simulators:
            if hasattr(simulator, "check_available"):
                simulator.check_available()

    def settings(self) -> dict[str, Any]:
        """Return the first world's settings, with ``worlds`` as the keys of each world that differ from them."""
        base = self.first.settings()
        worlds = []
        for number, (name, simulator) in enumerate(zip(self.names, self.simulators, strict=True)):
            own = {key: value for key, value in simulator.settings().items() if value != base.get(key)}
            worlds.append({"name": name} | ({} if number in self.trained else {"train": False}) | own)
        return base | {"worlds": worlds}

    def fingerprint(self) -> str:
        """Hash the fingerprints of all worlds in their order, and which are trained on."""
        return self.fingerprint_from([simulator.fingerprint() for simulator in self.simulators])

    def fingerprint_from(self, fingerprints: Sequence[str]) -> str:
        """Hash fingerprints of the worlds, which may include the code of a user's own."""
        return fingerprint_of({"worlds": list(fingerprints), "trained": list(self.trained)})


def split_table(table: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]], list[int]]:
    """Split a ``[simulator]`` table with ``worlds`` into their names, whole tables, and the numbers to train on.

    Raises
    ------
    ValueError
        If ``worlds`` is no list of at least one table, or one of them has worlds of its own.
    """
    worlds = table["worlds"]
    if not isinstance(worlds, Sequence) or isinstance(worlds, str) or not worlds:
        raise ValueError('worlds: must be a list of tables: worlds = [{}, { name = "other", KEY = value }]')
    base = {key: value for key, value in table.items() if key != "worlds"}
    names: list[str] = []
    tables, trained = [], []
    for number, own in enumerate(worlds):
        if not isinstance(own, Mapping):
            raise WorldError(number, "must be a table of the keys that differ: { KEY = value }")
        if "worlds" in own:
            raise WorldError(number, "worlds inside of a world")
        name = own.get("name", f"world-{number + 1}")
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise WorldError(number, f"name = {name!r}: must be text in quotes")
        if not isinstance(train := own.get("train", True), bool):
            raise WorldError(number, f"train = {train!r}: must be true or false")
        names.append(name)
        trained += [number] * train
        tables.append(base | {key: value for key, value in own.items() if key not in ("name", "train")})
    return names, tables, trained


def refuse_unknown(key: str, name: str, worlds: Worlds | None) -> None:
    """Refuse the name of a world that there is not, with a ValueError that begins with the key."""
    if worlds is None:
        raise ValueError(f'{key}: "{name}": [simulator] has no worlds = [{{}}, {{ name = "{name}", ... }}]')
    try:
        worlds.number(name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def worlds_of(simulator: Simulator) -> Worlds | None:
    """Return the simulator if it has worlds, else None."""
    return simulator if isinstance(simulator, Worlds) else None


def first_world(simulator: Simulator) -> Simulator:
    """Return the simulator, or the first of its worlds."""
    return simulator.first if isinstance(simulator, Worlds) else simulator


def world_names(simulator: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in the settings of a simulator; none without worlds."""
    return tuple(split_table(simulator)[0]) if simulator.get("worlds") else ()


def _problem(first: Simulator, other: Simulator) -> str:
    """Say what two worlds do not share; empty where they can be one simulator."""
    ours, theirs = ([p.name for p in s.parameters] for s in (first, other))
    if ours != theirs:
        return (
            f"its parameters are {', '.join(theirs)}, those of the first world {', '.join(ours)}; they must be the same"
        )
    names, others = ([o.name for o in s.observables] for s in (first, other))
    if names != others:
        return f"its observables are {', '.join(others)}, those of the first world {', '.join(names)}"
    for a, b in zip(first.observables, other.observables, strict=True):
        for key in SAME:
            if getattr(a, key) != getattr(b, key):
                return f"{a.name}: {key} is {getattr(b, key)}, that of the first world {getattr(a, key)}"
        if not np.allclose(a.cell_size, b.cell_size, rtol=1e-6):
            return f"{a.name}: cell_size is {b.cell_size}, that of the first world {a.cell_size}"
    if first.rows_per_realisation != other.rows_per_realisation:
        return "rows_per_realisation must be the same in all worlds"
    return ""


def _symmetries(observable: Observable) -> tuple[int, int]:
    """Count what may be changed: rolled axes, and kinds of rotations."""
    return sum(observable.symmetry.periodic), ("none", "transverse", "all").index(observable.symmetry.rotations)
