"""Figures of the README that were measured before results were files: taken from the tables of docs/results.

    python -m benchmarks.carried_over

Writes a file in benchmarks/results for each row of `TABLES` that has none. `carried_over` in it names the page and
says that no script has measured it since; measuring again (`command`) replaces the file by one without that mark.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import FOLDER, FORMAT
from eorinfer.core.files import write_json

PAGES = Path(__file__).parents[1] / "docs" / "results"
#: The machine of these tables, as the README of their time said.
MACHINE = "two cores with 24 GB, shared with other work"


@dataclass(frozen=True)
class Table:
    """Figures of one table of a page.

    Attributes
    ----------
    page
        File in docs/results.
    date, commit
        When the page got these figures, and the commit that brought them.
    command
        What measured them.
    figures
        Regular expression of each figure's place on the page, whose group is the figure.
    """

    page: str
    date: str
    commit: str
    command: str
    figures: dict[str, str]


TABLES = {
    "known_answer": Table(
        "known_answer.md",
        "2026-11-24",
        "5b3e17c",
        "python -m benchmarks.known_answer --out DIR",
        {
            "c2st_median_1000_simulations": r"\| 2D, 32² \| 1,000 \| default \| 3 \| ([\d.]+)",
            "c2st_median_2000_simulations": r"\| 2D, 32² \| 2,000 \| default \| 3 \| ([\d.]+)",
        },
    ),
    "contest_21cm": Table(
        "contest.md",
        "2026-11-27",
        "cbc1a44",
        "python -m benchmarks.flow_against_mcmc --out DIR --contests small",
        {
            "gain_image_and_power_nats": r"\| NPE on image and P\(k\) \| 1000 \| \*\*([\d.]+) ± 0\.05",
            "gain_power_nats": r"## 21cm images.*?\| NPE on P\(k\) \| 1000 \| ([\d.]+)",
            "gain_difference_nats": r"\| NPE on image and P\(k\) \| 1000 \| [^|]*\| \*\*\+([\d.]+)",
        },
    ),
    "contest_nine": Table(
        "contest.md",
        "2026-11-27",
        "34a663d",
        "python -m benchmarks.flow_against_mcmc --out DIR --contests full",
        {
            "simulations": r"two\s+cores\s+made\s+the\s+first\s+(\d+)\s+in\s+90\s+minutes",
            "gain_image_and_power_nats": r"\| NPE on image and P\(k\) \| 200 \| \*\*([\d.]+)",
            "gain_image_and_power_error_nats": r"\| NPE on image and P\(k\) \| 200 \| \*\*[\d.]+ ± ([\d.]+)",
            "gain_power_nats": r"\| NPE on P\(k\) \| 200 \| ([\d.]+)",
            "gain_power_error_nats": r"\| NPE on P\(k\) \| 200 \| [\d.]+ ± ([\d.]+)",
        },
    ),
    "other_sources": Table(
        "contest.md",
        "2026-11-27",
        "b624906",
        "python -m benchmarks.sensitivity examples/contest.toml DIR --out DIR2",
        {"warned_percent": r"\| another source model \([^|]*\| (\d+)%"},
    ),
    "separation_deep": Table(
        "separation.md",
        "2026-11-27",
        "92c9ca2",
        "python -m benchmarks.separation --out DIR --maps 3200 --steps 1600",
        {
            "r_oiii_network": r"\| \[OIII\] \|.*?\| GAN, without dropout \|(?:[^|]*\|){3} \*\*([\d.]+)",
            "r_oiii_wiener": r"\| \[OIII\] \|.*?\| Wiener filter \|(?:[^|]*\|){3} ([\d.]+)",
        },
    ),
    "bank_throughput": Table(
        "21cmfast.md",
        "2026-11-24",
        "5b3e17c",
        "python -m benchmarks.bank_throughput --rows 16",
        {
            "over_plain_loop": r"\| without spin temperature \(share 4\) \| [\d.]+ \| [\d.]+ \| ([\d.]+)",
            "over_plain_loop_spin_temperature": r"\| with spin temperature[^|]*\| [\d.]+ \| [\d.]+ \| ([\d.]+)",
        },
    ),
}


def figures_of(table: Table) -> dict[str, float]:
    """Read the figures of a table from its page.

    Raises
    ------
    ValueError
        If the page has none at that place.
    """
    page = (PAGES / table.page).read_text(encoding="utf-8")
    found = {name: re.search(where, page, re.DOTALL) for name, where in table.figures.items()}
    if missing := [name for name, match in found.items() if match is None]:
        raise ValueError(f"{table.page}: there is no {missing[0]}")
    return {name: float(match[1]) for name, match in found.items() if match is not None}


def main() -> None:
    """Write the files that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for name, table in TABLES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        content = {
            "format": FORMAT,
            "date": table.date,
            "commit": table.commit,
            "machine": MACHINE,
            "command": table.command,
            "carried_over": f"from docs/results/{table.page}",
            "figures": figures_of(table),
        }
        write_json(path, content)


if __name__ == "__main__":
    main()
