"""A simulator of your own: a map of round blobs, of which number and size are to be found."""

import numpy as np

from simulators import Observable, Parameter, SimulatorSettings, Symmetry


class Blobs(SimulatorSettings):
    """Blobs at random places. The fields below are keys of [simulator]."""

    cells: int = 32

    @property
    def parameters(self):
        return (
            Parameter("number", "N", low=5.0, high=50.0, fiducial=20.0),
            Parameter("size", r"\sigma", low=1.0, high=4.0, fiducial=2.0, unit="Mpc"),
        )

    @property
    def observables(self):
        shape = (1, self.cells, self.cells)  # channels first
        symmetry = Symmetry(periodic=(True, True), rotations="all")
        return (Observable("map", shape, "", ("channel", "x", "y"), (1.0, 1.0), (0.0,), symmetry),)

    def simulate(self, theta, seed):
        number, size = theta
        rng = np.random.default_rng(seed)
        sky = np.zeros((self.cells, self.cells))
        cell = np.arange(self.cells)
        for x, y in rng.uniform(0, self.cells, (rng.poisson(number), 2)):
            # Distances on a periodic map, so that no blob is cut at an edge.
            dx, dy = (np.minimum(abs(cell - c), self.cells - abs(cell - c)) for c in (x, y))
            sky += np.exp(-(dx[:, None] ** 2 + dy[None, :] ** 2) / (2 * size**2))
        return {"map": sky[None].astype(np.float32)}
