"""The command ``eorinfer``: each step of a run, and what is done with banks and posteriors."""

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError

import eorinfer
from eorinfer.campaign.signals import ask_again_when_lost
from eorinfer.cli.common import Out, open_run
from eorinfer.cli.contest import contest_app
from eorinfer.cli.imageflow import field_app
from eorinfer.cli.report import report_app
from eorinfer.cli.separate import separate_app
from eorinfer.core.errors import InputError, WorkError
from eorinfer.figures.style import keep_matplotlib_out_of_home

app = App(
    name="eorinfer",
    help="Simulation-based inference for 21cm images: posteriors from the whole image beside a power-spectrum MCMC.",
    version=eorinfer.__version__,
    suppress_keyboard_interrupt=False,  # cyclopts would end in silence with exit code 130
    help_epilogue="Exit codes: 0 done, 1 failed while working, 2 the input was wrong. --debug shows tracebacks.",
)
bank_app = App(name="bank", help="Look at, check and fill simulation banks.")
app.command(bank_app)
app.command(contest_app)
app.command(field_app)
app.command(separate_app)
app.command(report_app)


@app.command
def run(config: Path, *, out: Out) -> None:
    """Do everything: simulate, observe, infer, mcmc, plot.

    Parameters
    ----------
    config
        TOML file.
    """
    open_run(config, out).all()


@app.command
def simulate(config: Path, *, out: Out, dry_run: bool = False) -> None:
    """Fill the bank with the simulations of the first round.

    Parameters
    ----------
    config
        TOML file.
    dry_run
        Start and write nothing; say where simulations would run, and print the script of a batch job.
    """
    if dry_run:
        print(_dry_run(config, out))
        return
    step = open_run(config, out)
    step.preflight()
    step.simulate()
    counts = ", ".join(f"{n} {status}" for status, n in step.bank.rows().counts().items())
    step.progress.line(f"bank: {step.bank.path} has {counts}")


@app.command
def observe(config: Path, *, out: Out) -> None:
    """Make the mock observation, or read and check the observed file.

    Parameters
    ----------
    config
        TOML file.
    """
    step = open_run(config, out)
    observation = step.observe()
    shape = " x ".join(str(n) for n in observation.values.shape)
    step.progress.line(f"observation: {out}/observation.h5, {shape} in {observation.unit or 'no unit'}")


@app.command
def infer(
    config: Path | None = None,
    *,
    out: Out,
    posterior: Path | None = None,
    observation: Path | None = None,
    samples: int = 10000,
    seed: int = 1,
) -> None:
    """Train the posterior in rounds, or the field flow ([inference] method); or use a trained one again.

    For the last give --posterior and --observation.

    Parameters
    ----------
    config
        TOML file of a run; not with --posterior.
    posterior
        Folder of a trained posterior, e.g. RUN/posterior or RUN/rounds/01/posterior; or of a field flow, RUN/field.
    observation
        HDF5, FITS or npy file.
    samples
        Samples to draw, with --posterior; a field flow of several conditions has its own chain instead.
    seed
        Seed of the draw, with --posterior.
    """
    if config is not None and posterior is None and observation is None:
        step = open_run(config, out)
        step.read_observation()
        step.preflight()
        step.infer()
        made = "posterior, chains/npe.txt" if step.by_npe else "field, chains/field-flow.txt"
        step.progress.line(f"results: {out}/{made}")
        return
    if config is not None or posterior is None or observation is None:
        raise InputError("infer needs either CONFIG, or both --posterior DIR and --observation FILE")
    from eorinfer.core.progress import for_terminal
    from eorinfer.run.reuse import infer_again

    infer_again(posterior, observation, out, samples, seed, for_terminal())


@app.command
def mcmc(config: Path, *, out: Out) -> None:
    """Run emcee on the power-spectrum likelihood emulated from the bank.

    Parameters
    ----------
    config
        TOML file.
    """
    step = open_run(config, out)
    step.mcmc()
    step.progress.line(f"results: {out}/chains/mcmc.txt")


@app.command
def plot(config: Path, *, out: Out) -> None:
    """Draw the corner plot and the predictive check, and write summary.json.

    Parameters
    ----------
    config
        TOML file.
    """
    open_run(config, out).plot()


