"""Executors of simulations by ``[executor] kind``: this machine, a Dask cluster, jobs of a batch system, or MPI.

Each kind is a `concurrent.futures.Executor` that `campaign.fill` gives its tasks to. The packages behind
them are extras and imported only for their kind.
"""

import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eorinfer.campaign.children import stop_all
from eorinfer.campaign.fill import available_cores, local_executor
from eorinfer.core.errors import InputError
from eorinfer.settings.tables import ExecutorSettings

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy import Cluster

#: Memory of a Dask worker beside its simulators, and of a simulator without a limit, in GB.
WORKER_GB, SIMULATOR_GB = 1.0, 3.0
#: Seconds for which a batch system may take to accept or refuse the first job; after that its answer is not awaited.
ANSWER = 120.0
_JOB_CLASSES = {"slurm": ("dask_jobqueue.slurm", "SLURM"), "pbs": ("dask_jobqueue.pbs", "PBS")}


def open_executor(
    settings: ExecutorSettings, logs: Path, say: Callable[[str], None] = lambda line: None
) -> AbstractContextManager[Executor]:
    """Open an executor for as long as the block takes.

    Parameters
    ----------
    settings
        The table ``[executor]``.
    logs
        Folder for the output of a batch system's jobs.
    say
        Receives a line about what was started or found.

    Raises
    ------
    InputError
        If a package is missing, an address does not answer, or the program was not started as MPI needs it.
    """
    if settings.kind == "local":
        return local_executor(settings.workers)
    return _mpi(settings, say) if settings.kind == "mpi" else _dask(settings, logs, say)


def worker_count(settings: ExecutorSettings) -> int | None:
    """Return the number of simulations at a time; None if the config does not fix it."""
    if settings.kind == "local" or (settings.kind == "dask" and settings.address is None):
        return settings.workers or available_cores()
    return settings.workers


def job_script(settings: ExecutorSettings, logs: Path) -> str:
    """Return the script of each job of a batch system.

    Raises
    ------
    InputError
        If dask-jobqueue is missing.
    """
    module, name = _JOB_CLASSES[settings.kind]
    job_class = getattr(_load(module, settings), f"{name}Job")
    # Without a cluster there is no scheduler yet, and nothing is started.
    job = job_class("tcp://ADDRESS-OF-THIS-MACHINE:PORT", name="eorinfer", **_job_arguments(settings, logs))
    return str(job.job_script())


def explanation(settings: ExecutorSettings, logs: Path, command: str) -> str:
    """Describe the executor that a command, without ``eorinfer``, would start, for ``--dry-run``."""
    workers = worker_count(settings)
    if settings.kind == "local":
        return f"{workers} process(es) on this machine"
    if settings.kind == "dask":
        at = settings.address or f"a cluster of {workers} worker(s) on this machine"
        return f"Dask: {at}"
    if settings.kind == "mpi":
        return f"MPI: {_mpi_command(command)}"
    jobs = _jobs(settings)
    return (
        f"{settings.kind}: {jobs} job(s) of {settings.workers_per_job} process(es) each, submitted with the script\n\n"
        f"{job_script(settings, logs)}"
    )


@contextmanager
def _dask(settings: ExecutorSettings, logs: Path, say: Callable[[str], None]) -> Iterator[Executor]:
    distributed = _load("distributed", settings)
    with ExitStack() as stack:
        if settings.address is not None:
            client = stack.enter_context(_client(distributed, settings.address))
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            say(f"dask: {workers} worker(s) at {settings.address}{'' if workers else '; waiting for the first'}")
        else:
            cluster = stack.enter_context(_cluster(distributed, settings, logs, say))
            client = stack.enter_context(distributed.Client(cluster))
        executor = stack.enter_context(client.get_executor())
        try:
            yield executor
        except BaseException:
            if settings.address is None:
                # The workers are ours alone: nobody else needs what they simulate now.
                client.run(stop_all, on_error="ignore")
            executor.shutdown(wait=False)
            raise


