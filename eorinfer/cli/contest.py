"""The command ``eorinfer contest``."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli.common import Out, sole_run

contest_app = App(name="contest")


@contest_app.default
def contest(config: Path, *, out: Out) -> None:
    """Compare posteriors from images with power-spectrum likelihoods, on many truths.

    All methods get the same simulations, the same survey and the same truths. Writes contest.json, contest.png and
    report.html.

    Parameters
    ----------
    config
        TOML file of a run; its [contest] names the methods.
    """
    from eorinfer.contest.contest import run_contest

    with sole_run(config, out) as run:
        run_contest(run)
        run.report()
