"""The commands ``eorinfer field``: the flow on the images."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli_common import Out, open_run

field_app = App(name="field", help="The flow on the images: p(image | parameters, or neutral fraction).")


@field_app.command
def train(config: Path, *, out: Out) -> None:
    """Train the flow on the simulations of a run, into RUN/field; what lacks is simulated first.

    Parameters
    ----------
    config
        TOML file; its [field] table says how.
    """
    step = open_run(config, out)
    step.read_observation()
    step.field()
    step.progress.line(f"results: {out}/field")
