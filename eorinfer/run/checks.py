"""What the tables of a config ask of each other and of the simulator; errors name the file and the key."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

import simulators
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.settings.explain import explained, instead
from eorinfer.settings.imageflow import FEWEST_IMAGES
from eorinfer.settings.tables import Tables
from simulators import Observable, Simulator
from simulators.registry import simulator_class
from simulators.worlds import WorldError, refuse_unknown, split_table, worlds_of

#: Name among ``[inference] targets`` of the world, whose odds are inferred.
WORLD_TARGET = "world"


def build_simulator(path: Path, tables: Tables, beside: Path) -> Simulator:
    """Build the simulator of a config; what is wrong with its table is said in the words of the file."""
    try:
        return simulators.build(tables.simulator, beside)
    except ValidationError as error:
        cls = simulator_class(tables.simulator["kind"], beside)
        raise InputError(explained(path, error, "simulator", cls)) from error
    except WorldError as error:
        if not isinstance(cause := error.__cause__, ValidationError):
            raise InputError(f"{path}: [simulator] {error}") from error
        kind = split_table(tables.simulator)[1][error.number]["kind"]
        text = explained(path, cause, "simulator", simulator_class(kind, beside))
        raise InputError(text.replace("[simulator] ", f"[simulator] worlds[{error.number}].")) from error
    except ValueError as error:
        raise InputError(f"{path}: [simulator] {error}") from error


def refuse_impossible(path: Path, tables: Tables, simulator: Simulator) -> None:
    """Refuse what each table allows by itself and the simulator does not."""
    if len(simulator.observables[0].cells) == 1:
        for wrong, key in (
            (tables.inference.method != "npe", f'[inference] method = "{tables.inference.method}"'),
            (tables.preprocessing is not None, "[preprocessing]"),
        ):
            if wrong:
                raise InputError(f"{path}: {key}: is for images; the simulator gives data vectors, leave it out")
    if tables.inference.method == "combined":
        _refuse_uncombined(path, tables)
    if simulator.kind == "imported":
        if len(tables.inference.rounds) > 1:
            raise InputError(
                f"{path}: [inference] rounds = {list(tables.inference.rounds)}: imported cubes cannot be simulated "
                f"anew; give one round, rounds = [{tables.inference.rounds[0]}]"
            )
        if tables.observation.theta is not None:
            raise InputError(
                f'{path}: [observation] theta: imported cubes cannot be simulated anew; give file = "observed.h5"'
            )


def _refuse_uncombined(path: Path, tables: Tables) -> None:
    """Refuse an image flow, or a number of simulations, that cannot be combined with NPE."""
    flow, n, share = tables.image_flow, tables.inference.rounds[0], tables.training.validation_fraction
    for name, wanted in (("kind", "diffusion"), ("condition", "theta"), ("image", "whole")):
        if (given := getattr(flow, name)) != wanted:
            raise InputError(
                f'{path}: [image_flow] {name} = {json.dumps(given)}: [inference] method = "combined" needs "{wanted}"'
            )
    if flow.weighing < FEWEST_IMAGES:
        raise InputError(
            f'{path}: [image_flow] weighing = {flow.weighing}: [inference] method = "combined" learns from held-out '
            f"images what NPE and image flow are worth; give {FEWEST_IMAGES} or more"
        )
    if n * share < 2 * FEWEST_IMAGES:  # so that chance leaves enough
        raise InputError(
            f'{path}: [inference] rounds = [{n}]: method = "combined" learns from images that training holds out, '
            f"{share:.0%} of all by [training] validation_fraction; give {math.ceil(2 * FEWEST_IMAGES / share)} or more"
        )


def with_lowest_bin(path: Path, tables: Tables, observable: Observable, lowest: float) -> Tables:
    """Set the power spectrum's `k_min`, in 1/Mpc, where the survey does not measure the first mode of what has one."""
    bins = tables.power_spectrum
    if len(observable.cells) == 1:  # a data vector
        return tables
    fundamental = 2 * np.pi / max(observable.box_length)
    if bins.k_min is not None and bins.k_min < lowest * (1 - 1e-6):
        raise InputError(
            f"{path}: [power_spectrum] k_min = {bins.k_min:g}: the survey measures nothing below {lowest:.4g} 1/Mpc"
        )
    if bins.k_min is None and lowest > fundamental * (1 + 1e-6):
        bins = bins.model_copy(update={"k_min": lowest})
    first = fundamental if bins.k_min is None else bins.k_min
    if bins.k_max is not None and bins.k_max <= first:
        name = "the first mode of the box" if bins.k_min is None else "the lowest edge"
        raise InputError(f"{path}: [power_spectrum] k_max = {bins.k_max:g}: must be above {first:.3g} 1/Mpc, {name}")
    return tables.model_copy(update={"power_spectrum": bins})


