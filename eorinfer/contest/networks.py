"""Methods that are trained once and answer at once: NPE on different views of the image, and regression."""

import shutil
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.contest.method import ContestSetup, Method
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, round_seed
from eorinfer.likelihood.answers import Answers
from eorinfer.npe.batched import draw, log_density
from eorinfer.npe.posterior import Architecture, Posterior
from eorinfer.npe.trainer import Trainer
from eorinfer.settings.contest import MethodName

#: Of the embedding, in place of the config's.
VIEWS: dict[MethodName, dict[str, Any]] = {
    "npe-power": {"convolution": False, "power_spectrum": True},
    "npe-image": {"convolution": True, "power_spectrum": False},
    "npe-both": {"convolution": True, "power_spectrum": True},
    "npe-scattering": {"convolution": False, "power_spectrum": False, "scattering": True},
    "regression": {"convolution": True, "power_spectrum": False},
}


def trained_posterior(ground: ContestSetup, name: MethodName) -> Posterior:
    """The posterior of one view: loaded when it is there, else trained on the prior's rows."""
    parts, tables = ground.parts, ground.parts.config.tables
    folder, key = ground.folder(name) / "posterior", ground.key_of(name)
    if (folder / "posterior.json").exists():
        posterior = Posterior.load(folder)
        if posterior.facts.get("key") == key:
            return posterior
    view = dict(VIEWS[name])
    if name == "npe-power":
        view["bins"] = tables.power_spectrum.bins  # the very data of the Gaussian likelihood
    flow = tables.flow.model_copy(update={"kind": "gaussian"}) if name == "regression" else tables.flow
    trainer = Trainer(
        parts.config.prior,
        parts.config.observable,
        tables.survey,
        parts.survey,
        Architecture(tables.embedding.model_copy(update=view), flow, tables.power_spectrum),
        tables.training,
        ground.preprocessing,
    )
    start = time.monotonic()
    checkpoints = ground.folder(name) / f"checkpoints-{key}"
    posterior = trainer.train(
        parts.bank,
        ground.rows,
        folder=checkpoints,
        # The same for all views: they see the same batches with the same noise.
        seed=round_seed(tables.seed, PRIOR_ROUND, RoundStream.TRAINING),
        title=name,
        progress=parts.progress,
    )
    posterior.facts.update(key=key, seconds=time.monotonic() - start, simulations=len(ground.rows))
    posterior.save(folder)
    for checkpoints in ground.folder(name).glob("checkpoints-*"):
        shutil.rmtree(checkpoints, ignore_errors=True)
    return posterior


def network_method(ground: ContestSetup, name: MethodName) -> Method:
    """NPE, or regression."""
    posterior = trained_posterior(ground, name)

    def ask(observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> Answers:
        start = time.monotonic()
        read = posterior.read(observed)
        values = draw(posterior, read, n, seed).values
        seconds = (time.monotonic() - start) / len(observed)
        return Answers(
            values,
            log_density(posterior, theta[:, None], read)[:, 0],
            log_density(posterior, values, read),
            np.ones(len(observed), bool),
            np.full(len(observed), seconds),
        )

    return Method(name, posterior.facts["key"], posterior.facts["seconds"], ask)
