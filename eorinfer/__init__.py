"""Simulation-based inference for 21cm images of the Epoch of Reionization and line-intensity mapping.

Importing this package loads neither torch nor sbi: workers that only simulate
stay light. Names below are imported at first use.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _import_simulators() -> None:
    """Import the package `simulators` that was installed with this one, whatever folder of that name is nearer."""
    home = Path(__file__).resolve().parents[1] / "simulators"
    there = sys.modules.get("simulators")
    places = [Path(place).resolve() for place in getattr(there, "__path__", [])]
    if there is not None and home in places:
        return
    if there is not None:
        warnings.warn(
            f"a package simulators ({', '.join(map(str, places)) or 'one file'}) was imported before eorinfer; "
            "from here on the name is that of eorinfer's own",
            stacklevel=3,
        )
        for name in [name for name in sys.modules if name == "simulators" or name.startswith("simulators.")]:
            del sys.modules[name]
    spec = spec_from_file_location("simulators", home / "__init__.py", submodule_search_locations=[str(home)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{home}: eorinfer's package simulators is not there; install eorinfer again")
    module = module_from_spec(spec)
    sys.modules["simulators"] = module
    spec.loader.exec_module(module)


_import_simulators()

_WHERE = {
    "Bank": "eorinfer.bank.store",
    "Config": "eorinfer.run.config",
    "InputError": "eorinfer.core.errors",
    "Observation": "eorinfer.core.observation",
    "Posterior": "eorinfer.npe.posterior",
    "Run": "eorinfer.run",
    "Samples": "eorinfer.core.samples",
    "build_survey": "eorinfer.survey",
    "corner": "eorinfer.figures.corner",
    "fill": "eorinfer.campaign.fill",
    "load_config": "eorinfer.run.config",
    "local_executor": "eorinfer.campaign.fill",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'eorinfer' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
