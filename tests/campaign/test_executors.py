"""Each kind of executor: what it asks for, what it starts, and that a worker's death costs its shard alone."""

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.campaign import fill as campaign
from eorinfer.campaign.executors import explanation, job_script, open_executor, worker_count
from eorinfer.campaign.fill import Limits, fill
from eorinfer.core.errors import InputError
from eorinfer.settings.tables import ExecutorSettings
from simulators import GaussianField
from tests.banks import a_plan
from tests.campaign.test_fill import clean
from tests.runs import PATIENCE, call, config, start, wait_until

JOBS: dict[str, Any] = {
    "workers": 5,
    "workers_per_job": 2,
    "queue": "long",
    "account": "abc",
    "walltime": "02:30:00",
    "memory_gb": 2.0,
    "prologue": ("module load python",),
    "directives": ("--exclusive",),
}
#: The command line as it is installed.
LIGHT = "from eorinfer.cli.app import main; main()"
#: Writes a line for each row that it simulates, however often.
COUNTED = """
import os
from pathlib import Path
import numpy as np
from simulators import GaussianField

class Counted(GaussianField):
    pause: float = 0.05

    @property
    def seconds_per_row(self):
        return 4.0

    def simulate(self, theta, seed):
        import time
        time.sleep(self.pause)
        with open(Path(__file__).with_name("simulated"), "a") as file:
            file.write(f"{seed}\\n")
        return super().simulate(theta, seed)
"""


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "slurm"}, '[executor] kind = "slurm" needs workers, the simulations at a time in all jobs'),
        ({"queue": "long"}, '[executor]: queue: only with kind = "slurm" or "pbs"'),
        ({"address": "tcp://x:1"}, '[executor]: address: only with kind = "dask"'),
        ({"kind": "dask", "workers": 2, "address": "tcp://x:1"}, "[executor]: workers: how many there are is settled"),
        ({"kind": "mpi", "workers": 2}, "[executor]: workers: how many there are is settled"),
        ({"kind": "pbs", "workers": 1, "walltime": "1 h"}, "[executor] walltime: must be \"HH:MM:SS\" (given: '1 h')"),
        ({"kind": "clouds"}, "[executor] kind: must be 'local', 'dask', 'slurm', 'pbs' or 'mpi' (given: 'clouds')"),
        ({"failure_share": 1.5}, "[executor] failure_share: must be at most 1"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, table: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, executor={"workers": None} | table)
    assert call("simulate", path, "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            "slurm",
            [
                "#SBATCH -p long",
                "#SBATCH -A abc",
                "#SBATCH --cpus-per-task=2",
                "#SBATCH --mem=5G",
                "#SBATCH -t 02:30:00",
                "#SBATCH --exclusive",
                "#SBATCH -o LOGS/eorinfer-%J.out",
                "module load python",
            ],
        ),
        (
            "pbs",
            [
                "#PBS -q long",
                "#PBS -A abc",
                "#PBS -l select=1:ncpus=2:mem=4769MB",
                "#PBS -l walltime=02:30:00",
                "#PBS --exclusive",
                "#PBS -o LOGS/",
                "module load python",
            ],
        ),
    ],
)
def test_the_script_of_a_job(tmp_path: Path, kind: str, lines: list[str]) -> None:
    pytest.importorskip("dask_jobqueue")
    settings = ExecutorSettings.model_validate({"kind": kind, **JOBS})
    script = job_script(settings, tmp_path)
    found = script.splitlines()
    assert set(lines) <= {line.replace(str(tmp_path), "LOGS") for line in found}
    worker = found[-1] or found[-2]
    assert worker.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://ADDRESS-OF-THIS-MACHINE:PORT")
    assert "--nthreads 2" in worker
    assert "--nworkers" not in worker
    assert explanation(settings, tmp_path, "simulate x").startswith(f"{kind}: 3 job(s) of 2 process(es) each")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_starts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for executor, said in (
        ({"workers": 3}, "48 simulations into OUT/bank; 3 process(es) on this machine"),
        ({"kind": "dask", "workers": 3}, "48 simulations into OUT/bank; Dask: a cluster of 3 worker(s) on this"),
        ({"kind": "dask", "workers": None, "address": "tcp://h:8786"}, "OUT/bank; Dask: tcp://h:8786"),
        ({"kind": "mpi", "workers": None}, "MPI: `mpiexec -n N python -m mpi4py.futures -m eorinfer.cli.app simulate"),
    ):
        path = config(tmp_path, executor=executor)
        assert call("simulate", path, "--out", tmp_path / "run", "--dry-run") == 0
        assert said in capsys.readouterr().out.replace(str(tmp_path / "run"), "OUT")
    assert [file.name for file in tmp_path.iterdir()] == ["run.toml"]


