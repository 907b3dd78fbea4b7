"""How long does the example of the README take, and what does it print? It runs it as a reader would.

python -m benchmarks.one_minute --out DIR
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import record

EXAMPLE = Path(__file__).parents[1] / "examples" / "one_minute.py"
NUMBER = r"(-?[\d.]+) ± ([\d.]+)"


def main() -> None:
    """Run the example in a process of its own, and record what it prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    made = subprocess.run([sys.executable, EXAMPLE, arguments.out], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - begin
    print(made.stdout)
    figures = {}
    for label, *numbers in re.findall(rf"^(\S.*?) +{NUMBER} +{NUMBER}$", made.stdout, re.MULTILINE):
        names = ("log_density", "log_density_std", "log_flux", "log_flux_std")
        figures[label] = dict(zip(names, map(float, numbers), strict=True))
    record("one_minute", figures, seconds=seconds)


if __name__ == "__main__":
    main()
