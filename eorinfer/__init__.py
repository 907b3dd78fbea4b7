"""Simulation-based inference for 21cm images of the Epoch of Reionization and line-intensity mapping.

Importing this package loads neither torch nor sbi: workers that only simulate
stay light. Names below are imported at first use.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers: the names of _WHERE, which are imported at first use
    from eorinfer.bank.rows import Plan as Plan
    from eorinfer.bank.store import Bank as Bank
    from eorinfer.campaign.fill import fill as fill
    from eorinfer.campaign.fill import local_executor as local_executor
    from eorinfer.campaign.plans import plan_round as plan_round
    from eorinfer.core.errors import InputError as InputError
    from eorinfer.core.errors import WorkError as WorkError
    from eorinfer.core.prior import Prior as Prior
    from eorinfer.core.samples import Samples as Samples
    from eorinfer.cubes.observation import Observation as Observation
    from eorinfer.figures.corner import corner as corner
    from eorinfer.imageflow.model import ImageFlow as ImageFlow
    from eorinfer.npe.architecture import Architecture as Architecture
    from eorinfer.npe.posterior import Posterior as Posterior
    from eorinfer.npe.trainer import Trainer as Trainer
    from eorinfer.run import Run as Run
    from eorinfer.run.config import Config as Config
    from eorinfer.run.config import load_config as load_config
    from eorinfer.separation.model import Separator as Separator
    from eorinfer.settings.likelihood import PowerSpectrumSettings as PowerSpectrumSettings
    from eorinfer.settings.npe import EmbeddingSettings as EmbeddingSettings
    from eorinfer.settings.npe import FlowSettings as FlowSettings
    from eorinfer.settings.npe import TrainingSettings as TrainingSettings
    from eorinfer.settings.survey import NoSurvey as NoSurvey
    from eorinfer.settings.survey import SkaLow as SkaLow
    from eorinfer.settings.survey import SphereX as SphereX
    from eorinfer.settings.survey import SurveyTable as SurveyTable
    from eorinfer.settings.survey import WhiteNoise as WhiteNoise
    from eorinfer.summaries.power import PowerSpectrum as PowerSpectrum
    from eorinfer.survey import build_survey as build_survey
    from simulators.function import simulator as simulator

__version__ = "0.2.0"


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
    "Architecture": "eorinfer.npe.architecture",
    "Bank": "eorinfer.bank.store",
    "Config": "eorinfer.run.config",
    "EmbeddingSettings": "eorinfer.settings.npe",
    "FlowSettings": "eorinfer.settings.npe",
    "ImageFlow": "eorinfer.imageflow.model",
    "InputError": "eorinfer.core.errors",
    "NoSurvey": "eorinfer.settings.survey",
    "Observation": "eorinfer.cubes.observation",
    "Plan": "eorinfer.bank.rows",
    "Posterior": "eorinfer.npe.posterior",
    "PowerSpectrum": "eorinfer.summaries.power",
    "PowerSpectrumSettings": "eorinfer.settings.likelihood",
    "Prior": "eorinfer.core.prior",
    "Run": "eorinfer.run",
    "Samples": "eorinfer.core.samples",
    "Separator": "eorinfer.separation.model",
    "SkaLow": "eorinfer.settings.survey",
    "SphereX": "eorinfer.settings.survey",
    "SurveyTable": "eorinfer.settings.survey",
    "Trainer": "eorinfer.npe.trainer",
    "TrainingSettings": "eorinfer.settings.npe",
    "WhiteNoise": "eorinfer.settings.survey",
    "WorkError": "eorinfer.core.errors",
    "build_survey": "eorinfer.survey",
    "corner": "eorinfer.figures.corner",
    "fill": "eorinfer.campaign.fill",
    "load_config": "eorinfer.run.config",
    "local_executor": "eorinfer.campaign.fill",
    "plan_round": "eorinfer.campaign.plans",
    "simulator": "simulators.function",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'eorinfer' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
