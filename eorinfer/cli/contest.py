"""The command ``eorinfer benchmark``."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli.common import Out, open_run

contest_app = App(name="benchmark", help="Posteriors from images against power-spectrum likelihoods, over many truths.")


@contest_app.default
def benchmark(config: Path, *, out: Out) -> None:
    """Hold a contest: every method on the same simulations, survey and truths.

    Parameters
    ----------
    config
        TOML file of a run; its [contest] names the methods.
    """
    from eorinfer.contest.contest import run_contest

    run = open_run(config, out)
    run_contest(run)
    run.report()