@contextmanager
def _cluster(
    distributed: ModuleType, settings: ExecutorSettings, logs: Path, say: Callable[[str], None]
) -> Iterator["Cluster"]:
    """A Dask cluster of our own: processes on this machine, or the jobs of a batch system."""
    if settings.kind == "dask":
        with distributed.LocalCluster(
            n_workers=worker_count(settings),
            threads_per_worker=1,
            processes=True,
            # The simulators are processes beside the workers, and have limits of their own.
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster:
            yield cluster
        return
    module, name = _JOB_CLASSES[settings.kind]
    batch = _load(module, settings)
    job_class, first = _telling(getattr(batch, f"{name}Job"), distributed.Status)
    submit = job_class.submit_command.split()[0]
    if shutil.which(submit) is None:
        # Dask would try again for ever.
        raise InputError(
            f'[executor] kind = "{settings.kind}": there is no {submit} on this machine; start the command where jobs '
            "are submitted"
        )
    cluster_class = getattr(batch, f"{name}Cluster")
    arguments = _job_arguments(settings, logs)
    with cluster_class(dashboard_address=None, job_cls=job_class, **arguments) as cluster:
        # Not `scale`: a job that reached its time limit, or was killed, is to be followed by another.
        jobs = _jobs(settings)
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        try:
            first.result(ANSWER)
        except TimeoutError:
            pass
        except Exception as error:
            # dask-jobqueue's own text has the command, and ends with what the program wrote.
            answer = " ".join(str(error).rpartition("stderr:")[2].split())
            raise InputError(
                f'[executor] kind = "{settings.kind}": {submit} refused the first job: {answer or error}. `eorinfer '
                "simulate CONFIG --dry-run` prints its script; account, queue and directives are keys of [executor]"
            ) from error
        say(f"{settings.kind}: asked for {jobs} job(s) of {settings.workers_per_job} process(es), which log to {logs}")
        yield cluster


def _telling(job_class: Any, status: Any) -> tuple[Any, "Future[None]"]:
    """Make a class of jobs of which the first tells whether it was submitted: Dask tries again for ever.

    Dask prints a traceback for a job that raises, and its cluster closes only if such a job is called failed. `status`
    is its list of what a job may be.
    """
    first: Future[None] = Future()

    class Telling(job_class):
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                if not first.done():
                    first.set_exception(RuntimeError(str(error)))
                if first.exception() is None:
                    self.status = status.failed
                    raise
                self.status = status.running  # the cluster is closed at once
            if not first.done():
                first.set_result(None)

    return Telling, first


def _client(distributed: ModuleType, address: str) -> "Client":
    try:
        return distributed.Client(address)
    except (OSError, ValueError, TypeError) as error:
        # dask's own text is a paragraph
        raise InputError(
            f"[executor] address = {address!r}: no Dask scheduler answers there ({type(error).__name__}); "
            'must be like "tcp://HOST:8786", as `dask scheduler` prints it'
        ) from error


def _job_arguments(settings: ExecutorSettings, logs: Path) -> dict[str, Any]:
    per_job = settings.workers_per_job
    memory = settings.job_memory_gb or WORKER_GB + per_job * (settings.memory_gb or SIMULATOR_GB)
    return {
        # One Dask worker a job, each of whose threads drives a simulator process: dask-jobqueue does not
        # replace a job of several workers that died.
        "cores": per_job,
        "processes": 1,
        "memory": f"{memory:g} GB",
        "walltime": settings.walltime,
        "queue": settings.queue,
        "account": settings.account,
        "interface": settings.interface,
        "job_extra_directives": list(settings.directives),
        "job_script_prologue": list(settings.prologue),
        "job_name": "eorinfer",
        "log_directory": str(logs.resolve()),
        "python": sys.executable,
    }


def _jobs(settings: ExecutorSettings) -> int:
    assert settings.workers is not None
    return -(-settings.workers // settings.workers_per_job)


@contextmanager
def _mpi(settings: ExecutorSettings, say: Callable[[str], None]) -> Iterator[Executor]:
    MPI = _load("mpi4py.MPI", settings)
    size = MPI.COMM_WORLD.Get_size()
    if "mpi4py.futures" not in sys.orig_argv:
        # Each process would do the whole run, or MPI would have to start processes, which clusters seldom let it.
        raise InputError(
            f'[executor] kind = "mpi": start it as {_mpi_command(" ".join(sys.argv[1:]))}, '
            "N processes of which one leads and the others simulate"
        )
    if size < 2:
        raise InputError('[executor] kind = "mpi": there is one process only, which leads; start at least two')
    say(f"mpi: {size - 1} worker(s)")
    futures = _load("mpi4py.futures", settings)
    with futures.MPIPoolExecutor(main=False) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _mpi_command(command: str) -> str:
    return f"`mpiexec -n N python -m mpi4py.futures -m eorinfer.cli.app {command}`"


def _load(module: str, settings: ExecutorSettings) -> ModuleType:
    extra = "mpi" if settings.kind == "mpi" else "dask"
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        # mpi4py raises RuntimeError where it finds no MPI library.
        raise InputError(
            f'[executor] kind = "{settings.kind}" needs {module.partition(".")[0].replace("_", "-")} '
            f"({error}); pip install 'eorinfer[{extra}]'"
        ) from error
