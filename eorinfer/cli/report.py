"""The command ``eorinfer report``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

report_app = App(name="report")


@report_app.default
def report(
    run: Path,
    *,
    out: Annotated[Path | None, Parameter(name="--out", help="HTML file; by default RUN/report.html.")] = None,
) -> None:
    """Write one HTML file with the results of a run or a contest: figures, tables, calibration, config.

    The file needs no other file and loads nothing from the network.

    Parameters
    ----------
    run
        Run folder.
    """
    from eorinfer.report.write import write_report

    file = write_report(run, out)
    print(f"page: {file}, {file.stat().st_size / 1e6:.1f} MB")
