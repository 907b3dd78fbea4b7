"""The modes that a survey measures. Importing it loads no astropy."""

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.layouts import SKA_LOW
from eorinfer.settings.survey import SkaLow, SurveySettings, SurveyTable
from eorinfer.survey.slices import slice_redshifts, slice_sides
from simulators import Observable

#: Seconds between samples of a track where it is only asked which modes have a baseline at all.
COARSE = 300.0


def lowest_mode(settings: SurveySettings, observable: Observable) -> float:
    """Compute the smallest wavenumber in 1/Mpc that a survey measures; 0 if it measures all."""
    if isinstance(settings, SurveyTable):
        return settings.lowest_mode(observable)
    measured = measured_modes(settings, observable)
    return 0.0 if measured is None else float(measured.min())


def measured_modes(settings: SurveySettings, observable: Observable) -> NDArray[np.float64] | None:
    """Compute the wavenumbers (M,) in 1/Mpc, in no order, of the modes that a survey measures; None if it is all.

    An interferometer has no zero spacing: modes along the line of sight alone are lost, and the foreground wedge takes
    more. The power spectrum of lost modes would be one of rounding errors.
    """
    if not isinstance(settings, SkaLow):
        return None
    from eorinfer.survey.sky import baseline_length, outside_wedge, wavenumbers

    nx, ny, nz = observable.cells
    dx, dy, dz = observable.cell_size
    redshifts = slice_redshifts(observable) or observable.channels
    across, along = wavenumbers((nx, ny, nz), (dx, dy, dz))
    # A mode is lost if every slice or channel loses it; the one with the longest baselines loses least.
    longest = max(baseline_length(1.0, z) for z in redshifts)
    seen = (across > 0) & (across * longest >= settings.min_baseline)
    if settings.layout not in SKA_LOW:
        seen = seen & _covered(settings, observable, redshifts)
        if not seen.any():
            raise ValueError(f"no baseline of layout {settings.layout} measures a mode of this cube: it is too small")
    measured = np.broadcast_to(seen[:, :, None], (*seen.shape, nz))
    if settings.wedge:
        worst = (max(redshifts),) if observable.coordinates else redshifts
        free = [outside_wedge(settings, (nx, ny, nz), (dx, dy, dz), z) for z in worst]
        measured = measured & np.any(free, axis=0)
    if not measured.any():
        raise ValueError("the foreground wedge leaves no mode of this cube: take a smaller wedge_angle or wedge_buffer")
    return np.asarray(np.sqrt(across[:, :, None] ** 2 + along**2)[measured])


def _covered(settings: SkaLow, observable: Observable, redshifts: tuple[float, ...]) -> NDArray[np.bool_]:
    """Mark the modes (N, N // 2 + 1) that baselines cross at the first, middle or last redshift.

    SKA-Low crosses all modes of boxes within its longest baseline; other arrays have gaps.
    """
    from eorinfer.survey.coverage import uv_time

    n, last = observable.cells[0], len(redshifts) - 1
    coarse = max(settings.integration, min(COARSE, 900 * settings.hours_per_day))
    quick = settings.model_copy(update={"integration": coarse})
    sides = slice_sides(observable, redshifts)
    times = [uv_time(quick, n, sides[i], redshifts[i])[:, : n // 2 + 1] for i in sorted({0, last // 2, last})]
    covered: NDArray[np.bool_] = np.any(np.array(times) > 0, axis=0)
    return covered
