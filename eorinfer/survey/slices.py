"""Slices of a cube along the line of sight: redshifts, sides and depths. Importing it loads no astropy."""

from math import radians

from simulators import Observable
from simulators.reionization.geometry import redshift_of


def slice_redshifts(observable: Observable) -> tuple[float, ...]:
    """Return the redshift of each slice of a light-cone along its last axis; none for coeval cubes."""
    if observable.axes[-1] == "frequency":
        return tuple(redshift_of(f) for f in observable.coordinates)
    return observable.coordinates


def slice_sides(observable: Observable, redshifts: tuple[float, ...]) -> tuple[float, ...]:
    """Compute the transverse side of each slice in comoving Mpc."""
    from eorinfer.survey.sky import comoving_distance

    if not observable.field_of_view:
        return (observable.box_length[0],) * len(redshifts)
    return tuple(radians(observable.field_of_view) * comoving_distance(z) for z in redshifts)


def slice_depths(observable: Observable, redshifts: tuple[float, ...]) -> tuple[float, ...]:
    """Compute the depth of each slice along the line of sight in comoving Mpc."""
    from eorinfer.survey.sky import channel_width

    if observable.axes[-1] == "z":
        return (observable.cell_size[-1],) * len(redshifts)
    first, *_, last = observable.coordinates
    width = (last - first) / (len(redshifts) - 1)  # MHz
    return tuple(width / channel_width(1.0, z) for z in redshifts)
