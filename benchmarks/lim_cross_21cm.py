"""How do 21cm and [OIII] galaxies go together during reionization, and would SKA-Low and SPHEREx see it?

    python -m benchmarks.lim_cross_21cm                              six processor's minutes, 2.3 GB
    python -m benchmarks.lim_cross_21cm --cells 64 --seeds 2         a quick look

A box of 21cmFAST at z = 7.5 as deep as eight channels of SPHEREx (199 Mpc), with the halos that ionise it (above 1e9
Msun), three escape fractions for the same galaxies, and so three neutral fractions. [OIII] follows 21cmFAST's star
formation rates by the relation and the dust of the low redshifts for which it was measured. Real space for both.

Printed: P_x and r(k) with the scatter between boxes, where the sign changes, the size of the bubbles; then the same
for the most ionised box in the channels of SPHEREx, with the mean of each removed, and the errors with the noise of
SKA-Low (AA4, 1000 h) and of SPHEREx's deep fields. Drawn: slices, r(k), and k^3 P_x / 2 pi^2 with its errors.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.figures.style import new_figure, write_figure
from eorinfer.settings.survey import SkaLow, SphereX
from eorinfer.summaries.modes import Pair
from eorinfer.summaries.power import PowerSpectrum, default_edges, dimensionless
from eorinfer.survey.base import Survey
from eorinfer.survey.sensitivity import Channels
from eorinfer.survey.ska import SkaLowSurvey
from eorinfer.survey.sky import comoving_distance, outside_wedge, wavelength
from eorinfer.survey.spherex import SphereXSurvey
from simulators.lim.coeval import box_intensity
from simulators.lim.lines import LINES
from simulators.reionization.galaxies import GalaxiesAnd21cm

REDSHIFT = 7.5
OIII = LINES["oiii"]
#: Resolution of SPHEREx at 3.8 to 4.4 um, and how many of its channels the box is deep.
RESOLUTION, CHANNELS = 110, 8
#: log10 of the escape fraction at 1e10 Msun, from the most neutral to the most ionised box.
ESCAPE = (-1.65, -1.35, -1.0)
#: The deep field that SKA-Low sees, at the south ecliptic pole, square degrees.
DEEP = 100.0
#: Diameter of a station of SKA-Low, m.
STATION = 38.0

WAVELENGTHS = OIII.wavelength * (1 + REDSHIFT) * np.exp((np.arange(CHANNELS) - (CHANNELS - 1) / 2) / RESOLUTION)
LOW, HIGH = (float(WAVELENGTHS[i] * np.exp(s / RESOLUTION)) / OIII.wavelength - 1 for i, s in ((0, -0.5), (-1, 0.5)))
SIDE = comoving_distance(HIGH) - comoving_distance(LOW)
BOX = (SIDE,) * 3


@dataclass(frozen=True)
class Made:
    """One box at one neutral fraction."""

    neutral: float
    bubble: float  # Mpc
    galaxies: int
    spectra: NDArray[np.float64]  # (3, bins) of P_x, P_21 and P_OIII
    channels: NDArray[np.float32]  # (2, N, N, CHANNELS) of mK and nW/m^2/sr
    slices: NDArray[np.float32]  # (2, N, N) of the same, a quarter of a channel deep


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=128, help="along each side; a multiple of 8")
    parser.add_argument("--seeds", type=int, default=4, help="boxes")
    parser.add_argument("--draws", type=int, default=100, help="draws of the noise for each box")
    parser.add_argument("--workers", type=int, default=1, help="processes; each takes 2.3 GB")
    parser.add_argument("--out", type=Path, default=Path("lim_cross_21cm.png"))
    arguments = parser.parse_args()
    if arguments.cells % CHANNELS or arguments.seeds < 2:
        parser.error("--cells must be a multiple of 8, and --seeds at least 2")
    start = time.perf_counter()
    # One box a process: 21cmFAST does not give all of its memory back.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context, max_tasks_per_child=1) as pool:
        rows = list(pool.map(realisation, range(1, arguments.seeds + 1), [arguments.cells] * arguments.seeds))
    boxes = list(zip(*rows, strict=True))  # by escape fraction
    print(
        f"z = {REDSHIFT}: {arguments.seeds} boxes of {SIDE:.1f} Mpc, cells of {SIDE / arguments.cells:.2f} Mpc, "
        f"{boxes[0][0].galaxies:.2e} galaxies, {time.perf_counter() - start:.0f} s"
    )
    curves = [noise_free(fine(arguments.cells), made) for made in boxes]
    seen = observed(boxes[-1], arguments.cells, arguments.draws)
    draw(boxes, curves, seen, arguments)


def realisation(seed: int, cells: int) -> list[Made]:
    """The box of one seed at each of `ESCAPE`."""
    torch.set_num_threads(1)
    return [one_box(seed, cells, escape) for escape in ESCAPE]


def one_box(seed: int, cells: int, escape: float) -> Made:
    """21cmFAST, [OIII] on its halos, and the spectra of both."""
    import tools21cm

    box = GalaxiesAnd21cm(redshift=REDSHIFT, cells=cells, box_length=SIDE, fixed={"F_ESC10": escape}).simulate(seed)
    luminosity = OIII.luminosity(box.sfr.astype(np.float64))
    intensity = box_intensity(box.position, luminosity, (cells,) * 3, SIDE, REDSHIFT)
    deep = cells // CHANNELS
    thin = max(1, deep // 4)
    shape = (cells, cells, CHANNELS, deep)
    # In the band of a channel; slices of cells are given as if they were as deep, so that the mean is the same.
    pair = fine(cells).pair(torch.tensor(box.brightness_temp).double(), torch.tensor(intensity * deep))
    channels = np.stack([box.brightness_temp.reshape(shape).mean(3), intensity.reshape(shape).sum(3)])
    ionised = 1 - box.neutral_fraction
    # From random points in bubbles to their walls in random directions (Mesinger & Furlanetto 2007).
    radius, chance = tools21cm.mfp(ionised, xth=0.5, boxsize=SIDE, iterations=500_000, verbose=False)
    bubble = chance.sum() / (chance[1:] / radius[1:]).sum()  # chance is R dP/dR
    return Made(
        neutral=float(box.neutral_fraction.mean(dtype=np.float64)),
        bubble=float(bubble),
        galaxies=len(box.mass),
        spectra=torch.stack([pair.cross, pair.first, pair.second]).numpy(),
        channels=channels.astype(np.float32),
        slices=np.stack([box.brightness_temp[..., :thin].mean(2), intensity[..., :thin].sum(2)]).astype(np.float32),
    )


def fine(cells: int) -> PowerSpectrum:
    """Spectra on the grid of the box, up to the Nyquist wavenumber of an axis."""
    return PowerSpectrum((cells,) * 3, BOX, default_edges((cells,) * 3, BOX, 16, np.pi * cells / SIDE).tolist())


def as_pair(spectrum: PowerSpectrum, spectra: NDArray[np.float64]) -> Pair:
    """Spectra (..., 3, bins) as `Pair`."""
    cross, first, second = torch.from_numpy(spectra).unbind(-2)
    return Pair(cross, first, second, spectrum.counts)


def noise_free(spectrum: PowerSpectrum, boxes: tuple[Made, ...]) -> tuple[NDArray, float]:
    """Print P_x and r(k); r of each box (S, bins), and the k at which the mean P_x changes sign, or nan."""
    pair = as_pair(spectrum, np.stack([made.spectra for made in boxes]))
    cross, r = pair.cross.numpy(), pair.coefficient.numpy()
    expected = pair.coefficient_error.numpy().mean(0)
    neutral, bubble = (np.mean([getattr(made, name) for made in boxes]) for name in ("neutral", "bubble"))
    print(f"\nx_HI = {neutral:.3f}, from within bubbles to their walls {bubble:.1f} Mpc; scatter between boxes")
    print("k/(1/Mpc)   modes   P_x/(mK nW/m2/sr Mpc3)   k3 P_x/2pi2        r(k)            (1-r2)/sqrt(2N)")
    k = spectrum.k.numpy()
    for i, n in enumerate(spectrum.counts.tolist()):
        delta = k[i] ** 3 / (2 * np.pi**2) * cross[:, i].mean()
        print(
            f"{k[i]:8.3f} {n:9.0f}  {cross[:, i].mean():+.2e} +- {cross[:, i].std(ddof=1):.1e}   {delta:+.2e}  "
            f"{r[:, i].mean():+.3f} +- {r[:, i].std(ddof=1):.3f}   {expected[i]:.3f}"
        )
    changes = [sign_change(k, one) for one in cross]
    if np.isnan(changes).all():
        print(f"no change of sign up to k = {k[-1]:.2f}/Mpc")
    else:
        at, scatter = np.nanmean(changes), np.nanstd(changes)
        print(f"sign changes at k = {at:.3f} +- {scatter:.3f}/Mpc, half a wave of {np.pi / at:.1f} Mpc")
    return r, sign_change(k, cross.mean(0))


def sign_change(k: NDArray, cross: NDArray) -> float:
    """Lowest k at which P_x changes sign for more than one bin, linear in ln k; nan where it never does."""
    for i in range(len(k) - 2):
        if cross[i] * cross[i + 1] < 0 and cross[i] * cross[i + 2] < 0:
            step = cross[i] / (cross[i] - cross[i + 1])
            return float(k[i] * (k[i + 1] / k[i]) ** step)
    return float("nan")


def observed(boxes: tuple[Made, ...], cells: int, draws: int) -> tuple[NDArray, NDArray, NDArray]:
    """Print what the surveys see; k, k^3 P_x / 2 pi^2 without noise, and the error of one box."""
    grid = (cells, cells, CHANNELS)
    cell_size = (SIDE / cells, SIDE / cells, SIDE / CHANNELS)
    pixel = np.rad2deg(cell_size[0] / comoving_distance(REDSHIFT)) * 60
    radio = SkaLowSurvey(SkaLow(sefd="818"), grid, cell_size, (REDSHIFT,))
    infrared = SphereXSurvey(SphereX(), pixel, grid[:2], Channels(tuple(WAVELENGTHS.tolist()), CHANNELS))
    generator = torch.Generator().manual_seed(1)
    spectrum = PowerSpectrum(grid, BOX, default_edges(grid, BOX, 8, 0.75).tolist())
    signals, found = [], []
    for made in boxes:
        clean = torch.from_numpy(made.channels)[:, None, None]
        # Both surveys are linear: what they see is the signal through them and their noise.
        signal = [through(survey, cube, generator) for survey, cube in zip((radio, infrared), clean, strict=True)]
        signals.append(spectrum.pair(*signal))
        for _ in range(draws):
            noise = [without_means(survey(torch.zeros_like(clean[0]), generator)) for survey in (radio, infrared)]
            found.append(spectrum.pair(signal[0] + noise[0], signal[1] + noise[1]))
    cross = torch.cat([pair.cross[0] for pair in found])
    error = cross.std(0).numpy()
    noise_power = [torch.cat([getattr(pair, name)[0] for pair in found]).mean(0) for name in ("first", "second")]
    signal_power = [torch.cat([getattr(p, name)[0] for p in signals]).mean(0) for name in ("cross", "first", "second")]
    gaussian = Pair(signal_power[0], noise_power[0], noise_power[1], spectrum.counts).error.numpy()
    unseen = torch.cat([p.cross[0] for p in signals]).std(0).numpy()

    field = np.rad2deg(SIDE / comoving_distance(REDSHIFT)) ** 2
    more = DEEP / field
    beam = np.pi / 4 * (1.03 * np.rad2deg(wavelength(REDSHIFT) / STATION)) ** 2
    mean = float(np.mean([made.channels[1] for made in boxes]))
    print(f"\nchannels of {WAVELENGTHS[0]:.3f} to {WAVELENGTHS[-1]:.3f} um, {cell_size[2]:.1f} Mpc deep;")
    print(f"box of {field:.2f} square degrees. Mean [OIII] {mean:.2e} nW/m2/sr; noise of SPHEREx")
    print(f"{infrared.sigma.mean():.2e} a pixel of {pixel:.2f} arcmin, of SKA-Low {radio.rms[0]:.1f} mK a cell.")
    print("Errors of one box; power of the signal and, in brackets, with the noise.")
    print("k/(1/Mpc)  modes  P_x        error (Gaussian)     without noise   P_21              P_OIII")
    k, n, p = spectrum.k.numpy(), spectrum.counts.tolist(), [x.numpy() for x in signal_power]
    for i in range(len(k)):
        print(
            f"{k[i]:8.3f} {n[i]:8.0f}  {p[0][i]:+.2e}  {error[i]:.2e} ({gaussian[i]:.2e})  {unseen[i]:.2e}  "
            f"{p[1][i]:.2e} ({noise_power[0][i]:.2e})  {p[2][i]:.2e} ({noise_power[1][i]:.2e})"
        )
    snr = np.sqrt(np.sum((p[0] / error) ** 2))
    print(f"signal to noise of all bins: {snr:.2f} in the box, {snr * more**0.5:.2f} in {DEEP:.0f} square degrees,")
    print(f"{more:.0f} times the modes, where SKA-Low has 1000 h for each of {DEEP / beam:.0f} beams of {beam:.1f}")
    print(f"square degrees. Without dust in the galaxies, {10 ** (0.4 * OIII.attenuation):.1f} times that.")
    wedge = outside_wedge(SkaLow(wedge=True), grid, cell_size, REDSHIFT)
    print(f"modes outside the foreground wedge (horizon, 0.068/Mpc): {wedge.mean():.1%} of the box's channels")
    delta = dimensionless(spectrum.k, torch.stack([signal_power[0], torch.from_numpy(error)]), 3).numpy()
    return k, delta[0], delta[1]


def through(survey: Survey, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Clean cubes (B, C, *cells) as a survey without noise would have them, without the mean of each channel."""
    state = generator.get_state()
    noise = survey(torch.zeros_like(clean), generator)
    generator.set_state(state)
    return without_means(survey(clean, generator) - noise)


