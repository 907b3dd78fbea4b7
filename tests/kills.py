"""Kills at random moments: a command that was killed and given again must end in the numbers of one left alone.

``python -m tests.kills [--kills N] [--seed S] [COMMAND ...]`` kills each command N times and prints a table.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.mocks import SLAB
from tests.runs import config

#: Times, and what hashes of a run do not depend on.
_TIMES = re.compile(r"seconds|training_seconds|^packages$|^command$")
_NUMBER = re.compile(r"-?[\d.,]+(e-?\d+)?( ?(ms|s|seconds|min|h|MB)\b)?")
#: Seconds after which a command that was given again counts as hanging.
PATIENCE = 300.0
FLOW = {"steps": 24, "batch_size": 16, "hidden": [16], "k_knots": 4, "knots": 4, "convolutions": 1}
CONTEST = {
    "methods": ["ps-full", "ps-neural", "npe-power", "npe-image", "image-flow", "exact-emcee"],
    "truths": 24,
    "sampled_truths": 20,
    "image_flow_truths": 20,
    "samples": 100,
    "loop_steps": 6,
    "loop_walkers": 4,
}


@dataclass(frozen=True)
class Job:
    """A command that writes.

    Attributes
    ----------
    arguments
        Words of the command line, but for config and run folder.
    tables
        Tables of the config that differ from those of `tests.runs.CONFIG`.
    first
        Name of the job whose finished folder it starts in; None for an empty one.
    by_config
        Whether it is given a config, and not the run folder alone.
    """

    arguments: tuple[str, ...]
    tables: dict[str, Any]
    first: str | None = None
    by_config: bool = True

    def command(self, folder: Path) -> list[str]:
        """Give the words of the command line in a folder."""
        if not self.by_config:
            return [*self.arguments, str(folder / "run")]
        return [*self.arguments, str(config(folder, **self.tables)), "--out", str(folder / "run")]


_TRAINING = {"training": {"steps": 60, "ensemble": 2}}
_MCMC = {"mcmc": {"walkers": 8, "steps": 400, "max_steps": 1600, "draws": 2}}
_SEPARATION = {
    "simulator": {"cells": None} | SLAB,
    "survey": {"kind": "spherex", "sigma": None},
    "separation": {"simulations": 32, "steps": 40, "width": 4, "widest": 8, "batch_size": 8},
    **dict.fromkeys(
        ("prior", "observation", "inference", "embedding", "flow", "training", "power_spectrum", "mcmc"),
    ),
}
_VALIDATION = {"inference": {"rounds": [48]}, "validation": {"truths": 24, "samples": 100, "references": 4}}
_BY_FLOW = {"inference": {"method": "image-flow", "rounds": [48]}, "image_flow": FLOW}
JOBS = {
    "simulate": Job(("simulate",), {"inference": {"rounds": [600]}}),
    "infer": Job(("infer",), _TRAINING),
    "infer by image flow": Job(("infer",), _BY_FLOW | _MCMC),
    "image-flow train": Job(("image-flow", "train"), _BY_FLOW),
    "mcmc": Job(("mcmc",), _MCMC),
    "run": Job(("run",), _TRAINING | _MCMC),
    "report": Job(("report",), {}, "run", by_config=False),
    "validate": Job(("validate",), _VALIDATION | {"training": {"steps": 12}}, "infer one round"),
    "infer one round": Job(("infer",), _VALIDATION | {"training": {"steps": 12}}),
    "contest": Job(
        ("contest",), {"inference": {"rounds": [48, 24], "predictive": 0}, "contest": CONTEST} | {"image_flow": FLOW}
    ),
    "separate train": Job(("separate", "train"), _SEPARATION),
}
#: Jobs that are killed; the others prepare a folder.
KILLED = [name for name in JOBS if name != "infer one round"]


class Workplace:
    """Runs commands in children forked from this process, which has loaded all that takes seconds to load."""

    def __init__(self, root: Path) -> None:
        self.root = root
        _load()

    def run(self, arguments: list[str], kill: Callable[[int], None] | None = None, writes: int = 0) -> tuple[int, str]:
        """Run a command in a child; give its status, negative for a signal, and what it wrote.

        Parameters
        ----------
        arguments
            Words of the command line.
        kill
            Called with the process number of the child; None to leave it alone.
        writes
            Number of a file operation at which the child kills itself; 0 for none.
        """
        said = self.root / "said"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _become(arguments, said, writes)
        if kill is not None:
            kill(pid)
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise AssertionError(f"{' '.join(arguments)} hangs: {said.read_text()}")
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(ended[1]), said.read_text()


def _load() -> None:
    """Load modules before forking, and make the emulators quick to train."""
    from eorinfer.figures.style import keep_matplotlib_out_of_home

    keep_matplotlib_out_of_home()
    for name in ("contest.contest", "run.results", "run.line_separation", "run.validation", "separation.training"):
        import_module(f"eorinfer.{name}")
    import eorinfer.likelihood.emulator as emulator
    import eorinfer.likelihood.neural as neural

    for module, name in ((emulator, "MEAN_FIT"), (emulator, "COVARIANCE_FIT"), (neural, "FIT")):
        setattr(module, name, getattr(module, name).model_copy(update={"steps": 10}))
    import eorinfer.run.image_flow as image_flow
    import eorinfer.run.subjects as subjects

    image_flow.START_DRAWS = subjects.START_DRAWS = 100
    import torch

    torch.set_num_threads(1)


def _become(arguments: list[str], said: Path, writes: int) -> None:
    """Be the command, in a forked child."""
    os.setpgid(0, 0)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if writes:
        _kill_at_write(writes)
    from eorinfer.cli.app import main

    code = 70
    try:
        sys.argv = ["eorinfer", *arguments]
        main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_at_write(number: int) -> None:
    """Kill this process at its `number`-th file operation that changes something."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "os.truncate")
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        if writes:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def torture(place: Workplace, name: str, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kill a job `kills` times, then let it end; give how many kills hit, and what differs from an undisturbed one.

    Every other kill is at a random time, the others at a random file operation. When it ends all the same, it is
    compared and begun in another folder.
    """
    job, whole, broken = JOBS[name], place.root / name / "whole", place.root / name / "broken"
    _begin(place, job, whole)
    began = time.monotonic()
    code, said = place.run(job.command(whole))
    if code != 0 and name != "validate":
        return 0, [f"ends with {code}: {said}"]
    if left := [path.name for path in (*whole.rglob("*.ckpt"), *whole.rglob(".*"), *whole.rglob("begun.json"))]:
        return 0, [f"leaves what only serves to go on: {', '.join(left)}"]
    seconds, hits, tries = time.monotonic() - began, 0, 0
    while hits < kills and tries < 5 * kills:
        if not broken.exists():
            _begin(place, job, broken)
        if tries % 2:
            ended, said = place.run(job.command(broken), writes=int(10 ** rng.uniform(0, 2.2)))
        else:
            delay = rng.uniform(0.0, seconds)
            ended, said = place.run(job.command(broken), lambda pid, d=delay: _kill_after(pid, d))
        hits, tries = hits + (ended == -signal.SIGKILL), tries + 1
        if ended == code:
            if wrong := list(differences(whole / "run", broken / "run")):
                return hits, wrong
            shutil.rmtree(broken)
        elif ended != -signal.SIGKILL:
            return hits, [f"after {hits} kills it ends with {ended} instead of {code}: {said}"]
    _begin(place, job, broken)
    again, said = place.run(job.command(broken))
    if again != code:
        return hits, [f"ends with {again} instead of {code}: {said}"]
    return hits, list(differences(whole / "run", broken / "run"))


def _begin(place: Workplace, job: Job, folder: Path) -> None:
    """Make the folder that a job starts in, unless it is there."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    if job.first is None:
        return
    kept = place.root / "first" / job.first
    if not kept.exists():
        code, said = place.run(JOBS[job.first].command(kept))
        assert code == 0, said
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def _kill_after(pid: int, delay: float) -> None:
    end = time.monotonic() + delay
    while time.monotonic() < end and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)


