"""The simulator ``lim-mock``: maps and spectral cubes of emission lines that fall on the same wavelengths."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator
from scipy.ndimage import gaussian_filter

from simulators.base import (
    Observable,
    Parameter,
    SimulationError,
    SimulatorSettings,
    Symmetry,
    check_theta,
    derived_seed,
    fingerprint_of,
)
from simulators.files import with_files
from simulators.lim.cosmology import Cosmology
from simulators.lim.halos import Halos
from simulators.lim.lightcone import Grid, intensity
from simulators.lim.lines import LINES, PIVOT, STAR_FORMATION, read_table, scattered
from simulators.lim.pinocchio import parts_of
from simulators.lim.pinocchio_format import CatalogueError
from simulators.lim.sources import WIDER, file_halos, own_cone, slab_halos, width

LineName = Literal["ha", "hb", "oiii", "oii"]

#: Redshift margin for peculiar velocities of up to 1,500 km/s, as a share of 1 + z.
MARGIN = 0.005
#: Highest redshift of a line.
HIGHEST_REDSHIFT = 12.0
#: Keys that older versions did not have: left out of the settings at their defaults, so that old banks still open.
LATER = ("smoothing_sigma", "amplitude", "cubes")


class LimMock(SimulatorSettings):
    """Line-intensity mocks: halos, star formation, line luminosities, and their image on a spectral imager.

    Each line comes from the redshifts at which it falls on the channels, so every line is an interloper of the others.

    Parameters
    ----------
    geometry
        ``"slab"``: one channel around `wavelength`, a 2D map; each line has its own structure, since they come
        from distant redshifts. ``"cubes"``: two cubes on one grid, from one light-cone. Cube A has the first
        of `lines` and cube B the second at the same redshifts, in `channels` channels that begin at `redshift`. B is
        made of the instrument's own channels, which fit the redshifts of A to within half a channel. Channels that A
        and B share are the same data. More cubes follow with `cubes`.
    lines
        ``ha``, ``hb``, ``oiii``, ``oii``; for cubes the longer of the first two wavelengths comes first.
    wavelength
        Middle of a slab's channel, micrometres.
    resolution
        R = wavelength / width of a channel.
    pixels, pixel
        Number of pixels along each side of the map, and their side in arcmin; by default 256 of 0.4 for a slab, 64 of
        1.6 for cubes.
    smoothing_sigma
        Standard deviation of a Gaussian in arcmin that every line is smoothed with across the sky, before anything
        else; the maps are mirrored at their edges. A survey smooths its noise alike. Moriwaki & Yoshida 2021 smooth
        by 1.2 (three pixels of 0.4).
    redshift, channels
        Lowest redshift of cube A, and number of channels of each cube.
    cubes
        Number of cubes. The third, C, begins as far behind A as A does behind B: it has the first line of the galaxies
        whose second line falls on A, and so tells these interlopers; a fourth does so for C, and so on.
    star_formation
        ``gong17``, ``fonseca17``, ``silva15``, or the path of a table (see `lines.read_table`).
    luminosity_tables
        Paths of tables of log10 L in erg/s by line, in place of star formation, ratio and dust.
    amplitude
        Factor on all luminosities. The maps of Moriwaki & Yoshida 2021 are 20 times as bright as published
        luminosity functions allow.
    keep_mean
        Whether scatter keeps the mean luminosity at a given mass, or the median.
    mass_min
        log10 of the lowest halo mass in the catalogues, Msun.
    mass_function
        Name of the mass function in `hmf`.
    box_length, cell
        Side of a slab's periodic volume, and of the cells of the initial conditions, Mpc.
    parameters
        Names of the parameters that vary. ``A_HA``: log10 of the line's luminosity over that of the relation; ``B_HA``:
        change of its slope with mass about 1e12 Msun; so for each line. ``SCATTER``: dex; ``LOG_MMIN``: log10 Msun.
    fixed
        Values of parameters that do not vary; by default the fiducial ones.
    halo_files
        Light-cones of PINOCCHIO (``pinocchio.RUN.plc.out``, see `pinocchio.read_lightcone`) in place of our own
        halos. A realisation is a part of one of them: with few files the parts overlap.
    rows_per_realisation
        Number of successive rows of a bank that share one seed, and so the halos.
    cosmology
        Flat LCDM.
    """

    #: Keys that name files, each with the names there that are no paths.
    files: ClassVar[dict[str, tuple[str, ...]]] = {
        "halo_files": (),
        "luminosity_tables": (),
        "star_formation": tuple(STAR_FORMATION),
    }

    kind: str = "lim-mock"
    geometry: Literal["slab", "cubes"] = "slab"
    lines: tuple[LineName, ...] = Field(default=("ha", "oiii"), min_length=1)
    wavelength: PositiveFloat = 1.509
    resolution: float = Field(default=41.0, gt=1)
    pixels: int | None = Field(default=None, ge=8, validate_default=True)
    pixel: PositiveFloat | None = Field(default=None, validate_default=True)
    smoothing_sigma: float = Field(default=0.0, ge=0)
    redshift: PositiveFloat = 1.3
    channels: int = Field(default=16, ge=2)
    cubes: int = Field(default=2, ge=2)
    star_formation: str = "gong17"
    luminosity_tables: dict[LineName, str] = Field(default={})
    amplitude: PositiveFloat = 1.0
    keep_mean: bool = True
    mass_min: float = Field(default=10.5, ge=8, lt=13)
    mass_function: str = "Watson_FoF"
    halo_files: tuple[str, ...] = Field(default=())
    box_length: PositiveFloat = 330.0
    cell: PositiveFloat = 2.3
    varied: tuple[str, ...] = Field(default=("A_HA", "A_OIII"), alias="parameters", min_length=1)
    fixed: dict[str, float] = Field(default={})
    rows: int = Field(default=12, alias="rows_per_realisation", ge=1)
    cosmology: Cosmology = Cosmology()

    @field_validator("pixels")
    @classmethod
    def _default_pixels(cls, value: int | None, info: ValidationInfo) -> int:
        return value or (256 if info.data.get("geometry") == "slab" else 64)

    @field_validator("pixel")
    @classmethod
    def _default_pixel(cls, value: float | None, info: ValidationInfo) -> float:
        return value or (0.4 if info.data.get("geometry") == "slab" else 1.6)

    @field_validator("lines", "varied")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"{', '.join(values)}: each may be given once")
        return values

    @field_validator("star_formation")
    @classmethod
    def _known_relation(cls, value: str) -> str:
        if value not in STAR_FORMATION:
            try:
                read_table(value)
            except ValueError as error:
                raise ValueError(f"{error}; or one of {', '.join(STAR_FORMATION)}") from error
        return value

    @field_validator("luminosity_tables")
    @classmethod
    def _readable(cls, tables: dict[LineName, str]) -> dict[LineName, str]:
        for path in tables.values():
            read_table(path)
        return tables

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [parameter.name for parameter in self._all]
        for name in (*self.varied, *self.fixed):
            if name not in names:
                raise ValueError(f'"{name}" is not a parameter of these lines. They are {", ".join(names)}')
        if both := set(self.varied) & set(self.fixed):
            raise ValueError(f"{', '.join(both)} varies (it is in parameters), so it cannot be fixed")
        wavelengths = [LINES[line].wavelength for line in self.lines[:2]]
        if self.geometry == "cubes" and (len(wavelengths) < 2 or wavelengths[0] <= wavelengths[1]):
            raise ValueError("cubes need two lines, the one of the longer wavelength first")
        seen = {line: self.grid.redshifts(LINES[line].wavelength) for line in self.lines}
        if self.halo_files:
            for path in self.halo_files:
                parts_of(Path(path))
            # Only the first is read here, since each process that simulates does so; the others are read when used.
            file_halos(self.halo_files[0], self.cosmology, list(seen.values()), self.grid.side, 10**self.mass_min, 0)
            return self
        for line, (_, high) in seen.items():
            if high > HIGHEST_REDSHIFT:
                raise ValueError(f"{line} would be seen at z = {high:.1f}, beyond {HIGHEST_REDSHIFT:g}")
        for line, (low, high) in zip(self.lines, self._redshifts, strict=True):
            size = max(
                width(self.cosmology, self.grid.side, high),
                float(np.diff(self.cosmology.distance(np.array([low, high])))[0]),
            )
            if self.geometry == "slab" and size > self.box_length:
                raise ValueError(
                    f"box_length = {self.box_length:g} Mpc: where {line} is seen the map of {self.grid.side:g} arcmin "
                    f"and its channel need {size:.0f} Mpc; give more, best twice that so that means vary as they should"
                )
        self.cosmology.mass_function(1.0, self.mass_function)
        return self

    @property
    def grid(self) -> Grid:
        """Return the pixels and the instrument's channels, those of a slab or of all cubes together."""
        assert self.pixels is not None
        assert self.pixel is not None
        if self.geometry == "slab":
            half = self.wavelength / self.resolution / 2
            edges = [self.wavelength - half, self.wavelength + half]
        else:
            start = LINES[self.lines[0]].wavelength * (1 + self.redshift)
            steps = np.arange(-self.offset, (self.cubes - 2) * self.offset + self.channels + 1)
            edges = (start * np.exp(steps / self.resolution)).tolist()
        return Grid(self.pixels, self.pixel, tuple(edges))

    @property
    def offset(self) -> int:
        """Return the number of channels by which cube B begins before cube A, and A before cube C."""
        first, second = (LINES[line].wavelength for line in self.lines[:2])
        return round(self.resolution * float(np.log(first / second)))

    @property
    def _all(self) -> tuple[Parameter, ...]:
        every = []
        for line in self.lines:
            label = LINES[line].label
            every.append(Parameter(f"A_{line.upper()}", rf"A_{{{label}}}", -0.5, 0.5, 0.0, "dex", "line luminosity"))
        for line in self.lines:
            label = LINES[line].label
            every.append(Parameter(f"B_{line.upper()}", rf"B_{{{label}}}", -0.5, 0.5, 0.0, "", "slope with mass"))
        low = self.mass_min
        every.append(Parameter("SCATTER", r"\sigma_L", 0.0, 0.6, 0.2, "dex", "scatter of luminosity"))
        every.append(Parameter("LOG_MMIN", r"\log_{10} M_{\rm min}", low, low + 1.5, low, "log10 Msun", "lowest mass"))
        return tuple(every)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe the parameters that vary, in their order in the config."""
        by_name = {parameter.name: parameter for parameter in self._all}
        return tuple(by_name[name] for name in self.varied)

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe ``total``, the sum of the lines, and each line; in-band intensity in nW/m^2/sr."""
        edges = np.array(self.grid.edges)
        n = self.grid.pixels
        middle = np.sqrt(edges[1:] * edges[:-1])
        rest = LINES[self.lines[0]].wavelength
        if self.geometry == "slab":
            z = self.wavelength / rest - 1
            shape: tuple[int, ...] = (1, n, n)
            axes, channels, coordinates = ("wavelength", "x", "y"), (self.wavelength,), ()
        else:
            of_a = slice(self.offset, self.offset + self.channels)
            z_edges = edges[of_a.start : of_a.stop + 1] / rest - 1
            z = float(np.sqrt((1 + z_edges[0]) * (1 + z_edges[-1])) - 1)
            shape = (self.cubes, n, n, self.channels)
            axes = ("wavelength", "x", "y", "redshift")  # type: ignore[assignment]
            channels = tuple(middle[list(self._starts)].tolist())
            coordinates = tuple((middle[of_a] / rest - 1).tolist())
        across = width(self.cosmology, self.grid.side, z) / n
        depth: list[float] = (
            [float(np.diff(self.cosmology.distance(z_edges[[0, -1]]))[0]) / self.channels] if coordinates else []
        )
        return tuple(
            Observable(
                name=name,
                shape=shape,
                unit="nW/m^2/sr",
                axes=axes,
                cell_size=(across, across, *depth),
                channels=channels,
                symmetry=Symmetry(periodic=(False,) * (len(shape) - 1), rotations="transverse" if depth else "all"),
                coordinates=coordinates,
                field_of_view=self.grid.side / 60,
                smoothing=self.smoothing_sigma,
                resolution=self.resolution,
            )
            for name in ("total", *self.lines)
        )

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed."""
        return self.rows

    @property
    def seconds_per_row(self) -> float:
        """Estimate the cost of one row on one core in seconds."""
        low, high = self._cone_redshifts
        if self.halo_files:
            volume = 0.0
        elif self.geometry == "slab":
            volume = self.box_length**3
        else:
            depth = self.cosmology.distance(high) - self.cosmology.distance(low)
            volume = (WIDER * width(self.cosmology, self.grid.side, high)) ** 2 * float(depth)
        # Three times as many halos a decade of mass: measured between 10^10 and 10^11 Msun.
        each = 5.5e-7 * 3 ** (10.5 - self.mass_min)
        return 0.1 + len(self.lines) * each * volume / self.cell**3 / self.rows

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Simulate one map of each line, or all cubes.

        The place of a slab in its volume, and the axis of its line of sight, depend on seed and theta.
        """
        theta = check_theta(self.parameters, theta)
        values = {p.name: p.fiducial for p in self._all} | self.fixed
        values.update(zip(self.varied, theta.tolist(), strict=True))
        if not 0 <= values["SCATTER"] <= 2:
            raise SimulationError(f"SCATTER = {values['SCATTER']:g}: it must be between 0 and 2 dex")
        if values["LOG_MMIN"] < self.mass_min:
            raise SimulationError(
                f"LOG_MMIN = {values['LOG_MMIN']:g}: the catalogues begin at mass_min = {self.mass_min:g}"
            )
        place = derived_seed(seed, *theta.view(np.uint32).tolist())
        made: dict[str, NDArray[np.float64]] = {}
        for index, name in enumerate(self.lines):
            halos = self.halos(index, seed, place)
            halos = halos[halos.mass >= 10 ** values["LOG_MMIN"]]
            rng = np.random.default_rng([place, index])
            luminosity = self.luminosity(name, halos.mass, halos.redshift)
            luminosity *= (
                self.amplitude * 10 ** values[f"A_{name.upper()}"] * (halos.mass / PIVOT) ** values[f"B_{name.upper()}"]
            )
            normal = rng.standard_normal(len(halos))
            luminosity = scattered(luminosity, values["SCATTER"], normal, self.keep_mean)
            instrument = intensity(self.grid, LINES[name].wavelength, luminosity, halos)
            made[name] = self._windows(self._smoothed(instrument))
        made = {"total": np.sum(list(made.values()), axis=0), **made}
        return {name: cube.astype(np.float32) for name, cube in made.items()}

    def settings(self) -> dict[str, Any]:
        """Return the settings ready for JSON; keys that older versions did not have only where they change anything."""
        fields = type(self).model_fields
        found = super().settings()
        return {key: value for key, value in found.items() if key not in LATER or value != fields[key].default}

    def fingerprint(self) -> str:
        """Hash the settings, and names and content of their files, wherever these lie; of halo files their sizes."""
        return self._fingerprint(lambda path: Path(path).name)

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of older versions: with paths of files from the root, and from the working folder."""
        return self._fingerprint(str), self._fingerprint(os.path.relpath)

    def _fingerprint(self, of_path: Callable[[str], str]) -> str:
        named = (self.star_formation, *self.luminosity_tables.values())
        tables = [Path(path).read_text() for path in named if path not in STAR_FORMATION]
        sizes = [part.stat().st_size for path in self.halo_files for part in parts_of(Path(path))]
        settings = with_files(self.settings(), self.files, of_path)
        own = fingerprint_of({"class": type(self).__name__, "version": self.version, **settings})
        return fingerprint_of({"settings": own, "files": [tables, sizes]}) if tables or sizes else own

    def luminosity(self, line: LineName, mass: NDArray[np.float64], z: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the mean luminosity of halos (N,) in erg/s at the fiducial parameters."""
        redshift = np.asarray(z, np.float64)
        if line in self.luminosity_tables:
            return read_table(self.luminosity_tables[line])(mass, redshift)
        relation = STAR_FORMATION.get(self.star_formation) or read_table(self.star_formation)
        return LINES[line].luminosity(relation(mass, redshift))

    def halos(self, line: int, seed: int, place: int) -> Halos:
        """Simulate the light-cone of halos behind the channels, for the line of this number."""
        masses = (10**self.mass_min, 1e16)
        if self.halo_files:
            seen = [self.grid.redshifts(LINES[name].wavelength) for name in self.lines]
            path = self.halo_files[derived_seed(seed, 1) % len(self.halo_files)]
            try:
                return file_halos(path, self.cosmology, seen, self.grid.side, masses[0], place)
            except CatalogueError as error:
                raise SimulationError(str(error)) from error
        common = (self.cell, masses)
        if self.geometry == "cubes":
            return own_cone(self.cosmology, self._cone_redshifts, self.grid.side, *common, seed, self.mass_function)
        return slab_halos(
            self.cosmology,
            self._redshifts[line],
            self.grid.side,
            self.box_length,
            *common,
            derived_seed(seed, line),
            derived_seed(place, line, 1),
            self.mass_function,
        )

    @property
    def _redshifts(self) -> list[tuple[float, float]]:
        """Redshifts at which each line is seen, and a little more."""
        seen = [self.grid.redshifts(LINES[name].wavelength) for name in self.lines]
        return [(max(0.01, low - MARGIN * (1 + low)), high + MARGIN * (1 + high)) for low, high in seen]

    @property
    def _cone_redshifts(self) -> tuple[float, float]:
        """Lowest and highest redshift of a light-cone for all lines."""
        return min(low for low, _ in self._redshifts), max(high for _, high in self._redshifts)

    def _smoothed(self, instrument: NDArray[np.float64]) -> NDArray[np.float64]:
        """Smooth the channels (n, n, M) across the sky."""
        if not self.smoothing_sigma:
            return instrument
        width = self.smoothing_sigma / self.grid.pixel
        return np.asarray(gaussian_filter(instrument, (width, width, 0.0), mode="reflect"))

    def _windows(self, instrument: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sort channels of the instrument (n, n, M) into the cubes of the observable."""
        if self.geometry == "slab":
            return np.moveaxis(instrument, -1, 0)
        return np.stack([instrument[..., start : start + self.channels] for start in self._starts])

    @property
    def _starts(self) -> tuple[int, ...]:
        """First channel of each cube: of A, of B, and of those that follow."""
        return (self.offset, 0, *(self.offset * i for i in range(2, self.cubes)))
