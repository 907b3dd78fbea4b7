"""Targets: derived quantities of simulations that are inferred in place of theta, or beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import WorkError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from simulators import Observable, Parameter

#: True targets of a mock, in the run folder.
FILE = "targets.json"
#: Rows whose arrays are read at once.
BATCH = 256


@dataclass(frozen=True)
class Target:
    """One number of each simulation.

    Attributes
    ----------
    name, label, unit
        Name in chains, label in LaTeX, unit.
    observable
        Name of the array that it is the mean of; None for a parameter.
    column
        Number of the parameter in theta, or of the array's channel.
    coordinate
        Place along the array's last axis, between whose values it is interpolated; None for the mean of all cells.
    """

    name: str
    label: str
    unit: str
    observable: str | None
    column: int
    coordinate: float | None = None

    def of_arrays(self, arrays: NDArray[np.float32], observable: Observable) -> NDArray[np.float64]:
        """Compute the target (n,) of arrays (n, C, *cells)."""
        channel = arrays[:, self.column].astype(np.float64)
        if self.coordinate is None:
            return np.asarray(channel.reshape(len(arrays), -1).mean(1))
        profile = channel.reshape(len(arrays), -1, channel.shape[-1]).mean(1)
        order = np.argsort(observable.coordinates)
        at = np.array(observable.coordinates)[order]
        return np.array([np.interp(self.coordinate, at, row[order]) for row in profile])


def parse_targets(
    names: Sequence[str], parameters: Sequence[Parameter], observables: Sequence[Observable]
) -> tuple[Target, ...]:
    """Find what ``[inference] targets`` names.

    Parameters
    ----------
    names
        Each a parameter, an array of the simulator (its mean, for each channel), or ``"ARRAY@COORDINATE"``.
    parameters, observables
        Those of the simulator.

    Raises
    ------
    ValueError
        If a name is none of these; the message says what there is.
    """
    targets: list[Target] = []
    arrays = {o.name: o for o in observables}
    of_theta = {p.name: (i, p) for i, p in enumerate(parameters)}
    for name in names:
        if name in of_theta:
            i, p = of_theta[name]
            targets.append(Target(p.name, p.label, p.unit, None, i))
            continue
        array, _, place = name.partition("@")
        if array not in arrays:
            there = ", ".join([*of_theta, *arrays])
            raise ValueError(f'targets: "{name}" is no parameter and no array of the simulator, which has {there}')
        targets += _of_array(name, arrays[array], place)
    if twice := sorted({t.name for t in targets if [u.name for u in targets].count(t.name) > 1}):
        raise ValueError(f"targets: {', '.join(twice)} is named twice")
    return tuple(targets)


def _of_array(name: str, o: Observable, place: str) -> list[Target]:
    """Targets of one array: one for each of its channels."""
    text = rf"\langle {o.name} \rangle".replace("_", r"\_")
    coordinate: float | None = None
    suffix = ""
    if place:
        try:
            coordinate = float(place)
        except ValueError:
            raise ValueError(f'targets: "{name}": {place!r} is no number') from None
        if not o.coordinates:
            raise ValueError(f'targets: "{name}": {o.name} has no coordinates; name it without @')
        low, high = min(o.coordinates), max(o.coordinates)
        if not low <= coordinate <= high:
            raise ValueError(f'targets: "{name}": {o.name} has {o.axes[-1]} from {low:g} to {high:g}')
        suffix = f"_{coordinate:g}"
    several = len(o.channels) > 1
    return [
        Target(
            f"{o.name}{suffix}{f'_{o.axes[0]}{c:g}' if several else ''}",
            rf"{{\rm {text}}}" + (rf"\,({coordinate:g})" if place else "") + (rf"\,[{c:g}]" if several else ""),
            o.unit,
            o.name,
            i,
            coordinate,
        )
        for i, c in enumerate(o.channels)
    ]


def target_values(bank: Bank, rows: Rows, targets: Sequence[Target]) -> NDArray[np.float64]:
    """Compute the T targets of rows: (n, T)."""
    values = np.empty((len(rows), len(targets)))
    by_name = {o.name: o for o in bank.observables}
    for i, target in enumerate(targets):
        if target.observable is None:
            values[:, i] = rows.theta[:, target.column]
    for name in sorted({t.observable for t in targets if t.observable is not None}):
        for start in range(0, len(rows), BATCH):
            block = slice(start, start + BATCH)
            arrays = bank.read(name, rows[block])
            for i, target in enumerate(targets):
                if target.observable == name:
                    values[block, i] = target.of_arrays(arrays, by_name[name])
    return values


def target_rows(bank: Bank, rows: Rows, targets: Sequence[Target]) -> Rows:
    """Return rows with the targets (n, T) in the place of theta."""
    return replace(rows, theta=target_values(bank, rows, targets))


def target_prior(rows: Rows, targets: Sequence[Target]) -> Prior:
    """Estimate the prior that simulations give the targets, from rows that have them in the place of theta.

    Raises
    ------
    WorkError
        If a target is the same in all simulations, or there are too few for a density.
    """
    low, high = rows.theta.min(0), rows.theta.max(0)
    for target, a, b in zip(targets, low, high, strict=True):
        if not a < b:
            raise WorkError(f"[inference] targets: {target.name} is {a:g} in all {len(rows)} simulations")
    parameters = tuple(
        Parameter(t.name, t.label, float(a), float(b), float((a + b) / 2), t.unit)
        for t, a, b in zip(targets, low, high, strict=True)
    )
    samples = Samples.unweighted(rows.theta, parameters, "prior")
    try:
        return Prior.from_samples(samples)
    except ValueError as error:
        raise WorkError(f"[inference] targets: no density of {len(rows)} simulations: {error}") from error


def write_true_targets(
    folder: Path,
    targets: Sequence[Target],
    theta: NDArray[np.float64],
    arrays: Mapping[str, NDArray[np.float32]],
    observables: Sequence[Observable],
) -> None:
    """Write the targets of a mock, of parameters (P,) and arrays (C, *cells), to ``targets.json`` in a run folder."""
    by_name = {o.name: o for o in observables}
    truth = {
        t.name: float(theta[t.column])
        if t.observable is None
        else float(t.of_arrays(arrays[t.observable][None], by_name[t.observable])[0])
        for t in targets
    }
    write_json(folder / FILE, {"targets": [asdict(t) for t in targets], "truth": truth})


def read_true_targets(folder: Path) -> dict[str, float]:
    """Read the true targets of a run's mock by name; empty where there are none."""
    path = folder / FILE
    return {name: float(value) for name, value in read_json(path)["truth"].items()} if path.exists() else {}
