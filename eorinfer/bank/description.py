"""``bank.json``: what a bank says of its simulator, its parameters and the arrays of a row."""

import json
import math
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import simulators
from eorinfer.bank.chunks import DamageError
from eorinfer.bank.shards import DAMAGE, FORMAT, attributes, first_line
from eorinfer.core.errors import InputError
from eorinfer.core.reading import refuse_surroundings
from simulators import Observable, Parameter, Simulator
from simulators.registry import earlier_fingerprints, own_sources
from simulators.sources import digests, root_of

#: Largest size of one array of a row in bytes.
MOST_OF_A_ROW = 64e9


def describe(simulator: Simulator) -> dict[str, Any]:
    """Return the content of a new ``bank.json``."""
    return {
        "format": FORMAT,
        "simulator": simulator.settings(),
        "fingerprint": simulators.fingerprint(simulator),
        "parameters": [asdict(p) for p in simulator.parameters],
        "observables": [asdict(o) for o in simulator.observables],
        "packages": package_versions(),
    } | ({"sources": digests(files)} if (files := own_sources(simulator)) else {})


def check(description: dict[str, Any]) -> None:
    """Make sure that a description has what a bank needs, and no name or size that is none.

    Raises
    ------
    DamageError, and others of `DAMAGE`
        If it does not.
    """
    kind, observables = description["simulator"]["kind"], observables_of(description)
    if not (parameters_of(description) and observables and description["fingerprint"] and isinstance(kind, str)):
        raise DamageError("parameters, observables, simulator or fingerprint are missing")
    for note in description.get("notes", {}).values():
        texts = [note["proposal"], *note["warnings"]]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise DamageError("a note of an import is no plain text")
    if not all(isinstance(id, str) for id in description.get("imports", [])):
        raise DamageError("the list of imports is none of names")
    for o in observables:
        if not isinstance(o.name, str) or not o.name or "/" in o.name or o.name in (".", ".."):
            raise DamageError(f"{o.name!r} is no name of an observable")
        sizes = all(isinstance(n, int) and n > 0 for n in o.shape)
        if len(o.shape) < 2 or not sizes or 4 * math.prod(o.shape) > MOST_OF_A_ROW:
            raise DamageError(f"{o.name} of a row cannot have the shape {o.shape}")


def parameters_of(description: dict[str, Any]) -> tuple[Parameter, ...]:
    """Read the P parameters, in the order of theta."""
    return tuple(Parameter(**p) for p in description["parameters"])


def observables_of(description: dict[str, Any]) -> tuple[Observable, ...]:
    """Read the arrays of a row."""
    return tuple(observable_from_json(o) for o in description["observables"])


def refuse_other(path: Path, description: dict[str, Any], simulator: Simulator) -> None:
    """Compare a simulator with that of the bank at `path`.

    Raises
    ------
    InputError
        If it is another one; the message names the settings that differ.
    """
    ours, theirs = simulators.fingerprint(simulator), str(description["fingerprint"])
    if theirs in (ours, *earlier_fingerprints(simulator)) or _differs_in_texts(description, simulator):
        return
    old, new = description["simulator"], json.loads(json.dumps(simulator.settings()))
    # A setting that an old bank does not know, at the value that changes nothing, is no difference.
    later = getattr(type(simulator), "later", {})
    changed = [
        f"{k}: bank {_brief(old.get(k))}, config {_brief(new.get(k))}"
        for k in sorted({*old, *new})
        if old.get(k, later.get(k)) != new.get(k)
    ]
    if "sources" in description:
        files = own_sources(simulator)
        before, now = description["sources"], digests(files)
        edited = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        changed += [f"{_shown(name, files.get(name))} has been edited" for name in edited]
    remedy = simulator.remedy(old) if hasattr(simulator, "remedy") else ""
    raise InputError(
        f"{path}: holds the bank of another simulator (fingerprint {theirs}, "
        f"yours {ours}; {'; '.join(changed) or 'same settings, other version or source'}); "
        f"{remedy and remedy + '; else '}give another --out or [bank] path"
    )


def fingerprint_of_shards(path: Path, simulator: Simulator) -> str:
    """Return the fingerprint for a new description: that of the shards, where a bank has lost its own.

    Raises
    ------
    InputError
        If they are of another simulator.
    """
    ours = simulators.fingerprint(simulator)
    for shard in sorted((path / "shards").glob("[!.]*.h5"))[:1]:
        try:
            theirs = str(attributes(shard)["fingerprint"])
        except DAMAGE as error:
            refuse_surroundings(shard, error)
            theirs = f"not readable: {first_line(error)}"
        if theirs not in (ours, *earlier_fingerprints(simulator)):
            raise InputError(
                f"{path}: bank.json is missing, and {shard.name} is of another simulator (fingerprint {theirs}, "
                f"yours {ours}); give another --out or [bank] path"
            )
        return theirs
    return ours


def observable_from_json(content: dict[str, Any]) -> Observable:
    """Make an observable from the JSON of its `dataclasses.asdict`."""
    fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    symmetry = fixed.pop("symmetry")
    return Observable(**fixed, symmetry=simulators.Symmetry(tuple(symmetry["periodic"]), symmetry["rotations"]))


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in ("eorinfer", "21cmFAST", "numpy", "scipy", "h5py", "torch", "sbi", "lightning", "emcee"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _differs_in_texts(description: dict[str, Any], simulator: Simulator) -> bool:
    """Tell whether an older version's bank of imported cubes has other labels or units alone."""
    if simulator.kind != "imported" or description["simulator"].get("kind") != "imported":
        return False
    try:
        return simulators.build(description["simulator"]).fingerprint() == simulator.fingerprint()
    except ValueError:
        return False


def _shown(name: str, file: Path | None) -> str:
    """Name a module by its file, from the folder that its imports start from."""
    return name if file is None else str(file.relative_to(root_of(file, name)))


def _brief(value: object) -> str:
    """Write a setting; of a long list its length and ends."""
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} values from {value[0]!r} to {value[-1]!r}"
    return repr(value)