def test_a_dry_run_knows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert call("simulate", config(tmp_path), "--out", out) == 0
    for changes, code, said in (
        ({}, 0, "0 of 48 simulations (the others are there) into OUT/bank"),
        ({"simulator": {"cells": 16}}, 2, "[simulator] cells = 16, but OUT holds a run with cells = 8"),
    ):
        capsys.readouterr()
        assert call("simulate", config(tmp_path, **changes), "--out", out, "--dry-run") == code
        assert said in "".join(capsys.readouterr()).replace(str(out), "OUT")


def test_how_many_workers_the_config_tells() -> None:
    assert worker_count(ExecutorSettings(workers=3)) == 3
    assert worker_count(ExecutorSettings(kind="slurm", workers=7)) == 7
    assert worker_count(ExecutorSettings(kind="dask", address="tcp://h:1")) is None
    assert worker_count(ExecutorSettings(kind="mpi")) is None
    assert (worker_count(ExecutorSettings()) or 0) >= 1


@pytest.mark.parametrize(
    ("kind", "package", "message"),
    [
        ("dask", "distributed", r"kind = \"dask\" needs distributed .*pip install 'eorinfer\[dask\]'"),
        ("slurm", "dask_jobqueue", r"kind = \"slurm\" needs dask-jobqueue .*pip install 'eorinfer\[dask\]'"),
        ("mpi", "mpi4py", r"kind = \"mpi\" needs mpi4py .*pip install 'eorinfer\[mpi\]'"),
    ],
)
def test_a_package_that_is_not_there(
    tmp_path: Path, kind: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    settings = ExecutorSettings(kind=kind, workers=1 if kind == "slurm" else None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message), open_executor(settings, tmp_path):
        pass


@pytest.mark.parametrize(("kind", "program"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_machine_without_the_batch_system(
    tmp_path: Path, kind: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = ExecutorSettings(kind=kind, workers=2)  # type: ignore[arg-type]
    with (
        pytest.raises(InputError, match=rf'kind = "{kind}": there is no {program} on this machine'),
        open_executor(settings, tmp_path),
    ):
        pass


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    dask = pytest.importorskip("dask")
    settings = ExecutorSettings(kind="dask", address="tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(InputError, match=r"'tcp://127\.0\.0\.1:9': no Dask scheduler answers there"),
        open_executor(settings, tmp_path),
    ):
        pass


def counted(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "simulated").read_text().split()]


def kill_one_worker(bank: Bank, shards: int, killed: list[int]) -> None:
    """Wait for some shards, then send SIGKILL to the Dask worker that is the oldest."""
    while len(list((bank.path / "shards").glob("[!.]*"))) < shards:
        time.sleep(0.01)
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if any(child.cmdline()[-1:] == ["eorinfer.campaign.child"] for child in process.children())
    ]
    os.kill(workers[0].pid, signal.SIGKILL)
    killed.append(workers[0].pid)


def test_a_dask_worker_that_is_killed_loses_its_shard_in_flight(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    simulator = counting(tmp_path)
    bank = Bank.create(tmp_path / "bank", simulator)
    plan = bank.add(a_plan(80, 4))
    killed: list[int] = []
    with open_executor(ExecutorSettings(kind="dask", workers=2), tmp_path) as executor:
        killer = threading.Thread(target=kill_one_worker, args=(bank, 4, killed))
        killer.start()
        counts = fill(bank, plan, simulator, executor, beside=tmp_path)
        killer.join()
    assert killed
    assert bank.rows().counts() == {"ok": 80}, "the dead worker's row is not recorded as killed"
    assert counts["ok"] >= 76, "the answer of a shard may die with its worker, the shard does not"
    assert bank.read("field", bank.rows()).tobytes() == clean(plan).tobytes()
    assert 80 <= len(counted(tmp_path)) <= 84, "at most one shard was simulated twice"


def counting(folder: Path) -> Any:
    from simulators import build

    (folder / "counted.py").write_text(COUNTED)
    return build({"kind": "counted:Counted", "cells": 8}, folder)


class Watched(Executor):
    """Threads, and the largest number of tasks that they ever had."""

    def __init__(self) -> None:
        self._threads, self._lock = ThreadPoolExecutor(2), threading.Lock()
        self._now = self.most = 0

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        future = self._threads.submit(function, *arguments, **named)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._now -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def test_an_executor_has_few_tasks_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "IN_FLIGHT", 5)
    simulator = GaussianField(cells=8)
    bank = Bank.create(tmp_path, simulator)
    plan = bank.add(a_plan(40, 1))
    with Watched() as executor:
        assert fill(bank, plan, simulator, executor, limits=Limits(10.0)) == {"ok": 40}
    assert 2 <= executor.most <= 5


#: Stand-ins for a batch system: a job starts at once, in a session of its own.
SBATCH = """#!/bin/bash
cp "$1" "$JOBS/$$.sh"
setsid bash "$JOBS/$$.sh" > "$JOBS/$$.log" 2>&1 < /dev/null &
echo "$!" > "$JOBS/$$.pid"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
echo "$1" >> "$JOBS/cancelled"
kill -- "-$1"
"""


def test_jobs_of_slurm_and_one_that_ends(tmp_path: Path) -> None:
    """A campaign of two jobs; one ends at its time limit, and another is submitted in its place."""
    pytest.importorskip("dask_jobqueue")
    if shutil.which("setsid") is None:
        pytest.skip("the stand-in for sbatch needs setsid")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    counting(tmp_path)
    path = config(
        tmp_path,
        simulator={"kind": "counted:Counted", "pause": 0.1},
        inference={"rounds": [100]},
        executor={"kind": "slurm", "workers": 2},
    )
    process = start(
        tmp_path,
        "simulate",
        path,
        "--out",
        tmp_path / "run",
        script=LIGHT,
        JOBS=str(jobs),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT="500ms",
    )
    try:
        bank = tmp_path / "run/bank"
        wait_until(lambda: len(list(bank.glob("shards/[!.]*"))) >= 3, process)
        first = sorted(jobs.glob("*.pid"))
        assert len(first) == 2
        os.killpg(int(first[0].read_text()), signal.SIGTERM)  # as a batch system warns
        out, errors = process.communicate(timeout=PATIENCE)
    finally:
        for file in jobs.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.killpg(int(file.read_text()), signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "slurm: asked for 2 job(s) of 1 process(es)" in out
    assert Bank.open(bank).rows().counts() == {"ok": 100}, "no row counts as killed"
    assert len(list(jobs.glob("*.sh"))) == 3, "the job that died was replaced"
    assert len((jobs / "cancelled").read_text().split()) >= 2, "no job is left behind"
    assert verify(bank) == []


@pytest.mark.parametrize(
    ("kind", "program", "complaint"),
    [
        ("slurm", "sbatch", "sbatch: error: Batch job submission failed: Invalid account or account/partition"),
        ("pbs", "qsub", "qsub: Unknown queue"),
    ],
)
def test_a_batch_system_that_refuses_the_jobs(
    tmp_path: Path, kind: str, program: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask would submit it again and again, and the command wait for ever."""
    pytest.importorskip("dask_jobqueue")
    (tmp_path / program).write_text(f'#!/bin/bash\necho "{complaint}" >&2\nexit 1\n')
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = ExecutorSettings(kind=kind, workers=2, account="nobody")  # type: ignore[arg-type]
    with (
        pytest.raises(InputError, match=f'kind = "{kind}": {program} refused the first job: {complaint}. `eorinfer'),
        open_executor(settings, tmp_path),
    ):
        pass


def test_mpi(tmp_path: Path) -> None:
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if importlib.util.find_spec("mpi4py") is None or mpiexec is None:
        pytest.skip("needs mpi4py and an MPI library")
    path = config(tmp_path, executor={"kind": "mpi", "workers": None}, inference={"rounds": [40]})
    script = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.argv[1], '-n', '3', sys.executable, '-m', "
        "'mpi4py.futures', '-m', 'eorinfer.cli.app', *sys.argv[2:]]).returncode)"
    )
    permit = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1"}
    permit |= {"PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    process = start(tmp_path, mpiexec, "simulate", path, "--out", tmp_path / "run", script=script, **permit)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "mpi: 2 worker(s)" in out
    assert Bank.open(tmp_path / "run/bank").rows().counts() == {"ok": 40}


def test_mpi_that_was_not_started_as_mpi(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    path = config(tmp_path, executor={"kind": "mpi", "workers": None})
    process = start(tmp_path, "simulate", path, "--out", tmp_path / "run", script=LIGHT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert f"start it as `mpiexec -n N python -m mpi4py.futures -m eorinfer.cli.app simulate {path} --out" in errors
