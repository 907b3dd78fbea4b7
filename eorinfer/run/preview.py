"""Preview of a run: its config and the files that it names are checked, nothing is computed or written."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from eorinfer.bank.description import refuse_other
from eorinfer.bank.store import Bank
from eorinfer.campaign.executors import worker_count
from eorinfer.core.errors import naming
from eorinfer.core.progress import duration
from eorinfer.core.shown_prior import prior_words
from eorinfer.core.toml import read_toml
from eorinfer.run.config import Config, load_config
from eorinfer.run.context import find_mask, find_preprocessing
from eorinfer.run.costs import refuse_few
from eorinfer.run.observed import added_to_clean, observed_file, read_clean
from eorinfer.settings.survey import SkaLow, SurveySettings
from eorinfer.summaries.bins import default_edges
from eorinfer.summaries.chunks import FEWEST_SLICES, chunked, is_light_cone
from simulators import SimulationError


def preview(file: Path) -> list[str]:
    """Check a config with its files, and say what a run of it would do.

    Raises
    ------
    InputError
        If the config, the observed file, the separator or the bank is wrong, or the simulator is not installed.
    """
    content = read_toml(file)
    if "separation" in content and "inference" not in content:
        return list(_separation_lines(load_config(file, "separation")))
    return list(_lines(load_config(file)))


def _lines(config: Config) -> Iterator[str]:
    tables, simulator = config.tables, config.simulator
    yield from _simulator_lines(config)
    if find_preprocessing(config) is not None:
        yield "preprocessing: a separator for these maps"
    yield from _observation(config)
    if len(config.observable.cells) > 1:
        yield f"power spectrum: {_power_spectrum(config)}"
    rows = sum(tables.inference.rounds) + tables.inference.predictive
    if tables.bank.path is not None and (config.bank_path(Path()) / "bank.json").exists():
        bank = Bank.open(config.bank_path(Path()))
        refuse_other(bank.path, bank.description, simulator)
        yield f"bank: {bank.path} has {len(bank.rows())} rows"
    yield _cost(config, rows, f"{rows} in {len(tables.inference.rounds)} round(s)")
    refuse_few(config)
    yield f"{config.file}: nothing is wrong; next: eorinfer run {quote(str(config.file))} --out DIR"


def _separation_lines(config: Config) -> Iterator[str]:
    """Say what `eorinfer separate train` would do."""
    settings = config.tables.separation
    yield from _simulator_lines(config)
    yield f"separation: {settings.kind}, {settings.steps} steps"
    yield _cost(config, settings.simulations, f"{settings.simulations}")
    yield f"{config.file}: nothing is wrong; next: eorinfer separate train {quote(str(config.file))} --out DIR"


def _cost(config: Config, rows: int, words: str) -> str:
    """Say what simulations cost in time and on disk."""
    workers = worker_count(config.tables.executor) or 1
    megabytes = sum(o.nbytes for o in config.simulator.observables) * rows / 1e6
    return (
        f"simulations: {words}, about {duration(rows * config.simulator.seconds_per_row / workers)} on {workers} "
        f"process(es) by the simulator's own estimate, {max(1, round(megabytes))} MB of disk"
    )


def _simulator_lines(config: Config) -> Iterator[str]:
    """Say what is simulated, and through which survey."""
    tables, simulator, observable = config.tables, config.simulator, config.observable
    yield from config.notes
    if hasattr(simulator, "check_available"):
        with naming(f"{config.file}: [simulator] ", SimulationError):
            simulator.check_available()
    yield f"simulator: {simulator.kind}, {' x '.join(map(str, observable.shape))} in {observable.unit or 'no unit'}"
    for p in config.prior.parameters:
        unit = f" {p.unit}" if p.unit else ""
        yield f"prior: {p.name} {prior_words(config.prior, p.name)} from {p.low:g} to {p.high:g}{unit}"
    yield f"survey: {_survey(tables.survey)}"


def _power_spectrum(config: Config) -> str:
    """Say the bins of P(k), and what they are of; advise chunks where a light-cone is much deeper than wide."""
    settings = config.tables.power_spectrum
    part = chunked(config.observable, settings.chunks)
    edges = default_edges(part.cells, part.box_length, settings.bins, settings.k_max, settings.k_min)
    line = f"{len(edges) - 1} bins from k = {edges[0]:.3g} to {edges[-1]:.3g} 1/Mpc"
    if settings.chunks > 1:
        return f"{line}, in {settings.chunks} chunks, z = {', '.join(f'{z:g}' for z in part.channels)}"
    wide, _, deep = part.box_length if is_light_cone(part) else (1.0, 1.0, 1.0)
    if (n := min(round(deep / wide), part.cells[-1] // FEWEST_SLICES)) < 2:
        return line
    return f"{line}, of the whole light-cone; [power_spectrum] chunks = {n} cuts it into parts as deep as they are wide"


def _survey(settings: SurveySettings) -> str:
    """Name a survey, and the array behind it."""
    if not isinstance(settings, SkaLow):
        return settings.kind
    noise = f"noise of {settings.noise}" if settings.noise else f"sefd {_sefd(settings)}"
    count = "" if settings.antennas is None else f" ({len(settings.antennas)} antennas)"
    return f"{settings.kind}, {settings.layout}{count}, {settings.hours:g} h, {noise}"


def _sefd(settings: SkaLow) -> str:
    """Name the SEFD of an array."""
    if isinstance(settings.sefd, str):
        return f'"{settings.sefd}"'
    return f"{settings.sefd:g} Jy" if isinstance(settings.sefd, float) else "of the table"


def _observation(config: Config) -> Iterator[str]:
    """Say what is observed; the files that it comes from are read and checked."""
    settings = config.tables.observation
    mask = find_mask(config)
    if settings.file is not None:
        path = config.folder / settings.file
        observed = observed_file(config, mask)
        yield f"observation: {path}, {' x '.join(map(str, observed.values.shape))} in {observed.unit or 'no unit'}"
        yield from (f"observation: {note}" for note in observed.notes)
    elif settings.clean_files:
        clean = read_clean(config)
        files = ", ".join(str(config.folder / path) for path in settings.clean_files)
        shape = " x ".join(map(str, clean.values.shape))
        yield f"observation: {files}, a clean cube of {shape} in {config.observable.unit or 'no unit'}"
        yield from (f"observation: {text}" for text in (added_to_clean(config), *clean.notes))
    else:
        values = settings.theta or {}
        yield f"observation: a mock at {', '.join(f'{name} = {value:g}' for name, value in values.items())}"
    if mask is not None:
        yield f"mask: leaves out {mask.sum()} of {mask.size} cells"
