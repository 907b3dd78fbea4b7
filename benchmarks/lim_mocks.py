"""Are the line-intensity mocks right, and what do they cost?

    python -m benchmarks.lim_mocks                                   all parts: some minutes
    python -m benchmarks.lim_mocks --parts clustering --pinocchio tests/data/pinocchio
    python -m benchmarks.lim_mocks --parts speed --maps 300

counts      Halos by mass over the mass function, with the Poisson error.
clustering  One-point statistics of maps weighted by luminosity, in boxes of 128 Mpc/h of halos above 5e11 Msun/h
            (2 Mpc/h pixels, 64 Mpc/h deep), against those of PINOCCHIO 5.1 (means of four boxes); P(k) with shot noise
            and the same maps in boxes of 100 Mpc/h against a stored box of PINOCCHIO, beside the error of one box.
lines       Luminosity functions against Colbert et al. 2013, and mean intensities against the analytic integral.
pixels      One-point distribution and P(k) of the default maps.
speed       Processor's seconds for each pair of maps of 256², of a dozen slabs for each pair of volumes.
"""

import argparse
import itertools
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulators import build
from simulators.lim.cosmology import Cosmology, tinker_bias
from simulators.lim.halos import Halos, box_halos
from simulators.lim.lightcone import MPC, NANOWATT
from simulators.lim.lines import LINES, gong17, scattered
from simulators.lim.mock import LimMock, LineName
from simulators.lim.pinocchio import read_catalog

COSMOLOGY = Cosmology()
#: PINOCCHIO 5.1, four boxes of 128 Mpc/h, M > 5e11 Msun/h: rms, skewness and 99.9th percentile of a map over its mean.
PINOCCHIO = {2.0: (1.26, 1.96, 8.43), 1.3: (1.14, 1.76, 7.26)}
#: Colbert et al. 2013 (arXiv:1305.1399): log phi*, log L*, alpha.
COLBERT = {"ha": (1.3, -2.70, 42.18, -1.43), "oiii": (2.0, -3.74, 42.91, -1.67)}


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=8, help="boxes of each comparison")
    parser.add_argument("--pinocchio", type=Path, default=Path("tests/data/pinocchio"), help="folder of stored boxes")
    parser.add_argument("--maps", type=int, default=300, help="pairs of maps that are timed")
    arguments = parser.parse_args()
    for part in arguments.parts:
        PARTS[part](arguments)


def counts(arguments: argparse.Namespace) -> None:
    """Number of halos by mass."""
    side = 128 / COSMOLOGY.h
    print("\ncounts: halos over the mass function, in units of the Poisson error")
    for z in PINOCCHIO:
        edges = np.array([5e11, 1e12, 2e12, 5e12, 1e13, 1e16]) / COSMOLOGY.h
        found = np.zeros(len(edges) - 1)
        for seed in range(arguments.seeds):
            found += np.histogram(box_halos(COSMOLOGY, z, side, 64, (edges[0], 1e16), seed).mass, edges)[0]
        expected = np.array([number(z, a, b) for a, b in itertools.pairwise(edges)])
        expected *= side**3 * arguments.seeds
        ratio, off = found / expected, (found - expected) / np.sqrt(expected)
        print(f"z = {z}: " + ", ".join(f"{r:.3f} ({o:+.1f})" for r, o in zip(ratio, off, strict=True)))


