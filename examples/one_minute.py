"""How many sources, and how bright? A map that is not Gaussian, with a known exact posterior, in about a minute.

    python examples/one_minute.py runs/one-minute

Each cell of a map has a Poisson number of faint sources with exponentially distributed fluxes, and white noise. The
power spectrum sees only their product, density times flux squared. The image sees both. Cells are independent, so
the exact posterior follows from the distribution of one cell, the P(D) of radio surveys (Scheuer 1957).
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer import Run, corner, load_config, simulator
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.likelihood.grid import grid_samples

SIDE = 24
NOISE = 0.3
PARAMETERS = {
    "log_density": {"low": -1.5, "high": 0.5, "label": r"\log_{10} n"},  # per cell
    "log_flux": {"low": -0.5, "high": 0.5, "label": r"\log_{10} S"},  # mean, in mJy
}
TRUTH = {"log_density": -0.5, "log_flux": 0.0}


def sources(theta, seed):
    """Map (24, 24) in mJy of sources with `log_density`, log10 per cell, and `log_flux`, log10 of the mean in mJy."""
    density, flux = 10.0 ** np.asarray(theta)
    rng = np.random.default_rng(seed)
    number = rng.poisson(density, (SIDE, SIDE))
    return np.where(number > 0, rng.gamma(np.maximum(number, 1), flux), 0.0)


def exact(sky: NDArray[np.float64], prior: Prior, n: int) -> Samples:
    """Samples (n) of the exact posterior, from a grid; a cell's density is its characteristic function transformed."""
    points, step = 1024, 0.05
    t = 2 * np.pi * np.fft.rfftfreq(points, step)
    values = (np.arange(points) - points // 4) * step

    def log_likelihood(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        out = []
        for density, flux in 10.0**theta:
            characteristic = np.exp(density * (1 / (1 - 1j * flux * t) - 1) - (NOISE * t) ** 2 / 2)
            cell = np.fft.irfft(np.conj(characteristic) * np.exp(1j * t * values[0]), points) / step
            out.append(np.log(np.interp(sky.ravel(), values, np.maximum(cell, 1e-12))).sum())
        return np.array(out)

    return grid_samples(log_likelihood, prior, n, 1, "exact", points=60)


def main(out: Path) -> None:
    """Simulate, train, and compare three posteriors of one map."""
    config = load_config(
        {
            "simulator": simulator(
                sources,
                parameters=PARAMETERS,
                observable={
                    "shape": (SIDE, SIDE),
                    "cell_size": 1.0,
                    "unit": "mJy",
                    "periodic": True,
                    "rotations": "all",
                },
            ),
            "survey": {"kind": "white-noise", "sigma": NOISE},
            "observation": {"theta": TRUTH},
            "inference": {"rounds": [800], "predictive": 0},
            "embedding": {"width": 8},
            "training": {"steps": 500, "ensemble": 1},
            "mcmc": {"max_steps": 4000},
        }
    )
    run = Run(config, out)
    image, power = run.infer(), run.mcmc()
    sky = run.observe()
    known = exact(np.asarray(sky.values, np.float64), Prior(image.parameters), 10_000)
    print(f"{'':20s} log_density       log_flux")
    for samples in (known, image, power):
        numbers = [f"{mean:6.2f} ± {std:4.2f}" for mean, std in zip(samples.mean, samples.std, strict=True)]
        print(f"{samples.label:20s}", "   ".join(numbers))
    corner(image, power, known, truth=sky.theta).savefig(out / "corner.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/one-minute"))
