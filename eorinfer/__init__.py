"""Simulation-based inference for 21cm images of the Epoch of Reionization and line-intensity mapping.

Importing this package loads neither torch nor sbi: workers that only simulate
stay light. Names below are imported at first use.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

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