def clustering(arguments: argparse.Namespace) -> None:
    """One-point statistics and P(k) against PINOCCHIO."""
    print("\nclustering: rms, skewness, 99.9th percentile of a map over its mean, error of the mean of the boxes")
    for z, wanted in PINOCCHIO.items():
        found = []
        for seed in range(arguments.seeds):
            halos = box_halos(COSMOLOGY, z, 128 / COSMOLOGY.h, 128, (5e11 / COSMOLOGY.h, 1e16), seed)
            found += [statistics(halos, z, axis, half) for axis in range(3) for half in range(2)]
        mean = np.mean(found, axis=0)
        # Six maps of a box are not independent.
        error = np.std(np.mean(np.reshape(found, (arguments.seeds, 6, 3)), axis=1), axis=0) / arguments.seeds**0.5
        texts = [f"{m:.2f} +- {e:.2f} ({m / w:.2f})" for m, e, w in zip(mean, error, wanted, strict=True)]
        print(f"z = {z}: {', '.join(texts)}; PINOCCHIO {wanted}")
    k_edges = np.array([0.15, 0.25, 0.4, 0.6, 0.8, 1.0]) * COSMOLOGY.h
    side, lowest = 100 / COSMOLOGY.h, 5e11 / COSMOLOGY.h
    for path in sorted(arguments.pinocchio.glob("pinocchio.*.b128.catalog.out*")):
        z = float(path.name.split(".")[1] + "." + path.name.split(".")[2])
        boxes = [box_halos(COSMOLOGY, z, side, 128, (lowest, 1e16), seed) for seed in range(arguments.seeds)]
        catalog = read_catalog(path)
        redshift = np.full(len(catalog.mass), z, np.float32)
        position, velocity = (values.astype(np.float32) for values in (catalog.position, catalog.velocity))
        stored = Halos(catalog.mass, position, velocity, redshift, (side,) * 3)
        stored = stored[stored.mass > lowest]
        print(f"against the stored box of 100 Mpc/h, z = {z}; error of one box")
        ours = np.array([power(halos.position, side, k_edges) for halos in boxes])
        ratio, scatter = ours.mean(0) / power(stored.position, side, k_edges), ours.std(0) / ours.mean(0)
        texts = [f"{r:.2f} +- {s:.2f}" for r, s in zip(ratio, scatter, strict=True)]
        print(f"    P(k) with shot noise, k/(h/Mpc) 0.15-0.25-0.4-0.6-0.8-1, over its: {', '.join(texts)}")
        theirs, error = jackknife(stored, z)
        mean = np.mean([jackknife(halos, z)[0] for halos in boxes], axis=0)
        texts = [f"{m:.2f} ({t:.2f} +- {e:.2f})" for m, t, e in zip(mean, theirs, error, strict=True)]
        print(f"    rms, skewness, 99.9th percentile of maps (its, jackknife error): {', '.join(texts)}")
        m, density, sigma = COSMOLOGY.mass_function(z)
        bias = np.average(tinker_bias(sigma)[m > lowest], weights=density[m > lowest])
        shot = side**3 / np.mean([len(halos) for halos in boxes])
        k = np.geomspace(k_edges[0], k_edges[2], 20)
        linear = np.average(COSMOLOGY.power(k), weights=k**3) * COSMOLOGY.growth(z) ** 2  # as modes are
        clustered = np.mean([power(halos.position, side, k_edges[[0, 2]]) for halos in boxes]) - shot
        print(f"    bias at k = 0.15-0.4 h/Mpc: {np.sqrt(clustered / linear):.2f}, Tinker et al. {bias:.2f}")