@app.command
def validate(config: Path, *, out: Out) -> None:
    """Check the posterior against known truths; exit code 1 when it is not calibrated.

    Writes validation.json and validation.png: ranks, coverage, widths and recovery.

    Parameters
    ----------
    config
        TOML file.
    """
    step = open_run(config, out)
    step.read_observation()
    step.validate()


@app.command
def lim(config: Path, *, out: Out, n: int = 1, seed: int = 1, fits: bool = False, plot: bool = False) -> None:
    """Make mock maps or cubes, line by line and as they are observed.

    They are made at the config's [observation] theta, or at draws from the prior where it names none.

    Parameters
    ----------
    config
        TOML file, for instance examples/lim.toml.
    n
        How many.
    seed
        Seed of all randomness.
    fits
        Write FITS files with WCS beside the HDF5 ones.
    plot
        Draw the first one: total, lines and noise side by side.
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.run.config import load_config
    from eorinfer.run.mocks import write_mocks

    write_mocks(load_config(config, "mocks"), out, n, seed, for_terminal(), fits=fits, plot=plot)
    print(f"results: {out}/mock-000.h5{', .fits' if fits else ''}{', .png' if plot else ''}")


@bank_app.command
def info(bank: Path, *, plot: Path | None = None) -> None:
    """Show parameters, rows by status and round, size and seconds per row.

    Parameters
    ----------
    bank
        Folder of the bank.
    plot
        Picture (png or pdf) of how the rows cover the prior, and of a few cubes.
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
    """Read every byte of a bank and name the files that are damaged.

    Parameters
    ----------
    bank
        Folder of the bank.
    repair
        Set damaged files aside, so that the next run writes them, or simulates their rows, again.
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
def export(bank: Path, file: Path, *, all: bool = False) -> None:
    """Write a bank into one plain HDF5 file, for other tools.

    Parameters
    ----------
    bank
        Folder of the bank.
    file
        HDF5 file; must not be there yet.
    all
        Rows that failed too; their arrays are zero.
    """
    from eorinfer.bank.export import export_rows
    from eorinfer.bank.store import Bank
    from eorinfer.core.progress import for_terminal

    n = export_rows(Bank.open(bank), file, everything=all, progress=for_terminal())
    print(f"{file}: {n} rows, {file.stat().st_size / 1e6:.1f} MB")


@bank_app.command(name="import")
def import_(config: Path, *, out: Out, theta: Path, cubes: list[str], seeds: Path | None = None) -> None:
    """Put cubes and parameters that exist already into the bank of a run.

    Parameters
    ----------
    config
        TOML file; its [simulator] says what the cubes are (kind = "imported" for those of another code).
    theta
        npy file (n, P), drawn from the prior of the config.
    cubes
        npy file (n, C, ...) of the image; or NAME=FILE, once for each observable.
    seeds
        npy file (n,) of whole numbers; rows of one number share initial conditions and are never split.
    """
    from eorinfer.bank.importing import import_rows

    step = open_run(config, out)
    n = import_rows(step.bank, step.config.prior, theta, cubes, seeds)
    step.progress.line(f"bank: {n} rows imported into {step.bank.path}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    signal.signal(signal.SIGTERM, _terminate)
    ask_again_when_lost()
    keep_matplotlib_out_of_home()
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        code = 0
    except InputError as error:
        code = _end(2, str(error), debug)
    except CycloptsError as error:
        code = _end(2, f"{error} `eorinfer --help` shows what there is", debug)
    except KeyboardInterrupt:
        code = _end(1, "stopped; what was computed is kept, and the same command goes on from there", debug)
    except WorkError as error:
        code = _end(1, str(error), debug)
    except Exception as error:
        code = _end(1, f"{type(error).__name__}: {error} (--debug shows where)", debug)
    sys.exit(code)


def _dry_run(config: Path, out: Path) -> str:
    from eorinfer.campaign.executors import explanation
    from eorinfer.run.config import load_config

    checked = load_config(config)
    bank = checked.bank_path(out)
    where = explanation(checked.tables.executor, bank / "jobs", f"simulate {config} --out {out}")
    return f"{checked.tables.inference.rounds[0]} simulations into {bank}; {where}"


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end(code: int, message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"eorinfer: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
