"""Are posteriors from images better than a power-spectrum MCMC? The contests of examples/, which the package holds.

    python -m benchmarks.flow_against_mcmc --out DIR                  the small one on 21cm images, and Gaussian fields
    python -m benchmarks.flow_against_mcmc --out DIR --contests full   nine parameters: days of many cores, resumable

    python -m benchmarks.flow_against_mcmc --out DIR --contests nine   nine parameters with a known answer

    python -m benchmarks.flow_against_mcmc --out DIR --record FOLDER   no contest: tables of a folder that has one, kept

The same as `eorinfer contest examples/contest.toml --out DIR/contest` and so on; what is there is not made again.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.record import record
from eorinfer import Run
from eorinfer.contest.contest import run_contest
from eorinfer.core.files import read_json
from eorinfer.core.progress import for_terminal
from eorinfer.run.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTESTS = {
    "gaussian": "contest_gaussian.toml",
    "small": "contest.toml",
    "nine": "contest_nine.toml",
    "full": "contest_full.toml",
}


def main() -> None:
    """Hold the contests asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=["gaussian", "small"])
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="run folder of a contest that is done")
    parser.add_argument("--name", default="contest_21cm", help="of what is kept")
    arguments = parser.parse_args()
    if arguments.record:
        record_contest(arguments.name, read_json(arguments.record / "contest.json"))
        return
    for name in arguments.contests:
        config = load_config(EXAMPLES / CONTESTS[name])
        run_contest(Run(config, arguments.out / Path(CONTESTS[name]).stem, for_terminal()))


def record_contest(name: str, content: dict[str, Any]) -> None:
    """Print the tables of a contest as Markdown, and keep its scores in ``benchmarks/results``."""
    for table in content["tables"]:
        print(f"\n{table['title']}: {table.get('caption', '')}\n")
        for row in (table["columns"], ["---"] * len(table["columns"]), *table["rows"]):
            print("| " + " | ".join(map(str, row)) + " |")
    keys = ("truths", "gain", "volume_over_prior", "recovery", "calibrated", "worst_p", "worst_test", "tarp_deviation")
    scores = {method: {key: one[key] for key in keys} for method, one in content["methods"].items()}
    seconds = sum(one["training_seconds"] for one in content["methods"].values())
    tables = {table["title"]: [table["columns"], *table["rows"]] for table in content["tables"]}
    record(name, {"simulations": content["simulations"], "methods": scores, "tables": tables}, seconds=seconds)


if __name__ == "__main__":
    main()
