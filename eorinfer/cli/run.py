"""Commands for a run and for each of its steps."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from eorinfer.cli.common import Config, Modules, Out, open_run, sole_run
from eorinfer.core.errors import InputError
from eorinfer.settings.npe import FEWEST_SAMPLES


def add_run_commands(app: App) -> None:
    """Add the commands of this module to the command line, in the order of a run."""
    for command in (run, simulate, observe, infer, mcmc, plot, validate, lim):
        app.command(command)


def run(config: Config, *, out: Out) -> None:
    """Run all steps: simulate, observe, infer, mcmc, plot and report."""
    with sole_run(config, out, with_mcmc=True) as opened:
        opened.all()
    _close(out)


def simulate(config: Config, *, out: Out, dry_run: bool = False) -> None:
    """Fill the bank with the simulations of the first round.

    Parameters
    ----------
    dry_run
        Only say where simulations would run, and print the script of a batch job. Nothing is started or written.
    """
    if dry_run:
        print(_dry_run(config, out))
        return
    opened = open_run(config, out)
    opened.preflight()
    opened.simulate()
    counts = ", ".join(f"{n} {status}" for status, n in opened.bank.rows().counts().items())
    opened.progress.line(f"bank: {opened.bank.path} has {counts}")


def observe(config: Config, *, out: Out) -> None:
    """Make the mock observation, or read and check the observed file."""
    opened = open_run(config, out)
    observation = opened.observe()
    shape = " x ".join(str(n) for n in observation.values.shape)
    opened.progress.line(f"observation: {out}/observation.h5, {shape} in {observation.unit or 'no unit'}")


def infer(
    config: Path | None = None,
    *,
    out: Out,
    posterior: Path | None = None,
    observation: Path | None = None,
    samples: int = 10000,
    seed: int = 1,
    modules: Modules = None,
) -> None:
    """Train the posterior in rounds, or the image flow, or both, and sample it for the observation.

    [inference] method selects which. To use a trained posterior or image flow again, give --posterior and
    --observation instead of a config.

    Parameters
    ----------
    config
        TOML file of a run; not with --posterior.
    posterior
        Folder of a trained posterior, such as RUN/posterior or RUN/rounds/01/posterior, of an image flow, RUN/field, or
        a run folder with both combined.
    observation
        HDF5, FITS or npy file of another observation, with --posterior.
    samples
        Number of samples, with --posterior. An image flow with several conditions writes its whole chain instead.
    seed
        Seed of the samples, with --posterior.
    """
    if config is not None and posterior is None and observation is None:
        with sole_run(config, out) as opened:
            opened.read_observation()
            opened.preflight()
            opened.preflight_training()
            opened.infer()
            made = {
                "npe": "posterior, chains/npe.txt",
                "image-flow": "field, chains/field-flow.txt",
                "combined": "posterior, field, chains/combined.txt",
            }[opened.tables.inference.method]
            opened.progress.line(f"results: {out}/{made}")
        _close(out)
        return
    if config is not None or posterior is None or observation is None:
        raise InputError("infer needs either CONFIG, or both --posterior DIR and --observation FILE")
    if samples < FEWEST_SAMPLES:
        raise InputError(f"--samples {samples}: at least {FEWEST_SAMPLES} samples are needed, for widths and a picture")
    from eorinfer.core.progress import for_terminal
    from eorinfer.core.sole import sole_command
    from eorinfer.run.reuse import infer_again

    with sole_command(out):
        infer_again(posterior, observation, out, samples, seed, for_terminal(), modules)


def mcmc(config: Config, *, out: Out) -> None:
    """Run emcee on a Gaussian likelihood of the power spectrum, emulated from the bank."""
    with sole_run(config, out, with_mcmc=True) as opened:
        opened.preflight_chain()
        opened.mcmc()
        opened.progress.line(f"results: {out}/chains/mcmc.txt")


def plot(config: Config, *, out: Out, close: bool | None = None) -> None:
    """Draw the corner plot and the predictive check, and write summary.json.

    Parameters
    ----------
    close
        Axes of the corner plot span the posteriors; with --no-close the prior. By default they span the posteriors
        where all are narrower than a quarter of the prior.
    """
    with sole_run(config, out, begun="chain to plot") as opened:
        opened.plot(close)


def validate(config: Config, *, out: Out) -> None:
    """Test the posterior against known parameters; exit code 1 if it is not calibrated.

    Writes validation.json and validation.png: ranks, coverage, widths and recovery.
    """
    with sole_run(config, out, begun="posterior to validate") as opened:
        opened.read_observation()
        opened.validate()


def lim(
    config: Path,
    *,
    out: Annotated[Path, Parameter(name="--out", help="Folder of the mocks; mocks that are there are kept.")],
    n: int = 1,
    seed: int = 1,
    fits: bool = False,
    plot: bool = False,
) -> None:
    """Make mock maps or cubes: each line by itself, and the observed image.

    Their parameters are the config's [observation] theta; without it they are drawn from the prior.

    Parameters
    ----------
    config
        TOML file, for instance examples/lim.toml.
    n
        Number of mocks.
    seed
        Seed of parameters, simulations and noise.
    fits
        Also write FITS files with WCS.
    plot
        Draw the first mock: total, lines and noise side by side.
    """
    from eorinfer.core.progress import for_terminal
    from eorinfer.run.config import load_config
    from eorinfer.run.mocks import write_mocks

    if n < 1:
        raise InputError(f"--n {n}: at least one mock is needed")
    write_mocks(load_config(config, "mocks"), out, n, seed, for_terminal(), fits=fits, plot=plot)
    print(f"results: {out}/mock-000.h5{', .fits' if fits else ''}{', .png' if plot else ''}")


def _close(out: Path) -> None:
    """End with the posteriors, and with whether they were validated."""
    from eorinfer.report.terminal import closing_lines

    print("\n".join(closing_lines(out)))


def _dry_run(config: Path, out: Path) -> str:
    from eorinfer.bank.description import refuse_other
    from eorinfer.bank.store import Bank
    from eorinfer.campaign.executors import explanation
    from eorinfer.campaign.plans import plans_of, use_of
    from eorinfer.core.progress import Silent
    from eorinfer.core.seeds import PRIOR_ROUND
    from eorinfer.run.config import load_config
    from eorinfer.run.folder import as_begun, refuse_other_config
    from eorinfer.run.simulations import Simulations

    checked = as_begun(load_config(config), out)
    refuse_other_config(checked, out)
    path = checked.bank_path(out)
    n = left = checked.tables.inference.rounds[0]
    if (path / "bank.json").exists():
        bank = Bank.open(path)
        refuse_other(path, bank.description, checked.simulator)
        used = use_of(bank, plans_of(bank, PRIOR_ROUND, checked.prior.hash()), n)
        left -= sum(len(of.places) for of in used) - Simulations(checked, bank, Silent()).missing(used)
    count = f"{n} simulations" if left == n else f"{left} of {n} simulations (the others are there)"
    return (
        f"{count} into {path}; {explanation(checked.tables.executor, path / 'jobs', f'simulate {config} --out {out}')}"
    )