def jackknife(halos: Halos, z: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of `statistics` over the six maps of a box, and its error by leaving out each eighth of the box."""
    octant = (halos.position >= halos.box[0] / 2) @ np.array([4, 2, 1])
    views = list(itertools.product(range(3), range(2)))
    whole = np.mean([statistics(halos, z, axis, half) for axis, half in views], axis=0)
    without = []
    for left_out in range(8):
        corner = [(left_out >> (2 - axis)) & 1 for axis in range(3)]
        some = halos[octant != left_out]
        without.append(
            np.mean(
                [
                    statistics(some, z, axis, half, [corner[i] for i in range(3) if i != axis])
                    for axis, half in views
                    if half == corner[axis]
                ]
                + [statistics(halos, z, axis, half) for axis, half in views if half != corner[axis]],
                axis=0,
            )
        )
    return whole, np.std(without, axis=0) * np.sqrt(7)


def lines(arguments: argparse.Namespace) -> None:
    """Luminosity functions and mean intensity."""
    print("\nlines: log10 of phi over Colbert et al. 2013 at log L = 41, 41.5, 42, 42.5 (scatter 0.3 dex, Gong et al.)")
    rng = np.random.default_rng(1)
    for name, (z, log_phi, log_l, alpha) in COLBERT.items():
        halos = box_halos(COSMOLOGY, z, 200 / COSMOLOGY.h, 64, (1e10, 1e16), 1)
        mean = LINES[name].luminosity(gong17(halos.mass, np.full(len(halos), z)))
        luminosity = scattered(mean, 0.3, rng.standard_normal(len(halos)), True)
        at = np.array([41, 41.5, 42, 42.5])
        found = [np.sum(np.abs(np.log10(luminosity) - x) < 0.1) / 0.2 / (200 / COSMOLOGY.h) ** 3 for x in at]
        x = 10 ** (at - log_l)
        schechter = np.log(10) * 10**log_phi * x ** (alpha + 1) * np.exp(-x)
        print(f"{name} z = {z}: " + ", ".join(f"{v:+.2f}" for v in np.log10(found / schechter)))
    simulator = mock(["A_HA", "SCATTER"], mass_min=10.0, pixels=64, pixel=1.6)
    maps = [simulator.simulate(np.array([1e-9 * i, 0.2]), i // 4) for i in range(4 * arguments.seeds)]
    print("mean intensity of maps over the analytic integral, error of the mean; nW/m^2/sr")
    names: tuple[LineName, ...] = ("ha", "oiii")
    for name in names:
        low, high = simulator.grid.redshifts(LINES[name].wavelength)
        z = (low + high) / 2
        m, density, _ = COSMOLOGY.mass_function(z)
        some = m > 1e10
        luminosity = simulator.luminosity(name, m[some], np.full(int(some.sum()), z))
        emitted = np.trapezoid(luminosity * density[some], np.log(m[some]))
        depth = COSMOLOGY.distance(high) - COSMOLOGY.distance(low)
        expected = emitted * depth / (4 * np.pi * (1 + z) ** 2) / MPC**2 * NANOWATT
        means = np.reshape([made[name].mean(dtype=float) for made in maps], (arguments.seeds, 4)).mean(1)
        ratio, error = means.mean() / expected, means.std() / expected / arguments.seeds**0.5
        print(f"{name}: {ratio:.3f} +- {error:.3f}; {expected:.2e}")


def pixels(arguments: argparse.Namespace) -> None:
    """One-point distribution and P(k) of maps."""
    simulator = mock(["A_HA", "SCATTER"], mass_min=11.0, rows_per_realisation=1)
    print("\npixels: maps of 256² of 0.4 arcmin, M > 1e11 Msun, 0.2 dex; nW/m^2/sr")
    maps = [simulator.simulate(np.array([0.0, 0.2]), seed) for seed in range(arguments.seeds)]
    quantiles = [0.5, 0.9, 0.99, 0.999]
    side = simulator.grid.side
    f = np.fft.fftfreq(simulator.grid.pixels, simulator.grid.pixel)
    k = 2 * np.pi * np.hypot(*np.meshgrid(f, f))
    edges = np.geomspace(0.1, 6.4, 7)
    for name in ("ha", "oiii"):
        values = np.array([made[name][0] for made in maps], dtype=float)
        found = np.quantile(values, quantiles)
        print(
            f"{name}: mean {values.mean():.2e} (scatter {values.mean((1, 2)).std() / values.mean():.0%}), rms "
            f"{values.std():.2e}, empty {np.mean(values == 0):.0%}; {quantiles} quantiles "
            + ", ".join(f"{q:.1e}" for q in found)
        )
        p = np.mean(np.abs(np.fft.fft2(values - values.mean((1, 2), keepdims=True))) ** 2, axis=0)
        p *= side**2 / simulator.grid.pixels**4
        bins = [p[(k >= a) & (k < b)].mean() for a, b in itertools.pairwise(edges)]
        print("    P, k = 0.1 to 6.4 /arcmin by factors of two: " + ", ".join(f"{v:.1e}" for v in bins))


def speed(arguments: argparse.Namespace) -> None:
    """Seconds for each pair of maps."""
    simulator = mock(["A_HA", "A_OIII"], mass_min=11.0)
    simulator.simulate(np.zeros(2), 0)  # imports
    rows = simulator.rows_per_realisation
    start = time.process_time()
    for i in range(arguments.maps):
        simulator.simulate(np.array([0.0, 1e-9 * i]), 1 + i // rows)
    each = (time.process_time() - start) / arguments.maps
    disjoint = []
    for name in ("ha", "oiii"):
        near, far = COSMOLOGY.distance(np.array(simulator.grid.redshifts(LINES[name].wavelength)))
        across = far * np.deg2rad(simulator.grid.side / 60)
        disjoint.append(int(simulator.box_length // across) ** 2 * int(simulator.box_length // (far - near)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"\nspeed: {each:.2f} processor's s a pair of {simulator.pixels}² maps, {rows} pairs for each pair of volumes, "
        f"of which {disjoint[0]} and {disjoint[1]} would be disjoint; "
        f"30,000 pairs: {30000 * each / 3600:.1f} core-hours; {memory:.2f} GB"
    )


def mock(parameters: list[str], **settings: object) -> LimMock:
    """The default slab."""
    made = build({"kind": "lim-mock", "parameters": parameters, **settings})
    assert isinstance(made, LimMock)
    return made


def number(z: float, low: float, high: float) -> float:
    """Halos between two masses, Mpc^-3."""
    m, density, _ = COSMOLOGY.mass_function(z)
    fine = np.geomspace(low, min(high, 2e15), 2000)
    return float(np.trapezoid(np.exp(np.interp(np.log(fine), np.log(m), np.log(density))), np.log(fine)))


def statistics(halos: Halos, z: float, axis: int, half: int, empty: list[int] | None = None) -> list[float]:
    """Rms, skewness and 99.9th percentile of a map, over its mean; without one quarter of it, if that is `empty`."""
    side = halos.box[0]
    inside = (halos.position[:, axis] >= half * side / 2) & (halos.position[:, axis] < (half + 1) * side / 2)
    across = halos.position[inside][:, [i for i in range(3) if i != axis]]
    weights = gong17(halos.mass[inside], np.full(int(inside.sum()), z))
    cells = round(side * COSMOLOGY.h / 2)
    image = np.histogram2d(across[:, 0], across[:, 1], bins=cells, range=np.array([(0.0, side)] * 2), weights=weights)[
        0
    ]
    if empty is not None:
        quarters = image.reshape(2, cells // 2, 2, cells // 2)
        image = np.concatenate([quarters[i, :, j].ravel() for i in range(2) for j in range(2) if [i, j] != empty])
    image /= image.mean()
    return [image.std(), float(np.mean((image - 1) ** 3) / image.std() ** 3), float(np.quantile(image, 0.999))]


def power(position: NDArray[np.floating], side: float, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(k) of points in Mpc^3, nearest grid point of 128 cells with its window divided out."""
    n = 128
    delta = np.histogramdd(position, bins=n, range=[(0, side)] * 3)[0]
    f = [np.fft.fftfreq(n), np.fft.fftfreq(n), np.fft.rfftfreq(n)]
    grid = np.meshgrid(*f, indexing="ij")
    window = np.prod([np.sinc(x) for x in grid], axis=0)
    p = np.abs(np.fft.rfftn(delta / delta.mean() - 1) / window) ** 2 * side**3 / n**6
    k = 2 * np.pi * n / side * np.sqrt(sum(x**2 for x in grid))
    return np.array([p[(k >= a) & (k < b)].mean() for a, b in itertools.pairwise(edges)])


PARTS = {"counts": counts, "clustering": clustering, "lines": lines, "pixels": pixels, "speed": speed}

if __name__ == "__main__":
    main()