def without_means(cubes: torch.Tensor) -> torch.Tensor:
    """Cubes (..., nx, ny, slices) without the mean of each slice, in double precision."""
    return cubes.double() - cubes.double().mean((-3, -2), keepdim=True)


def draw(
    boxes: list[tuple[Made, ...]],
    curves: list[tuple[NDArray, float]],
    seen: tuple[NDArray, NDArray, NDArray],
    arguments: argparse.Namespace,
) -> None:
    """The picture."""
    figure = new_figure(figsize=(11.5, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=[0.8, 1.2, 1.2])
    image, line = boxes[-1][0].slices
    middles = [(np.arange(len(image)) + 0.5) * SIDE / len(image)] * 2
    labels = (r"$\delta T_b$ [mK]", r"[OIII] $\log_{10} I/\langle I\rangle$")
    for i, (slice_, label) in enumerate(zip((image, np.log10(line / line.mean() + 1e-2)), labels, strict=True)):
        axes = figure.add_subplot(grid[i, 0])
        shown = axes.imshow(slice_.T, origin="lower", extent=(0, SIDE, 0, SIDE), cmap=("viridis", "magma")[i])
        figure.colorbar(shown, ax=axes, label=label)
        axes.set(ylabel="Mpc", xlabel="Mpc" if i else "")
        axes.contour(*middles, image.T, levels=[image.mean() / 4], colors="w", linewidths=0.6)
    k = fine(arguments.cells).k.numpy()
    axes = figure.add_subplot(grid[:, 1])
    for (r, at), made, colour in zip(curves, boxes, ("tab:blue", "tab:green", "tab:red"), strict=True):
        neutral, bubble = (np.mean([getattr(one, name) for one in made]) for name in ("neutral", "bubble"))
        mean, scatter = r.mean(0), r.std(0, ddof=1)
        axes.fill_between(k, mean - scatter, mean + scatter, color=colour, alpha=0.25, lw=0)
        axes.plot(k, mean, color=colour, label=rf"$\bar x_{{\rm HI}}$ = {neutral:.2f}, bubbles of {bubble:.1f} Mpc")
        axes.axvline(np.pi / bubble, color=colour, ls=":", lw=1)
        if np.isfinite(at):
            axes.plot(at, 0, "o", color=colour, ms=8, mec="k")
    axes.axhline(0, color="k", lw=0.8)
    axes.set(xscale="log", xlabel=r"$k$ [Mpc$^{-1}$]", ylabel=r"$r(k)$ of 21cm and [OIII]", ylim=(-1.05, 1.05))
    axes.secondary_xaxis("top", functions=(half_wave, half_wave)).set_xlabel(r"$\pi/k$ [Mpc]")  # type: ignore[arg-type]
    axes.set_title("no noise; bands: scatter of boxes; dotted: size of the bubbles", fontsize=9)
    axes.legend(loc="upper right", fontsize=8)
    axes = figure.add_subplot(grid[:, 2])
    k, signal, error = seen
    field = np.rad2deg(SIDE / comoving_distance(REDSHIFT)) ** 2
    share = (field / DEEP) ** 0.5
    axes.errorbar(k * 0.98, signal, error, fmt="o", color="0.6", capsize=3, label=f"the box, {field:.1f} deg$^2$")
    axes.errorbar(k * 1.02, signal, error * share, fmt="o", color="tab:red", capsize=3, label=f"{DEEP:.0f} deg$^2$")
    axes.axhline(0, color="k", lw=0.8)
    axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(abs(signal).max())))
    axes.set(
        xlim=(0.03, 1),
        xscale="log",
        xlabel=r"$k$ [Mpc$^{-1}$]",
        ylabel=r"$k^3P_\times/2\pi^2$ [mK nW m$^{-2}$ sr$^{-1}$]",
    )
    axes.set_title("means of channels removed; SKA-Low 1000 h, SPHEREx deep", fontsize=9)
    axes.xaxis.set_minor_formatter("")
    axes.legend(loc="upper left", fontsize=8)
    write_figure(figure, arguments.out)
    print(f"\npicture: {arguments.out}")


def half_wave(k: NDArray) -> NDArray:
    """Pi over k, its own inverse."""
    with np.errstate(divide="ignore"):
        return np.pi / np.asarray(k, dtype=float)


if __name__ == "__main__":
    main()
