"""Results as they were measured: a JSON file each in ``benchmarks/results``, with date, commit, machine and command."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eorinfer.core.files import write_json
from eorinfer.core.revision import commit

FOLDER = Path(__file__).parent / "results"
FORMAT = 1


def record(name: str, figures: Mapping[str, Any], *, seconds: float) -> Path:
    """Write what a script measured to ``benchmarks/results/{name}.json`` and return the path.

    Parameters
    ----------
    name
        One word for the table, as ``separation_2d``.
    figures
        The table: text, numbers and lists of them, by names that say the unit. The README and docs quote from here.
    seconds
        How long the measurement took, by the clock.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    # Where a folder lies on this machine is nobody's business.
    given = ("DIR" if Path(one).is_absolute() else shlex.quote(one) for one in sys.argv[1:])
    write_json(
        path,
        {
            "format": FORMAT,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "machine": f"{processor()}, {os.cpu_count()} threads",
            "command": " ".join([f"python -m {_module()}", *given]),
            "seconds": round(seconds),
            "figures": dict(figures),
        },
    )
    return path


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _module() -> str:
    """Dotted name of the script that runs, as ``python -m`` takes it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None else Path(sys.argv[0]).name
