"""Forward models: theta and a seed in, clean arrays out. No torch, no sbi, nothing of eorinfer."""

from simulators.base import Observable, Parameter, SimulationError, Simulator, SimulatorSettings, Symmetry
from simulators.gaussian import GaussianField
from simulators.imported import Imported
from simulators.registry import KINDS, UnknownSimulator, build, fingerprint
from simulators.reionization import Coeval, LightCone

__all__ = [
    "KINDS",
    "Coeval",
    "GaussianField",
    "Imported",
    "LightCone",
    "Observable",
    "Parameter",
    "SimulationError",
    "Simulator",
    "SimulatorSettings",
    "Symmetry",
    "UnknownSimulator",
    "build",
    "fingerprint",
]
