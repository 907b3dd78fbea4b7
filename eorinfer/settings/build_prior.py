"""The prior of a config: ranges, densities and the files that they are in."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.dependence import Dependence
from eorinfer.core.errors import InputError, naming
from eorinfer.core.marginals import ENDS, LogUniform, Marginal, Normal, Table
from eorinfer.core.prior import Prior
from eorinfer.core.reading import read_text
from eorinfer.core.samples import Samples
from eorinfer.settings.explain import instead
from eorinfer.settings.prior import Density, PriorSettings, Range
from simulators import Parameter, SimulationError

#: Width of a range, over its larger end, that single precision can tell apart.
NARROWEST = 1e-5
#: Share of samples outside of a parameter's own range up to which they are cut.
CUT = 0.01


def build_prior(
    path: Path,
    settings: PriorSettings,
    parameters: Sequence[Parameter],
    check: Callable[[NDArray[np.float64]], None] | None = None,
) -> Prior:
    """Build the prior of some parameters.

    Parameters
    ----------
    path
        Config, named in errors; files are looked for beside it.
    settings, parameters
        ``[prior]`` and what it is for; a parameter that it does not name is flat in its own range.
    check
        Simulator's, which raises `SimulationError` at a corner that it refuses.

    Raises
    ------
    InputError
        If a name is unknown, a range or a file is not what it should be, or the simulator refuses a corner.
    """
    parameters = list(parameters)
    names = [p.name for p in parameters]
    marginals: dict[str, Marginal] = {}
    for name, entry in settings.entries.items():
        where = f"{path}: [prior] {name}"
        if name not in names:
            raise InputError(f"{where}: {instead(name, names, 'parameter')}")
        i = names.index(name)
        ends = _range_alone(entry)
        if ends is None:
            assert isinstance(entry, Density)
            marginals[name] = _marginal(where, entry, parameters[i], path.parent)
        else:
            low, high = _checked(where if ends is entry else f"{where}.range", ends)
            parameters[i] = replace(parameters[i], low=low, high=high)
    dependence = None
    if settings.table is not None:
        where = f"{path}: [prior] table"
        cut_at = {
            name for name, entry in settings.entries.items() if isinstance(entry, Density) and _range_alone(entry)
        }
        joint, dependence = _joint(where, path.parent / settings.table, parameters, cut_at)
        if both := sorted(joint.keys() & (settings.entries.keys() - cut_at)):
            raise InputError(
                f"{where}: {settings.table} has {', '.join(both)} too; give each parameter once, or {both[0]}.range = "
                "[low, high] to cut the table there"
            )
        marginals |= joint
    prior = Prior.from_marginals(tuple(parameters), marginals, dependence)
    if check is not None:
        with naming(f"{path}: [prior] ", SimulationError):
            for corner in (prior.low, prior.high):
                check(corner)
    return prior


def _range_alone(entry: Range | Density) -> Range | None:
    """Ends of an entry that is a range without a density; None for others."""
    if not isinstance(entry, Density):
        return entry
    return entry.range if (entry.normal, entry.log_uniform, entry.table) == (None, None, None) else None


def _checked(where: str, ends: Range) -> Range:
    low, high = ends
    if not (np.isfinite([low, high, high - low]).all() and low < high):
        raise InputError(f"{where} = [{low}, {high}]: must be [low, high], finite, low below high")
    if high - low < NARROWEST * max(abs(low), abs(high)):
        raise InputError(f"{where} = [{low}, {high}]: the ends are too close; give a wider range")
    return low, high


def _marginal(where: str, entry: Density, parameter: Parameter, folder: Path) -> Marginal:
    low, high = (parameter.low, parameter.high) if entry.range is None else _checked(f"{where}.range", entry.range)
    if entry.log_uniform is not None:
        low, high = _checked(f"{where}.log_uniform", entry.log_uniform)
        if low <= 0:
            raise InputError(f"{where}.log_uniform = [{low}, {high}]: must be above 0")
        return LogUniform(low, high)
    if entry.normal is not None:
        mean, sigma = entry.normal
        if not (np.isfinite([mean, sigma]).all() and sigma > 0):
            raise InputError(f"{where}.normal = [{mean}, {sigma}]: must be [mean, sigma], finite, sigma above 0")
        low, high = max(low, mean - ENDS * sigma), min(high, mean + ENDS * sigma)
        if not low < high:
            raise InputError(
                f"{where}.normal = [{mean}, {sigma}]: has nothing in the range, which is "
                f"[{parameter.low:g}, {parameter.high:g}]; give another range = [low, high]"
            )
        _checked(f"{where}.normal = [{mean}, {sigma}], so that its range", (low, high))
        return Normal(low, high, mean, sigma)
    assert entry.table is not None
    file = folder / entry.table
    columns = _numbers(where, file, _rows(where, file))
    with naming(f"{where}: {file}: "):
        if columns.shape[1] != 2:
            raise ValueError(f"has {columns.shape[1]} columns instead of two, a parameter and its density")
        return Table.from_points(columns[:, 0], columns[:, 1], low, high)


def _joint(
    where: str, file: Path, parameters: Sequence[Parameter], cut_at: Collection[str]
) -> tuple[dict[str, Marginal], Dependence | None]:
    """Densities of the parameters that samples have, and how these depend on each other.

    What lies outside of the parameters' ranges is cut; more than a little only where it is asked for (`cut_at`).
    """
    samples = _read_samples(where, file)
    own = {p.name: p for p in samples.parameters}
    found = [
        replace(p, low=max(p.low, own[p.name].low), high=min(p.high, own[p.name].high))
        for p in parameters
        if p.name in own
    ]
    if not found:
        raise InputError(f"{where}: {file} has none of {', '.join(p.name for p in parameters)}")
    samples = samples.only([p.name for p in found])
    low, high = (np.array([getattr(p, end) for p in found]) for end in ("low", "high"))
    within = (samples.values >= low) & (samples.values <= high)
    inside = within.all(1) & (samples.weights > 0)
    lost = 1 - samples.weights @ within / samples.weights.sum()
    asked = np.array([p.name in cut_at for p in found])
    if not inside.any() or (lost[~asked] > CUT).any():
        most = int(np.where(asked & inside.any(), 0, lost).argmax())
        p = next(p for p in parameters if p.name == found[most].name)
        raise InputError(
            f"{where}: {file}: {lost[most]:.0%} of the samples have {p.name} outside of [{p.low:g}, {p.high:g}]; give "
            f"{p.name}.range = [low, high], a wider one or the one to cut them at"
        )
    ranged = replace(samples, values=samples.values[inside], weights=samples.weights[inside], parameters=tuple(found))
    with naming(f"{where}: {file}: "):
        joint = Prior.from_samples(ranged)
    marginals = {name: m for name, m in zip(joint.names, joint.marginals, strict=True) if m is not None}
    columns = tuple(i for i, p in enumerate(parameters) if p.name in marginals)
    return marginals, None if joint.dependence is None else replace(joint.dependence, columns=columns)


def _read_samples(where: str, file: Path) -> Samples:
    """Read a chain by its root (or its ``.txt``), or a table whose first line names the columns."""
    root = file.with_suffix("") if file.suffix == ".txt" else file
    if root.with_name(root.name + ".paramnames").exists():
        with naming(f"{where}: ", InputError):
            return Samples.read(root)
    if not file.is_file():
        raise InputError(f"{where}: {file} is neither a table nor the root of a chain (ROOT.txt, ROOT.paramnames)")
    lines = _rows(where, file)
    if not lines:
        raise InputError(f"{where}: {file} is empty; its first line must name the columns")
    head, *rows = lines
    names = head.lstrip("#").replace(",", " ").split()
    values = _numbers(where, file, rows)
    if len(names) != values.shape[1]:
        raise InputError(f"{where}: {file}: the first line must name each of the {values.shape[1]} columns")
    parameters = tuple(Parameter(name, name, -np.inf, np.inf, np.nan) for name in names)
    return Samples.unweighted(values, parameters, file.name)


def _rows(where: str, file: Path) -> list[str]:
    """Lines that are not empty; comments, but for the first line, are left out."""
    with naming(f"{where}: ", InputError):
        lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return lines[:1] + [line for line in lines[1:] if not line.startswith("#")]


def _numbers(where: str, file: Path, rows: Sequence[str]) -> NDArray[np.float64]:
    """Columns (n, C) of numbers, apart by commas or blanks."""
    try:
        values = np.array([[float(x) for x in row.replace(",", " ").split()] for row in rows if row[0] != "#"])
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError("is empty, or has values that are not finite")
    except ValueError as error:
        raise InputError(f"{where}: {file}: must be a table of numbers ({error})") from error
    return values
