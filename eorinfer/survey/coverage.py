"""Rotation synthesis: time that the baselines of an array spend in each uv cell. Loads no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.survey import SkaLow
from eorinfer.survey.positions import baselines_of
from eorinfer.survey.sky import comoving_distance, wavelength
from simulators.fourier import frequencies

SIDEREAL_DAY = 86164.0905  # s, one turn of the Earth


def uv_time(settings: SkaLow, n_cells: int, box_length: float, redshift: float) -> NDArray[np.float64]:
    """Compute the time that baselines spend in each uv cell of a box.

    Parameters
    ----------
    settings
        Layout, track, declination, observing time and baseline cuts.
    n_cells, box_length
        Cells along a transverse side, and its length in comoving Mpc.
    redshift
        Sets the wavelength and the angle that the box subtends.

    Returns
    -------
    ndarray
        (N, N) seconds over the whole observation, summed over baselines at u or -u; fft order
        on both axes (u to the East, v to the North). 0 at u = 0 and outside the baseline cuts.

    Notes
    -----
    tools21cm's map with mirrored baselines holds N_uv = [C(u) + C(-u)] / 2 / n_steps, where C
    counts every pair of stations once in each of n_steps samples: the mean number of baselines
    in the cell or its mirror, halved. A baseline at -u measures the conjugate of the one at u,
    the same number, so both count towards one mode: t_u = [C(u) + C(-u)] t_obs / n_steps
    = 2 N_uv t_obs, and <|n|^2> = SEFD^2 / (n_pol bandwidth t_u) for u and -u alike.
    This function differs from tools21cm in its cosmology (tools21cm: WMAP7), in the sidereal day,
    and in the Nyquist row and column, where both signs are folded onto one.
    """
    cell = _cell(box_length, redshift)
    # Every baseline falls in exactly one cell.
    counts, n_steps = _grid_tracks(settings, n_cells // 2, cell)
    return _time(settings, n_cells, cell, counts, n_steps)


def uv_times(
    settings: SkaLow, n_cells: int, box_lengths: Sequence[float], redshifts: Sequence[float]
) -> NDArray[np.float64]:
    """Compute the time in each uv cell of many slices, (len(redshifts), N, N) as `uv_time` gives it.

    In metres of baseline the tracks are the same at every frequency; only the cells of a slice grow with
    its wavelength and shrink with its angle. So the tracks are gridded once, finely, and each slice's
    cells are summed from that grid; the time of a fine cell that lies across an edge is shared in
    proportion to its area.
    """
    cells = np.array([_cell(length, z) for length, z in zip(box_lengths, redshifts, strict=True)])
    fineness = int(np.clip(512 // n_cells, 2, 8))
    pitch = cells.min() / fineness
    half = n_cells // 2
    half_fine = int(np.ceil((half + 0.5) * cells.max() / pitch + 0.5))
    counts, n_steps = _grid_tracks(settings, half_fine, pitch)
    fine = pitch * (np.arange(2 * half_fine + 2) - half_fine - 0.5)
    times = np.empty((len(cells), n_cells, n_cells))
    for i, cell in enumerate(cells):
        coarse = cell * (np.arange(2 * half + 2) - half - 0.5)
        shares = np.clip(np.minimum(coarse[1:, None], fine[1:]) - np.maximum(coarse[:-1, None], fine[:-1]), 0, None)
        shared = (shares / pitch) @ counts @ (shares / pitch).T
        # Less than half a sample counts as no baseline: in `uv_time` a cell has whole samples.
        times[i] = _time(settings, n_cells, cell, np.where(shared < 0.5, 0.0, shared), n_steps)
    return times


def _cell(box_length: float, redshift: float) -> float:
    """Compute the side of a uv cell in metres of baseline."""
    return wavelength(redshift) / (box_length / comoving_distance(redshift))


def _time(
    settings: SkaLow, n_cells: int, cell: float, counts: NDArray[np.float64] | NDArray[np.int64], n_steps: int
) -> NDArray[np.float64]:
    """Compute the seconds (N, N) in each mode from the samples in cells -N // 2..N // 2 of `cell` m."""
    index = np.arange(-(n_cells // 2), n_cells // 2 + 1) % n_cells
    folded = np.zeros((n_cells, n_cells))
    np.add.at(folded, np.ix_(index, index), counts + counts[::-1, ::-1])
    u, v = frequencies((n_cells, n_cells), (1 / n_cells, 1 / n_cells), half=False)
    baseline = cell * np.hypot(u[:, None], v)
    # The cuts act on whole cells: a mode that is kept keeps all of its time.
    kept = (baseline > 0) & (baseline >= settings.min_baseline) & (baseline <= settings.max_baseline)
    return np.where(kept, folded * (3600 * settings.hours / n_steps), 0.0)


def _grid_tracks(settings: SkaLow, half: int, cell: float) -> tuple[NDArray[np.int64], int]:
    """Count baselines in cells -half..half of `cell` m; counts (2 half + 1)^2 and the time steps."""
    day = 3600 * settings.hours_per_day  # s
    n_steps = round(day / settings.integration)
    middles = (np.arange(n_steps, dtype=np.float64) + 0.5) / n_steps - 0.5  # of the samples, 0 at transit
    hour_angle = middles * (2 * np.pi * day / SIDEREAL_DAY)
    declination = np.deg2rad(settings.declination)

    baselines = baselines_of(settings.layout, settings.antennas, settings.array.latitude) / cell
    # A baseline lies up to 0.71 cells from the centre of its cell.
    reach = min(np.sqrt(2) * half, settings.max_baseline / cell) + 1
    near = _closest_approach(baselines, hour_angle, declination) < reach
    x, y, z = baselines[near].T.astype(np.float32)
    # Cells outside the map go to a border of one cell, which is cut off at the end: cheaper than
    # choosing baselines anew at each of thousands of steps. float32 holds the flat index exactly.
    side = 2 * half + 3
    counts = np.zeros(side * side, dtype=np.int64)
    sin_dec, cos_dec = np.float32(np.sin(declination)), np.float32(np.cos(declination))
    for angle in hour_angle:
        sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        u = sin * x + cos * y
        v = cos_dec * z - sin_dec * (cos * x - sin * y)
        for axis in (u, v):
            np.clip(np.rint(axis, out=axis), -half - 1, half + 1, out=axis)
        flat = (u + (half + 1)) * side + (v + (half + 1))
        counts += np.bincount(flat.astype(np.intp), minlength=side * side)
    return counts.reshape(side, side)[1:-1, 1:-1], n_steps


def _closest_approach(
    baselines: NDArray[np.float64], hour_angle: NDArray[np.float64], declination: float
) -> NDArray[np.float64]:
    """Compute a lower bound on each baseline's projected length along the track, in the unit of `baselines`."""
    length = np.linalg.norm(baselines, axis=1)
    angles, step = np.linspace(hour_angle[0], hour_angle[-1], 25, retstep=True)
    x, y, z = baselines.T[:, :, None]
    w = np.cos(declination) * (np.cos(angles) * x - np.sin(angles) * y) + np.sin(declination) * z
    projected = np.sqrt(np.maximum(length[:, None] ** 2 - w**2, 0.0))
    # Per radian, no baseline's projection moves further than the baseline is long.
    return np.asarray(projected.min(axis=1) - length * step / 2, dtype=np.float64)
