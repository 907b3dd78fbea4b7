"""Commands ``eorinfer image-flow``: train an image flow, sample it, and ask what it sees."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from eorinfer.cli.common import Modules, Out, sole_run
from eorinfer.core.errors import InputError

image_flow_app = App(
    name="image-flow", help="Train and use an image flow: p(image | parameters), or p(image | neutral fraction)."
)


@image_flow_app.command
def train(config: Path, *, out: Out) -> None:
    """Train the image flow on the simulations of a run, in RUN/field; missing simulations are made first.

    Parameters
    ----------
    config
        TOML file; its [image_flow] has the settings.
    """
    with sole_run(config, out) as run:
        run.read_observation()
        run.image_flow()
        run.progress.line(f"results: {out}/field")


@image_flow_app.command
def sample(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name="--out", help="Folder of the images.")],
    theta: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    neutral_fraction: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    n: int = 16,
    seed: int = 1,
    run: Path | None = None,
    modules: Modules = None,
) -> None:
    """Make images with a trained image flow, and compare them with simulated images of a run.

    Without --theta and --neutral-fraction, the conditions are those of images that training held out. With one of
    them images are compared where --run is given.

    Parameters
    ----------
    model
        Folder of the image flow, such as RUN/field.
    theta
        NAME=VALUE for each parameter that the flow is conditioned on.
    neutral_fraction
        One or more neutral fractions, for a flow that is conditioned on it.
    n
        Number of images at each condition.
    seed
        Seed of all images and noise.
    run
        Folder of the run to take simulated images from. For images that training held out it is by default the run
        that the model is in.
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
    write_samples(model, wanted, out, n, seed, run, for_terminal(), modules)


@image_flow_app.command
def beyond_power(
    model: Path,
    *,
    out: Annotated[Path, Parameter(name="--out", help="Folder of the results.")],
    n: int = 200,
    seed: int = 1,
    run: Path | None = None,
    modules: Modules = None,
) -> None:
    """Test whether an image flow sees more in images than their power spectrum.

    Simulated images are compared with copies that have the same power spectrum and nothing else, and with images of
    other parameters whose power spectrum agrees.

    Parameters
    ----------
    model
        Folder of the image flow, such as RUN/field.
    n
        Number of images, of those that training held out.
    seed
        Seed of copies and noise.
    run
        Folder of the run to take images from; by default the run that the model is in.
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.studies import beyond_power as step

    if n < 10:
        raise InputError(f"--n {n}: at least ten images are needed")
    step.beyond_power(model, out, n, seed, run, for_terminal(), modules)
