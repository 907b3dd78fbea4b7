"""Commands ``eorinfer separate``: networks that take maps apart into emission lines."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli.common import Out

separate_app = App(name="separate", help="Train, use and score a network that separates emission lines.")


@separate_app.command
def train(config: Path, *, out: Out) -> None:
    """Simulate mocks and train a separator on them, in OUT/separator.

    Parameters
    ----------
    config
        TOML file with [simulator], [survey] and [separation].
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.core.sole import sole_command
    from eorinfer.run.config import load_config
    from eorinfer.run.line_separation import Separation, refuse_few_realisations

    loaded = load_config(config, "separation")
    refuse_few_realisations(loaded)
    step = Separation(loaded, out, for_terminal())
    with sole_command(out):
        separator = step.train()
    for warning in separator.spec.facts["warnings"]:
        step.progress.line(f"at the end: {warning}")
    step.progress.line(f"results: {out}/separator")


@separate_app.command
def apply(model: Path, file: Path, *, out: Path, draws: int = 0, seed: int = 1) -> None:
    """Separate an observed map into lines; a map larger than those of training is cut into overlapping tiles.

    Parameters
    ----------
    model
        Folder of a separator, such as OUT/separator.
    file
        Observed map: HDF5, FITS or npy, in the unit and pixels of training.
    out
        HDF5 or FITS file to write: the observed map and each line; with --draws also their spread and the draws.
    draws
        Number of draws to write beside the lines. Lines of a "cgan" are then the mean of eight draws or more.
    seed
        Seed of the draws.
    """
    from eorinfer.core.errors import InputError
    from eorinfer.run import line_separation as separation

    if draws < 0:
        raise InputError(f"--draws {draws}: it must be at least 0")
    for note in separation.apply(model, file, out, draws, seed):
        print(f"{file}: {note}")
    print(f"results: {out}")


@separate_app.command
def score(
    model: Path,
    *,
    out: Path,
    config: Path | None = None,
    bank: Path | None = None,
    l1: Path | None = None,
    maps: int = 300,
    radius: float = 4.0,
    seed: int = 1,
) -> None:
    """Score a separator, the observed map and a Wiener filter, on mocks that it was not trained on.

    Writes scores.json and scores.png, and prints a table.

    Parameters
    ----------
    model
        Folder of a separator, such as OUT/separator.
    out
        Folder of the results; with --config and no --bank, also of the mocks.
    config
        TOML file of mocks and survey to score on: that of the training, or another. With --bank, only the survey
        is used.
    bank
        Folder of a bank of mocks, observed through the survey of the training, or of --config.
    l1
        Folder of a second separator to score, trained with loss = "l1".
    maps
        Number of maps to score, at most.
    radius
        Peak radius in arcmin: a peak is the highest pixel within it, and two peaks closer than it are the same.
    seed
        Seed of the noise.
    """
    from eorinfer.bank.store import Bank
    from eorinfer.core.errors import InputError
    from eorinfer.core.progress import for_terminal
    from eorinfer.run.config import load_config
    from eorinfer.run.line_separation import Separation
    from eorinfer.run.separation_scores import (
        FEWEST,
        ScoreSettings,
        load_separators,
        refuse_other_mocks,
        score_separators,
    )

    if config is None and bank is None:
        raise InputError("score needs mocks: --config CONFIG, --bank BANK, or both for the survey of the one")
    if maps < FEWEST or radius <= 0:
        raise InputError(f"--maps {maps} --radius {radius:g}: at least {FEWEST} maps and a positive radius are needed")
    separators = load_separators(model, l1)
    survey = next(iter(separators.values())).spec.survey
    if config is not None:
        loaded = load_config(config, "separation")
        survey = loaded.tables.survey
        if bank is None:
            refuse_other_mocks(separators, loaded.simulator.observables, str(config))
            step = Separation(loaded, out, for_terminal())
            step.simulate()
            bank = step.bank.path
    assert bank is not None
    print(score_separators(model, ScoreSettings(Bank.open(bank), survey, maps, radius, seed), out, l1))
    print(f"results: {out}/scores.json, scores.png")
