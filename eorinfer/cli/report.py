"""The command ``eorinfer report``: the page of a run."""

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
    """Write one HTML file with all that a run or a contest left: figures, tables, calibration, config.

    It needs nothing beside it and loads nothing from anywhere.

    Parameters
    ----------
    run
        Run folder.
    """
    from eorinfer.report.write import write_report

    file = write_report(run, out)
    print(f"page: {file}, {file.stat().st_size / 1e6:.1f} MB")
