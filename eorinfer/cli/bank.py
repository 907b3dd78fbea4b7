"""Commands ``eorinfer bank``: look at, check, export and import simulations."""

from pathlib import Path

from cyclopts import App

from eorinfer.cli.common import Out, open_run
from eorinfer.core.chains import with_suffix
from eorinfer.core.errors import InputError, WorkError

bank_app = App(name="bank", help="Look at a simulation bank, check it, export it, or import cubes into it.")


@bank_app.command
def info(bank: Path, *, plot: Path | None = None) -> None:
    """Show a bank's parameters, its rows by status and round, its size, and the seconds per row.

    Parameters
    ----------
    bank
        Folder of the bank.
    plot
        File for a picture (png or pdf) of the rows in the prior, with a few cubes.
    """
    from eorinfer.bank.facts import BankFacts
    from eorinfer.bank.store import Bank

    opened = Bank.open(bank)
    for line in BankFacts.from_bank(opened).lines():
        print(line)
    if plot is not None:
        from eorinfer.figures.bank import bank_figure
        from eorinfer.figures.style import write_figure

        write_figure(bank_figure(opened, opened.rows()), plot)
        print(f"picture: {plot}")


@bank_app.command
def verify(bank: Path, *, repair: bool = False) -> None:
    """Read every byte of a bank and name damaged files.

    Parameters
    ----------
    bank
        Folder of the bank.
    repair
        Move damaged files aside; the next run writes them, or simulates their rows, again.
    """
    from eorinfer.bank.store import Bank
    from eorinfer.bank.verify import verify

    problems = verify(bank, repair=repair)
    for problem in problems:
        print(problem)
    if unread := [problem for problem in problems if problem.unread]:
        raise WorkError(f"{bank}: {len(unread)} file(s) could not be read, and were not moved; see the lines above")
    if problems and not repair:
        raise WorkError(f"{bank}: {len(problems)} damaged file(s); --repair sets them aside")
    if not (bank / "bank.json").exists() and problems:
        print(f"{bank}: the next run writes bank.json again; then verify what else there is")
        return
    print(f"{bank}: {len(Bank.open(bank).rows())} rows are whole")


@bank_app.command
def retry(bank: Path, *, all: bool = False) -> None:
    """Let the next campaign simulate rows again that ended by a limit of time or memory, or by a signal.

    Parameters
    ----------
    bank
        Folder of the bank.
    all
        Take all rows that failed, whatever ended them.
    """
    from eorinfer.bank.again import mark
    from eorinfer.bank.store import Bank

    counts = mark(Bank.open(bank), everything=all)
    kinds = ", ".join(f"{n} {status}" for status, n in counts.items())
    what = (
        f"{sum(counts.values())} rows ({kinds}) are simulated again by the next run" if counts else "nothing to retry"
    )
    print(f"{bank}: {what}")


@bank_app.command
def export(bank: Path, file: Path, *, all: bool = False, prior: bool = False) -> None:
    """Write a bank into one plain HDF5 file, for other tools.

    Parameters
    ----------
    bank
        Folder of the bank.
    file
        HDF5 file to write; it must not exist yet.
    all
        Include rows that failed; their arrays are zero.
    prior
        Leave out rows that were not drawn from the prior: truths of tests, and those of later rounds.
    """
    from eorinfer.bank.export import export_rows
    from eorinfer.bank.store import Bank
    from eorinfer.core.progress import for_terminal

    n = export_rows(Bank.open(bank), file, everything=all, prior=prior, progress=for_terminal())
    print(f"{file}: {n} rows, {file.stat().st_size / 1e6:.1f} MB")


@bank_app.command(name="import")
def import_(
    config: Path, *, out: Out, theta: Path, cubes: list[str], seeds: Path | None = None, unit: str | None = None
) -> None:
    """Put existing cubes and their parameters into the bank of a run.

    Parameters
    ----------
    config
        TOML file. Its [simulator] describes the cubes; kind = "imported" for cubes of another code.
    theta
        npy file of parameters (n, P), drawn from the prior of the config; or HDF5 with the dataset theta.
    cubes
        npy file of the images (n, C, ...); HDF5 with such a dataset for each observable, as bank export writes it; or a
        folder with a file for each row, in the order of their names. NAME=FILE, once for each observable.
    seeds
        npy file of whole numbers (n,), or HDF5 with the dataset seed. Rows with the same number share initial
        conditions, and are never split between training and validation.
    unit
        Unit of cubes in npy files, by default that of [simulator]. Other files say theirs.
    """
    from eorinfer.bank.importing import import_rows

    run = open_run(config, out)
    say = run.progress.line
    n = import_rows(run.bank, run.config.prior, theta, cubes, seeds, lambda text: say(f"bank: {text}"), unit)
    said = f"{n} rows imported into {run.bank.path}" if n else f"all these rows are in {run.bank.path} already"
    run.progress.line(f"bank: {said}")


@bank_app.command
def weigh(
    config: Path,
    root: Path,
    *,
    out: Out,
    optical_depth: tuple[float, float] | None = None,
    neutral_fraction: tuple[float, float, float] | None = None,
    luminosity_function: Path | None = None,
) -> None:
    """Weigh a run's simulations by other data, and write them as a chain that [prior] table takes.

    Parameters
    ----------
    config
        TOML file of the run.
    root
        Chain to write: ROOT.txt, ROOT.paramnames and ROOT.ranges.
    optical_depth
        Mean and standard deviation, e.g. 0.0561 0.0071 for Planck 2018.
    neutral_fraction
        Redshift, upper limit and standard deviation, e.g. 5.9 0.06 0.05.
    luminosity_function
        File of redshift, UV magnitude, density (1/Mpc3/mag) and its standard deviation.
    """
    from eorinfer.bank.external import External, weighed
    from eorinfer.run.config import load_config

    if not (bank := load_config(config).bank_path(out) / "bank.json").exists():
        raise InputError(f"{bank.parent}: no bank here; --out names the folder of the run that is weighed")
    if (table := with_suffix(root, ".txt")).exists():
        raise InputError(f"{table}: exists already; give another ROOT")
    run = open_run(config, out)
    samples = weighed(run.bank, run.config.prior, External(optical_depth, neutral_fraction, luminosity_function))
    samples.write(root)
    effective = samples.weights.sum() ** 2 / (samples.weights**2).sum()
    run.progress.line(f"{root}: {len(samples)} simulations, of which {effective:.0f} count; [prior] table takes it")
