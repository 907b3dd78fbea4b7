"""Mocks of an observation as files of their own: what falls on the detector, line by line, and what is observed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.core.errors import WorkError
from eorinfer.core.files import make_folder, whole_file
from eorinfer.core.observation import Observation
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import item_seed, second_item_seed
from eorinfer.run.config import Config
from eorinfer.survey import build_survey
from simulators import Observable, SimulationError


def write_mocks(config: Config, out: Path, n: int, seed: int, progress: Progress, *, fits: bool, plot: bool) -> None:
    """Write ``mock-000.h5`` and so on, at the config's theta or at draws from its prior.

    A file has ``observed`` with its axes, as an observation, and beside it each observable of the simulator, clean.
    What is there already is not made again.

    Parameters
    ----------
    config
        Config; its ``[simulator]``, ``[survey]``, ``[prior]`` and ``[observation]`` are used.
    out
        Folder.
    n
        Number of mocks.
    seed
        Seed of all randomness.
    progress
        Receives a line for each file.
    fits
        Write ``.fits`` too: the observed image and an extension for each observable, with WCS.
    plot
        Draw ``mock-000.png`` with total, lines and noise side by side.

    Raises
    ------
    WorkError
        If a simulation fails.
    """
    make_folder(out)
    simulator, observable = config.simulator, config.observable
    survey = build_survey(config.tables.survey, observable)
    rows = simulator.rows_per_realisation
    with progress.bar("mocks", n) as advance:
        for i in range(n):
            path = out / f"mock-{i:03d}.h5"
            if not path.exists():
                # At one theta, maps of one seed would be the same map; at different ones they share a volume.
                own = item_seed(seed, i // rows if config.theta is None else i)
                theta = config.theta
                if theta is None:
                    theta = config.prior.sample(1, np.random.default_rng([seed, i]))[0]
                try:
                    made = simulator.simulate(theta, own)
                except SimulationError as error:
                    raise WorkError(f"mock {i}: {error}") from error
                clean = torch.from_numpy(made[observable.name])[None]
                noise = torch.Generator().manual_seed(second_item_seed(seed, i))
                observed = survey(clean, noise)[0].numpy()
                if fits:
                    write_fits(path.with_suffix(".fits"), observable, observed, made)
                if plot and i == 0:
                    from eorinfer.figures.lines import lines_figure
                    from eorinfer.figures.style import write_figure

                    write_figure(lines_figure(observable, observed, made), path.with_suffix(".png"))
                # Last: what is there counts as done.
                Observation.of(observable, observed, theta, own).write(path, made)
            advance(1, path.name)


def write_fits(
    path: Path,
    observable: Observable,
    observed: NDArray[np.float32],
    beside: dict[str, NDArray[np.float32]],
    header: Any = None,
) -> None:
    """Images with the map's pixels on the sky; FITS counts axes from the last.

    Parameters
    ----------
    path
        File.
    observable
        Observable of the maps.
    observed
        (C, *cells), the primary image.
    beside
        Arrays of the same pixels, as extensions by their names in capitals.
    header
        Place of the pixels on the sky; by default around RA = Dec = 0.
    """
    from astropy.io import fits

    images = [("PRIMARY", observed), *((name.upper(), array) for name, array in beside.items())]
    header = _sky_header(observable) if header is None else header
    hdus: list[Any] = [
        (fits.ImageHDU if i else fits.PrimaryHDU)(array[0] if len(array) == 1 else array, header)
        for i, (_, array) in enumerate(images)
    ]
    for hdu, (name, _) in zip(hdus[1:], images[1:], strict=True):
        hdu.name = name
    with whole_file(path) as temporary:
        fits.HDUList(hdus).writeto(temporary)


def _sky_header(observable: Observable) -> Any:
    """Tangent plane about RA = Dec = 0 for maps; for cubes the wavelength too, in logarithmic steps."""
    from astropy.io import fits

    header = fits.Header()
    header["BUNIT"] = observable.unit
    axes = observable.axes[1:]
    if observable.field_of_view:
        pixel = observable.field_of_view / observable.cells[0]
        for axis, kind in (("y", "DEC--TAN"), ("x", "RA---TAN")):
            i = len(axes) - axes.index(axis)
            header[f"CTYPE{i}"], header[f"CUNIT{i}"], header[f"CRVAL{i}"] = kind, "deg", 0.0
            header[f"CRPIX{i}"] = observable.cells[axes.index(axis)] / 2 + 0.5
            header[f"CDELT{i}"] = -pixel if axis == "x" else pixel
    if observable.coordinates and observable.axes[0] == "wavelength":
        # Of the first cube; a second one begins at another wavelength.
        ratio = (1 + observable.coordinates[1]) / (1 + observable.coordinates[0])
        first = observable.channels[0] * 1e-6
        header["CTYPE1"], header["CUNIT1"], header["CRPIX1"] = "WAVE-LOG", "m", 1.0
        header["CRVAL1"], header["CDELT1"] = first, first * np.log(ratio)
    for i, wavelength in enumerate(observable.channels):
        header[f"CHAN{i}"] = wavelength, observable.axes[0]
    return header
