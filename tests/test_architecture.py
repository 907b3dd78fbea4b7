"""The import table: who may know of whom, checked by reading every module's syntax tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: From the bottom up: a module imports from its own layer and from those above it in this list.
#: A name stands for a module or a package; the longest one that fits a module counts.
LAYERS: list[set[str]] = [
    {"simulators"},
    {"eorinfer", "eorinfer.core", "eorinfer.settings"},
    {"eorinfer.survey", "eorinfer.summaries", "eorinfer.networks"},
    {"eorinfer.bank"},
    {"eorinfer.campaign", "eorinfer.training"},
    {"eorinfer.validation"},
    {"eorinfer.separation", "eorinfer.likelihood", "eorinfer.imageflow"},
    {"eorinfer.npe"},
    {"eorinfer.figures", "eorinfer.report"},
    {"eorinfer.config"},
    {"eorinfer.run"},
    {"eorinfer.contest"},
    {"eorinfer.cli_common"},
    {"eorinfer.cli_contest", "eorinfer.cli_field", "eorinfer.cli_report", "eorinfer.cli_separate"},
    {"eorinfer.cli"},
]
#: Stricter than the order: these know nothing of banks and files.
NOTHING_OF_RUNS = ("eorinfer.survey", "eorinfer.summaries", "eorinfer.networks")
OF_RUNS = ("eorinfer.bank", "eorinfer.campaign", "eorinfer.training", "eorinfer.npe", "eorinfer.config")
#: Packages that only some modules may touch.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "sbi": ("eorinfer.networks.density", "eorinfer.validation.calibration"),
    "lightning": ("eorinfer.training", "eorinfer.separation", "eorinfer.npe", "eorinfer.imageflow"),
    "emcee": ("eorinfer.likelihood.mcmc",),
    "torch": (
        *(*NOTHING_OF_RUNS, "eorinfer.core.arrays", "eorinfer.training", "eorinfer.validation"),
        *("eorinfer.npe", "eorinfer.likelihood", "eorinfer.imageflow", "eorinfer.separation"),
        *("eorinfer.figures", "eorinfer.report", "eorinfer.run", "eorinfer.contest"),
    ),
    "hmf": ("simulators.lim.cosmology",),
    "py21cmfast": ("simulators.reionization",),
    "tools21cm": ("eorinfer.survey.coverage",),
    "kymatio": ("eorinfer.summaries.scattering",),
    "distributed": ("eorinfer.campaign.executors",),
    "mpi4py": ("eorinfer.campaign.executors",),
    "getdist": ("eorinfer.core.samples", "eorinfer.figures"),
}
#: Modules that a worker or the checking of a config loads.
LIGHT = [
    "simulators",
    "eorinfer",
    "eorinfer.campaign.child",
    "eorinfer.campaign.fill",
    "eorinfer.config",
    "eorinfer.campaign.executors",
    "eorinfer.core.samples",
]


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found = {}
    for path in sorted([*ROOT.glob("simulators/**/*.py"), *ROOT.glob("eorinfer/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Dotted names that a file imports anywhere; `from package import module` counts as the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> int:
    fits = [(len(entry), i) for i, row in enumerate(LAYERS) for entry in row if inside(name, entry)]
    length, i = max(fits)
    assert name == "eorinfer" or length > len("eorinfer"), f"{name} has no place in LAYERS"
    return i


MODULES = modules()
IMPORTS = {name: imports(path, MODULES) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name: str) -> None:
    for other in IMPORTS[name]:
        if inside(other, "eorinfer") or inside(other, "simulators"):
            assert layer(other) <= layer(name), f"{name} may not import {other}"
        if any(inside(name, package) for package in NOTHING_OF_RUNS):
            assert not any(inside(other, package) for package in OF_RUNS), f"{name} may not import {other}"
        for package, places in ONLY_IN.items():
            if inside(other, package):
                assert any(inside(name, place) for place in places), f"{name} may not import {package}"


def test_no_import_cycles() -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in finished:
            for other in IMPORTS[name] & MODULES.keys() - {name}:
                visit(other, (*path, name))
            finished.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", LIGHT)
def test_loads_no_torch(name: str) -> None:
    command = (
        f"import sys, {name}; print(*{{m.partition('.')[0] for m in sys.modules}} & "
        "{'torch', 'sbi', 'lightning', 'py21cmfast', 'matplotlib', 'getdist', 'dask', 'distributed', 'mpi4py'})"
    )
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
