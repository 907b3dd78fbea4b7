"""The import table: who may know of whom, checked by reading every module's syntax tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Packages from the top floor down: a package imports from its own row and from the rows below it.
FLOORS: list[set[str]] = [
    {"benchmarks"},
    {"eorinfer.cli"},
    {"eorinfer.contest", "eorinfer.studies"},
    {"eorinfer.run"},
    {
        *("eorinfer.npe", "eorinfer.likelihood", "eorinfer.imageflow", "eorinfer.combined"),
        *("eorinfer.separation", "eorinfer.report"),
    },
    {"eorinfer.figures"},
    {"eorinfer.campaign", "eorinfer.training", "eorinfer.validation"},
    {"eorinfer.bank", "eorinfer.summaries", "eorinfer.networks", "eorinfer.survey"},
    {"eorinfer.core", "eorinfer.cubes", "eorinfer.settings"},
    {"simulators"},
]
#: Stricter than the order: these know nothing of banks and files.
NOTHING_OF_RUNS = ("eorinfer.survey", "eorinfer.summaries", "eorinfer.networks")
OF_RUNS = ("eorinfer.bank", "eorinfer.core.files", "eorinfer.cubes.observation")
#: Packages that only some modules may touch.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "sbi": (
        "eorinfer.networks.density",
        "eorinfer.validation.calibration",
        "eorinfer.validation.local",
        "eorinfer.validation.uniformity",
    ),
    "lightning": ("eorinfer.training", "eorinfer.separation", "eorinfer.npe", "eorinfer.imageflow"),
    "emcee": ("eorinfer.likelihood.mcmc", "eorinfer.likelihood.chain_file", "eorinfer.figures.chain"),
    "torch": (
        *(*NOTHING_OF_RUNS, "eorinfer.core.arrays", "eorinfer.training", "eorinfer.validation"),
        *("eorinfer.npe", "eorinfer.likelihood", "eorinfer.imageflow", "eorinfer.separation"),
        *("eorinfer.combined", "eorinfer.figures", "eorinfer.run", "eorinfer.studies", "eorinfer.contest"),
    ),
    "hmf": ("simulators.lim.cosmology",),
    "py21cmfast": ("simulators.reionization",),
    "tools21cm": ("eorinfer.survey.positions",),
    "kymatio": ("eorinfer.summaries.scattering",),
    "distributed": ("eorinfer.campaign.executors",),
    "mpi4py": ("eorinfer.campaign.executors",),
    "getdist": ("eorinfer.core.samples", "eorinfer.figures.corner"),
}
#: Modules that a worker or the checking of a config loads.
LIGHT = [
    "simulators",
    "eorinfer",
    "eorinfer.campaign.child",
    "eorinfer.campaign.fill",
    "eorinfer.run.config",
    "eorinfer.cli",
    "eorinfer.campaign.executors",
    "eorinfer.core.samples",
]


def modules() -> dict[str, Path]:
    """Return the file of each module of the two packages and of ``benchmarks/``, by dotted name."""
    paths = [path for top in ("simulators", "eorinfer", "benchmarks") for path in sorted(ROOT.glob(f"{top}/**/*.py"))]
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Return what a file imports anywhere; `from package import module` and a script's neighbour count as modules."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    if name == "eorinfer":  # what it names for type checkers is imported by name, at first use
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {member if member in modules else str(node.module) for member in members}
    neighbours = {other: f"{name.rpartition('.')[0]}.{other}" for other in names}
    return {neighbours[other] if neighbours[other] in modules else other for other in names}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def package_of(name: str) -> str:
    """Return the package of the table that a module is in; the top of `eorinfer` only looks names up."""
    fits = [package for row in FLOORS for package in row if inside(name, package)]
    assert len(fits) == 1 or name == "eorinfer", f"{name} has no place, or two, in FLOORS"
    return fits[0] if fits else "eorinfer.core"


def floor(name: str) -> int:
    """Return the number of a module's row, counted from the ground."""
    return next(i for i, row in enumerate(reversed(FLOORS)) if package_of(name) in row)


def knot(graph: dict[str, set[str]]) -> list[str]:
    """Return a path that ends where it began; empty if there is none."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path, name]
        if name in finished:
            return []
        for other in graph[name] - {name}:
            if found := visit(other, [*path, name]):
                return found
        finished.add(name)
        return []

    return next((path for name in graph if (path := visit(name, []))), [])


MODULES = modules()
IMPORTS = {name: imports(name, path, MODULES) for name, path in MODULES.items()}
INTERNAL = {name: others & MODULES.keys() for name, others in IMPORTS.items()}


def test_the_table_is_of_packages() -> None:
    assert len(FLOORS) <= 10
    for package in (package for row in FLOORS for package in row):
        assert package == "benchmarks" or MODULES[package].name == "__init__.py"


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name: str) -> None:
    for other in INTERNAL[name]:
        assert floor(other) <= floor(name), f"{name} may not import {other}"
        if any(inside(name, package) for package in NOTHING_OF_RUNS):
            assert not any(inside(other, package) for package in OF_RUNS), f"{name} may not import {other}"
    for other in IMPORTS[name]:
        for package, places in ONLY_IN.items() if not inside(name, "benchmarks") else ():
            if inside(other, package):
                assert any(inside(name, place) for place in places), f"{name} may not import {package}"


def test_modules_import_in_no_circle() -> None:
    assert knot(INTERNAL) == []


def test_packages_import_in_no_circle() -> None:
    graph: dict[str, set[str]] = {package: set() for row in FLOORS for package in row}
    for name, others in INTERNAL.items():
        graph[package_of(name)] |= {package_of(other) for other in others}
    assert knot(graph) == []


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.job
def test_loads_no_torch(name: str) -> None:
    command = (
        f"import sys, {name}; print(*{{m.partition('.')[0] for m in sys.modules}} & "
        "{'torch', 'sbi', 'lightning', 'py21cmfast', 'matplotlib', 'getdist', 'dask', 'distributed', 'mpi4py'})"
    )
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
