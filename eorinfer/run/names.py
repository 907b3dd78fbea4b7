"""Names, labels and sizes of a simulator, checked when the config is read and not hours later."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from eorinfer.core.errors import InputError
from eorinfer.figures.style import is_mathtext
from simulators import Observable, Parameter

#: Characters that no name has: getdist's patterns and comments, and what separates names from values.
FORBIDDEN = "*?#=/\\"
#: Characters of a name or a label.
LONGEST = 200


def check_names(path: Path, parameters: Sequence[Parameter], observables: Sequence[Observable]) -> None:
    """Refuse names that would end a run hours later, when chains are written and drawn; `path` is named in errors.

    Raises
    ------
    InputError
        Saying which name or label, and what would be right.
    """
    for what, names in (("parameter", [p.name for p in parameters]), ("array", [o.name for o in observables])):
        for i, name in enumerate(names):
            where = f"{path}: [simulator] {what} {name[:LONGEST]!r}"
            if not name or any(c.isspace() or not c.isprintable() or c in FORBIDDEN for c in name):
                raise InputError(f"{where}: a name has no spaces and none of {' '.join(FORBIDDEN)}")
            if len(name) > LONGEST:
                raise InputError(f"{where}: a name has at most {LONGEST} characters")
            if name in names[:i]:
                raise InputError(f"{where}: is there twice")
    for p in parameters:
        where = f"{path}: [simulator] {p.name}: label = {p.label[:LONGEST]!r}"
        if "$" in p.label:
            raise InputError(f"{where}: labels are LaTeX without dollar signs, such as {p.label.replace('$', '')!r}")
        # A name that is its own label is drawn as text.
        if p.label not in ("", p.name) and (len(p.label) > LONGEST or not is_mathtext(f"${p.label}$")):
            raise InputError(f"{where}: matplotlib cannot draw it as LaTeX of at most {LONGEST} characters")


def check_sizes(path: Path, observables: Sequence[Observable]) -> None:
    """Refuse cubes that this machine cannot hold.

    Raises
    ------
    InputError
        Saying how large they are.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = sum(4 * math.prod(observable.shape) for observable in observables)
    if size > memory:
        raise InputError(
            f"{path}: [simulator] a simulation has arrays of {size / 1e9:.3g} GB; "
            f"this machine has {memory / 1e9:.3g} GB"
        )
