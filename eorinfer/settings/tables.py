"""The tables of a config file, as pydantic checks them."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from eorinfer.settings.base import Settings
from eorinfer.settings.contest import ContestSettings
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.likelihood import McmcSettings, PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings, InferenceSettings, TrainingSettings
from eorinfer.settings.prior import PriorSettings
from eorinfer.settings.separation import PreprocessingSettings, SeparationSettings
from eorinfer.settings.survey import NoSurvey, SurveySettings
from eorinfer.settings.validation import ValidationSettings


class ObservationSettings(Settings):
    """``[observation]``: a mock at `theta`, a `file`, or a `clean` cube that the survey observes.

    Parameters
    ----------
    theta
        Parameters of a mock.
    file
        What a telescope saw, noise and all.
    clean
        Cube without noise, which ``[survey]`` observes; boxes of 21cmFAST at several redshifts are a list of files.
    mask
        File that is not 0 in cells that are left out, in simulations too; or ``"nan"`` for the NaN cells of `file`.
    world
        World of ``[simulator] worlds`` that makes the mock; by default its seed draws one.
    """

    theta: dict[str, Annotated[float, Field(strict=True)]] | None = None
    world: str | None = None
    file: Path | None = None
    clean: Path | tuple[Path, ...] | None = None
    mask: Path | None = None

    @property
    def clean_files(self) -> tuple[Path, ...]:
        """Files of the clean cube; none without one."""
        if self.clean is None:
            return ()
        return self.clean if isinstance(self.clean, tuple) else (self.clean,)

    @property
    def nan_masks(self) -> bool:
        """Whether the NaN cells of `file` are left out."""
        return self.mask == Path("nan")


class BankSettings(Settings):
    """``[bank]``: folder of the simulations.

    Parameters
    ----------
    path
        Bank that several runs share, relative to the config file; by default RUN/bank. Its simulations of the same
        prior are used first, whatever `seed` made them: runs that are to differ by their simulations need own banks.
    """

    path: Path | None = None


#: Keys of ``[executor]`` that only a batch system uses.
_OF_JOBS = (
    *("workers_per_job", "queue", "account", "walltime", "interface", "job_memory_gb"),
    *("directives", "prologue"),
)


class ExecutorSettings(Settings):
    """``[executor]``: where simulations run.

    Parameters
    ----------
    kind
        ``"local"`` processes, ``"dask"``, jobs of ``"slurm"`` or ``"pbs"``, or ``"mpi"``.
    workers
        Number of simulations at a time; by default one for each core of this machine.
    address
        Address of a Dask scheduler; by default a cluster on this machine is started.
    timeout
        Time limit of one simulation in seconds.
    memory_gb
        Memory limit of one simulator process in GB.
    failure_share
        Share of failed simulations above which the command ends with exit code 1.
    workers_per_job
        Simulations at a time in each job of a batch system.
    queue, account, walltime, interface
        Partition or queue of a job, account to charge, time limit as ``HH:MM:SS``, network interface.
    job_memory_gb
        Memory of a job in GB; by default 1 GB, and `memory_gb` (or 3 GB) for each of its simulations.
    directives
        More directives for the batch system, without ``#SBATCH`` or ``#PBS``.
    prologue
        Shell lines that run before the worker, e.g. ``module load python``.
    """

    kind: Literal["local", "dask", "slurm", "pbs", "mpi"] = "local"
    workers: PositiveInt | None = None
    address: str | None = None
    timeout: PositiveFloat = 3600.0
    memory_gb: PositiveFloat | None = None
    failure_share: float = Field(default=0.2, ge=0, le=1)
    workers_per_job: PositiveInt = 1
    queue: str | None = None
    account: str | None = None
    walltime: str = "01:00:00"
    interface: str | None = None
    job_memory_gb: PositiveFloat | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()

    @field_validator("walltime")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if not re.fullmatch(r"(\d+-)?\d{1,3}:\d{2}:\d{2}", value):
            raise ValueError(f'must be "HH:MM:SS" (given: {value!r})')
        return value

    @model_validator(mode="after")
    def _only_what_the_kind_heeds(self) -> "ExecutorSettings":
        if self.kind in ("slurm", "pbs"):
            if self.workers is None:
                raise ValueError(f'kind = "{self.kind}" needs workers, the simulations at a time in all jobs')
        elif wrong := [key for key in _OF_JOBS if getattr(self, key) != type(self).model_fields[key].default]:
            raise ValueError(f'{", ".join(wrong)}: only with kind = "slurm" or "pbs"')
        if self.address is not None and self.kind != "dask":
            raise ValueError('address: only with kind = "dask"')
        if self.workers is not None and (self.address is not None or self.kind == "mpi"):
            raise ValueError("workers: how many there are is settled where they are started; leave it out")
        return self


class Tables(Settings):
    """The tables of the file, as pydantic checks them."""

    seed: int = Field(default=1, ge=0, lt=2**32)
    simulator: dict[str, Any]
    prior: PriorSettings = PriorSettings()
    survey: SurveySettings = NoSurvey()
    preprocessing: PreprocessingSettings | None = None
    observation: ObservationSettings
    inference: InferenceSettings
    embedding: EmbeddingSettings = EmbeddingSettings()
    flow: FlowSettings = FlowSettings()
    training: TrainingSettings = TrainingSettings()
    image_flow: ImageFlowSettings = ImageFlowSettings()
    power_spectrum: PowerSpectrumSettings = PowerSpectrumSettings()
    mcmc: McmcSettings = McmcSettings()
    validation: ValidationSettings = ValidationSettings()
    contest: ContestSettings = ContestSettings()
    separation: SeparationSettings = SeparationSettings()
    bank: BankSettings = BankSettings()
    executor: ExecutorSettings = ExecutorSettings()

    @field_validator("seed", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"must be a whole number (given: {value})")
        return value
