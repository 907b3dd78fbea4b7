"""The tables of a config file, as pydantic checks them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eorinfer.inference.settings import (
    EmbeddingSettings,
    FlowSettings,
    InferenceSettings,
    McmcSettings,
    PowerSpectrumSettings,
    Settings,
    TrainingSettings,
)
from eorinfer.survey.settings import NoSurvey, SurveySettings


class ObservationSettings(Settings):
    """``[observation]``: a mock at `theta`, or a `file`."""

    theta: dict[str, float] | None = None
    file: Path | None = None


class BankSettings(Settings):
    """``[bank]``: where the simulations are kept; by default in the run folder."""

    path: Path | None = None


class ExecutorSettings(Settings):
    """``[executor]``: where simulations run.

    Parameters
    ----------
    kind
        ``"local"`` processes or ``"dask"``.
    workers
        Processes; by default one for each core.
    address
        Of a Dask scheduler; by default a cluster on this machine.
    timeout
        Seconds that one row may take.
    memory_gb
        Memory that one simulator process may take.
    failure_share
        Share of failed rows above which the command ends with exit code 1.
    """

    kind: Literal["local", "dask"] = "local"
    workers: PositiveInt | None = None
    address: str | None = None
    timeout: PositiveFloat = 3600.0
    memory_gb: PositiveFloat | None = None
    failure_share: float = Field(default=0.2, ge=0, le=1)


class Tables(Settings):
    """The tables of the file, as pydantic checks them."""

    seed: int = Field(default=1, ge=0, lt=2**32)
    simulator: dict[str, Any]
    prior: dict[str, tuple[float, float]] = Field(default={})
    survey: SurveySettings = NoSurvey()
    observation: ObservationSettings
    inference: InferenceSettings
    embedding: EmbeddingSettings = EmbeddingSettings()
    flow: FlowSettings = FlowSettings()
    training: TrainingSettings = TrainingSettings()
    power_spectrum: PowerSpectrumSettings = PowerSpectrumSettings()
    mcmc: McmcSettings = McmcSettings()
    bank: BankSettings = BankSettings()
    executor: ExecutorSettings = ExecutorSettings()
