"""Are posteriors from images better than a power-spectrum MCMC? The contests of examples/, which the package holds.

    python -m benchmarks.flow_against_mcmc --out DIR                  the small one on 21cm images, and Gaussian fields
    python -m benchmarks.flow_against_mcmc --out DIR --contests full   nine parameters: days of many cores, resumable

The same as `eorinfer contest examples/contest.toml --out DIR/contest` and so on; what is there is not made again.
"""

import argparse
from pathlib import Path

from eorinfer import Run
from eorinfer.contest.contest import run_contest
from eorinfer.core.progress import for_terminal
from eorinfer.run.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTESTS = {"gaussian": "contest_gaussian.toml", "small": "contest.toml", "full": "contest_full.toml"}


def main() -> None:
    """Hold the contests asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=["gaussian", "small"])
    arguments = parser.parse_args()
    for name in arguments.contests:
        config = load_config(EXAMPLES / CONTESTS[name])
        run_contest(Run(config, arguments.out / Path(CONTESTS[name]).stem, for_terminal()))


if __name__ == "__main__":
    main()
