"""The commands ``eorinfer field``: the flow on the images."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from eorinfer.cli.common import Out, open_run
from eorinfer.core.errors import InputError

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
    step.image_flow()
    step.progress.line(f"results: {out}/field")


@field_app.command
def sample(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name="--out", help="Folder of the images.")],
    theta: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    neutral_fraction: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    n: int = 16,
    seed: int = 1,
    run: Path | None = None,
) -> None:
    """Make images with a trained flow, and compare them with real ones of the run that it was trained in.

    Without --theta and --neutral-fraction they are made at the conditions of images that training held out.

    Parameters
    ----------
    model
        Folder of the flow, e.g. RUN/field.
    theta
        NAME=VALUE for each parameter that is a condition.
    neutral_fraction
        One or several, for a flow that is conditioned on it.
    n
        Images at each.
    seed
        Seed of all randomness.
    run
        Run to take real images from; by default the one that the model is in.
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.imageflow.model import ImageFlow
    from eorinfer.studies.image_samples import given_neutral_fraction, given_theta, write_samples

    if theta and neutral_fraction:
        raise InputError("give --theta or --neutral-fraction, not both")
    if n < 2:
        raise InputError(f"--n {n}: at least two images are needed")
    flow = ImageFlow.load(model)
    wanted = []
    if theta:
        wanted = given_theta(flow, theta, n)
    if neutral_fraction:
        wanted = given_neutral_fraction(flow, neutral_fraction, n)
    write_samples(model, wanted, out, n, seed, run, for_terminal())


@field_app.command
def beyond_power(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name="--out", help="Folder of the results.")],
    n: int = 200,
    seed: int = 1,
    run: Path | None = None,
) -> None:
    """Does the flow see more in images than their power spectrum? Real ones against copies that have only that.

    Parameters
    ----------
    model
        Folder of the flow, e.g. RUN/field.
    n
        Images that training held out.
    seed
        Seed of all randomness.
    run
        Run to take images from; by default the one that the model is in.
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.studies import beyond_power as step

    if n < 10:
        raise InputError(f"--n {n}: at least ten images are needed")
    step.beyond_power(model, out, n, seed, run, for_terminal())
