"""NPE and image flow combined, as a method of a contest."""

import time

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.contest.method import ContestSetup, Method
from eorinfer.contest.networks import trained_posterior
from eorinfer.core.seeds import item_seed
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.run.combined import sampled, trained_combined
from eorinfer.settings.contest import PROPOSALS, MethodName


def combined_method(setup: ContestSetup, name: MethodName) -> Method:
    """Build the combination of the run's image flow with the best of the contest's NPE."""
    context = setup.context
    npe = trained_posterior(setup, next(name for name in PROPOSALS if name in setup.settings.methods))
    combined = trained_combined(context, npe, setup.rows, setup.folder(name))

    def evaluate(observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> TruthPosteriors:
        samples, seconds = [], []
        for i, (cube, truth) in enumerate(zip(observed, theta, strict=True)):
            start = time.monotonic()
            observation = Observation.from_observable(context.config.observable, cube.numpy())
            samples.append(sampled(combined, observation, truth, n, item_seed(seed, i)))
            seconds.append(time.monotonic() - start)
        return TruthPosteriors.from_samples(samples, seconds)

    trained = combined.flow.facts["seconds"] + npe.facts["seconds"]
    return Method(name, setup.key_of(name, combined=combined.key), trained, evaluate)
