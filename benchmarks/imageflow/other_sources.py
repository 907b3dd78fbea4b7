"""21cm maps of other source models than the one that maps_21cm.py trains on. A part of it."""

import tomllib
from pathlib import Path
from typing import Any

from benchmarks.imageflow.slices import Maps, observed_rows
from eorinfer import Run
from eorinfer.core.progress import for_terminal
from eorinfer.run.config import check_config

#: Boxes of each.
BOXES = 12
#: Keys of ``[simulator]`` that differ.
SOURCES: dict[str, dict[str, Any]] = {
    "Park19 sources": {"spin_temperature": True, "nodes": "coarse", "independent_redshifts": True},
    "ALPHA_ESC = 0.5": {"fixed": {"ALPHA_ESC": 0.5}},
}


def other_sources(run: Run, out: Path) -> dict[str, Maps]:
    """Observed maps of each model by name, simulated where they lack."""
    found = {}
    content = tomllib.loads(Path(run.config.file).read_text())
    for name, changed in SOURCES.items():
        table = {"simulator": content["simulator"] | changed, "inference": {"rounds": [BOXES]}}
        folder = out / name.replace(" ", "-").replace("=", "is")
        world = Run(check_config(Path(run.config.file), content | table), folder, for_terminal())
        world.simulate()
        found[name] = observed_rows(world, world.training_rows(world.observe()))
    return found