# -- comparison --------------------------------------------------------------------------------------


def differences(whole: Path, broken: Path) -> Iterator[str]:
    """Say which files of two run folders differ in more than times, and which only one of them has."""
    ours, theirs = (set(_files(folder)) for folder in (whole, broken))
    for name in sorted(ours ^ theirs):
        yield f"{name}: {'left over' if name in theirs else 'lacking'}"
    for name in sorted(ours & theirs):
        a, b = (content(folder / name, folder) for folder in (whole, broken))
        if a != b:
            yield f"{name}: differs"
    if (whole / "bank").exists() and _bank(whole / "bank") != _bank(broken / "bank"):
        yield "bank: rows differ"


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        # Shards hold seconds, and are compared by row.
        if not path.is_dir() and not name.startswith("bank/"):
            yield name


def content(path: Path, folder: Path) -> Any:
    """Read a file as something that can be compared, without times and without the name of its folder."""
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text().replace(str(folder), "RUN")))
    if path.suffix == ".h5":
        with h5py.File(path, "r", locking=False) as file:
            return _group(file)
    if path.suffix == ".html":
        # Its numbers are those of other files, and times.
        return _NUMBER.sub("", re.sub(r'src="data:[^"]*"', "", path.read_text().replace(str(folder), "RUN")))
    if path.suffix in (".pdf", ".toml") or path.name.startswith("damaged-"):
        return None
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("title") == "Simulator calls and seconds":
            return None
        return {key: _without_times(v) for key, v in value.items() if not _TIMES.search(key)}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _group(group: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"@{key}": np.asarray(v).tolist() for key, v in group.attrs.items() if "seconds" not in key
    }
    for key, value in group.items():
        if key != "seconds":
            found[key] = _group(value) if isinstance(value, h5py.Group) else np.asarray(value[()]).tobytes()
    return found


def _bank(path: Path) -> Any:
    from eorinfer.bank.store import Bank

    bank = Bank.open(path)
    rows = bank.rows()
    order = np.lexsort([rows.seed, rows.theta[:, 0]])
    rows = rows[order]
    arrays = [bank.read(o.name, rows.ok).tobytes() for o in bank.observables]
    leftovers = sorted(p.name for p in path.rglob(".tmp-*"))
    return rows.theta.tobytes(), rows.seed.tobytes(), rows.status.tolist(), arrays, leftovers


def main() -> None:
    """Kill commands, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=KILLED)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    place, fine = Workplace(root), True
    for name in given.commands:
        began = time.monotonic()
        hits, wrong = torture(place, name, given.kills, random.Random(f"{given.seed} {name}"))
        verdict = "the same numbers" if not wrong else "; ".join(wrong)
        print(f"{name:20} {hits:3} kills, {time.monotonic() - began:4.0f} s: {verdict}", flush=True)
        fine = fine and not wrong
    if fine:
        shutil.rmtree(root)
    else:
        print(f"folders: {root}")
        sys.exit(1)


if __name__ == "__main__":
    main()
