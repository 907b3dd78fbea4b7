"""The commands ``eorinfer separate``: a conditional GAN that takes maps apart into lines."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli_common import Out

separate_app = App(name="separate", help="Train, use and judge a network that separates emission lines.")


@separate_app.command
def train(config: Path, *, out: Out) -> None:
    """Simulate mocks and train a separator on them, in OUT/separator.

    Parameters
    ----------
    config
        TOML file with [simulator], [survey] and [separation].
    """
    from eorinfer.config import load_config
    from eorinfer.progress import for_terminal
    from eorinfer.run.separation import Separation

    step = Separation(load_config(config, "separation"), out, for_terminal())
    separator = step.train()
    for warning in separator.meaning.facts["warnings"]:
        step.progress.line(f"at the end: {warning}")
    step.progress.line(f"results: {out}/separator")


@separate_app.command
def apply(model: Path, file: Path, *, out: Path, draws: int = 0, seed: int = 1) -> None:
    """Separate an observed map, in overlapping tiles where it is larger than those of training.

    Parameters
    ----------
    model
        Folder of a separator, e.g. OUT/separator.
    file
        Observed map: HDF5, FITS or npy, in the unit and pixels of training.
    out
        HDF5 or FITS file: the observed map, each line, and with --draws their spread and the draws.
    draws
        How many draws to make; the lines are then their mean.
    seed
        Of the draws.
    """
    from eorinfer.errors import InputError
    from eorinfer.run import separation

    if draws < 0:
        raise InputError(f"--draws {draws}: it must be at least 0")
    separation.apply(model, file, out, draws, seed)
    print(f"results: {out}")