def bins_without_modes(tables: Tables, observable: Observable, measured: NDArray[np.float64] | None) -> list[str]:
    """Say which bins of P(k) hold none of the measured modes (M,) or reach beyond all modes, and what would be right.

    `observable` is what has a spectrum: a chunk, where a light-cone has some.

    Raises
    ------
    ValueError
        If the limits of ``[power_spectrum]`` leave no mode at all.
    """
    from eorinfer.summaries.bins import default_edges, mode_wavenumbers, unmeasured

    limits, embedding = tables.power_spectrum, tables.embedding
    edges = default_edges(observable.cells, observable.box_length, limits.bins, limits.k_max, limits.k_min)
    modes = mode_wavenumbers(observable.cells, observable.box_length)
    first, corner = float(modes[modes > 0].min()), float(modes.max())
    left = f"{len(edges) - 1} of {limits.bins} bins are left. " if len(edges) <= limits.bins else ""
    if limits.k_min is not None and limits.k_min < first / 1.01:
        return [
            f"[power_spectrum] k_min = {limits.k_min:g}: the cube has no mode below {first:.4g} 1/Mpc. {left}"
            "Leave k_min out to begin with the first mode"
        ]
    if limits.k_max is not None and limits.k_max > 1.01 * corner:
        return [
            f"[power_spectrum] k_max = {limits.k_max:g}: the cube has no mode above {corner:.4g} 1/Mpc. {left}"
            "Leave k_max out to take all modes"
        ]
    if measured is None:
        return []
    highest = float(measured.max())

    def empty(n: int, k_max: float | None = limits.k_max) -> list[tuple[float, float]]:
        edges = default_edges(observable.cells, observable.box_length, n, k_max, limits.k_min)
        return unmeasured(edges, measured)

    def advice(table: str, n: int, beyond: bool) -> str:
        """Name the keys with which no bin is empty."""
        # Baselines end before the corner of Fourier space: bins beyond them cannot be filled by fewer of them.
        k_max = float(f"{1.001 * highest:.4g}") if beyond else limits.k_max
        keys = [f"[power_spectrum] k_max = {k_max:.4g}"] if beyond else []
        if empty(n, k_max):
            keys.append(f"{table} bins = {next((m for m in range(n - 1, 1, -1) if not empty(m, k_max)), 1)}")
        return " and ".join(keys)

    used = {"[power_spectrum]": limits.bins}
    if "power" in embedding.all_summaries:
        used["[embedding]"] = embedding.bins
    lines = []
    for table, n in used.items():
        if found := empty(n):
            lines.append(
                f"{table} bins = {n}: the survey measures nothing in {len(found)} of them, the first from k = "
                f"{found[0][0]:.3g} to {found[0][1]:.3g} 1/Mpc; P(k) is rounding errors there. "
                f"Take {advice(table, n, highest < found[-1][0])}"
            )
    return lines


def mock_theta(path: Path, tables: Tables, prior: Prior) -> NDArray[np.float64] | None:
    observation = tables.observation
    theta, file = observation.theta, observation.file
    if observation.clean is not None and (theta is not None or file is not None):
        raise InputError(
            f"{path}: [observation] clean: is a cube without noise, in place of "
            f"{'theta' if file is None else 'file, what a telescope saw'}; give one of the two"
        )
    if observation.clean is None and (theta is None) == (file is None):
        raise InputError(f'{path}: [observation] needs one of theta = {{...}}, file = "..." and clean = "..."')
    if observation.nan_masks and observation.file is None:
        raise InputError(f'{path}: [observation] mask = "nan": only with file = "...", whose NaN cells it leaves out')
    if theta is None:
        return None
    for name in theta:
        if name not in prior.names:
            problem = instead(name, prior.names, "parameter")
            raise InputError(f"{path}: [observation] theta.{name}: {problem}")
    for p in prior.parameters:
        if p.name not in theta:
            raise InputError(f"{path}: [observation] theta lacks {p.name}; it needs {', '.join(prior.names)}")
        value = theta[p.name]
        if not (np.isfinite(value) and p.low <= value <= p.high):
            raise InputError(
                f"{path}: [observation] theta.{p.name} = {value}: must lie in the prior [{p.low:g}, {p.high:g}]"
            )
    return np.array([theta[name] for name in prior.names])


def check_worlds(tables: Tables, simulator: Simulator) -> None:
    """Refuse names of worlds that the simulator does not have.

    Raises
    ------
    ValueError
        Naming the key and the worlds that there are.
    """
    observation, validation = tables.observation, tables.validation
    worlds = worlds_of(simulator)
    if WORLD_TARGET in (tables.inference.targets or ()) and (worlds is None or len(worlds.trained) < 2):
        raise ValueError(f'[inference] targets: "{WORLD_TARGET}" needs two or more [simulator] worlds to train on')
    for name in validation.worlds or ():
        refuse_unknown("[validation] worlds", name, worlds)
    if observation.world is not None:
        refuse_unknown("[observation] world", observation.world, worlds)
        if observation.theta is None:
            raise ValueError("[observation] world: only for a mock, with theta")
