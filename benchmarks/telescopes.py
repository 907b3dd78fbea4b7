"""What do three interferometers say of one universe?

The same clean cube of 21cmFAST is observed by SKA-Low AA4, by HERA and by a user's own layout from a file of antennas,
for as long. A posterior on image and P(k) is trained for each, on the same simulations; `[survey]` alone differs.

    python -m benchmarks.telescopes RUN [--folder DIR] [--simulations 1000]

RUN is the folder of a run of ``examples/contest.toml``; its bank is copied, and nothing is simulated but the observed
cube.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.record import record
from eorinfer import Run, Samples, corner
from eorinfer.core.progress import Lines
from eorinfer.core.toml import read_toml
from eorinfer.figures.style import write_figure
from eorinfer.report.run_folder import read_rounds
from eorinfer.run.config import check_config

#: Antennas of the user's own layout, their spread in m, and the seed of their places.
ANTENNAS, SPREAD, SEED = 128, 200.0, 7
HOURS = 1000.0
#: What each of the three says in [survey], beside the hours.
LAYOUTS: dict[str, dict[str, Any]] = {
    "SKA-Low AA4": {"layout": "AA4"},
    "HERA": {"layout": "HERA"},
    "own layout": {"layout": "antennas.csv", "latitude": -30.0, "diameter": 20.0},
}


def write_antennas(path: Path) -> None:
    """Place antennas at random, normally distributed about the middle; east, north and up in m."""
    east_north = np.random.default_rng(SEED).normal(0.0, SPREAD, (ANTENNAS, 2))
    lines = [f"{east:.2f}, {north:.2f}, 0.0" for east, north in east_north]
    path.write_text("\n".join(["east, north, up", *lines]) + "\n", encoding="utf-8")


def infer(tables: dict[str, Any], label: str, folder: Path) -> tuple[Samples, float]:
    """Train on the bank in `folder` through one telescope; give samples of the observation, and seconds of training."""
    survey = {"kind": "ska-low", "hours": HOURS, **LAYOUTS[label]}
    config = check_config(folder / "config.toml", tables | {"survey": survey})
    run = Run(config, folder / label.replace(" ", "-").lower(), Lines())
    samples = run.infer()
    seconds = read_rounds(run.out)[-1]["seconds"]
    return Samples(samples.values, samples.weights, samples.parameters, label), seconds


def main() -> None:
    """Train for each telescope, draw the corner and record means and widths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="where the runs are kept, and found again; by default nowhere")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/telescopes.png"))
    arguments = parser.parse_args()
    mpl.use("Agg")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        if not (folder / "bank").exists():
            shutil.copytree(
                arguments.run / "bank", folder / "bank", ignore=shutil.ignore_patterns("claims/*", ".tmp-*")
            )
        write_antennas(folder / "antennas.csv")
        begun = read_toml(arguments.run / "config.toml")
        tables = {key: begun[key] for key in ("seed", "simulator", "prior", "observation")} | {
            "inference": {"rounds": [arguments.simulations], "predictive": 0},
            "embedding": {"width": 8},
            "training": {"steps": arguments.steps, "batch_size": 32, "learning_rate": 4e-3, "ensemble": 1},
            "bank": {"path": "bank"},
        }
        chains, figures = [], {}
        for label in LAYOUTS:
            samples, seconds = infer(tables, label, folder)
            chains.append(samples)
            figures[label] = {
                **{f"mean_{p}": round(float(m), 3) for p, m in zip(samples.names, samples.mean, strict=True)},
                **{f"std_{p}": round(float(s), 3) for p, s in zip(samples.names, samples.std, strict=True)},
                "area": round(float(np.sqrt(np.linalg.det(samples.covariance))), 5),
                "training_seconds": round(seconds),
            }
            print(label, figures[label], flush=True)
        truth = begun["observation"]["theta"]
        figure = corner(*chains, truth=np.array([truth[name] for name in chains[0].names]))
        write_figure(figure, arguments.picture)
        rows = {"simulations": arguments.simulations, "hours": HOURS, "truth": truth}
        record("telescopes", {"telescopes": figures, **rows}, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
