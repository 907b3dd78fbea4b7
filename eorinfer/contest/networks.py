"""Amortised methods: NPE on different views of the image, and regression."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.contest.method import ContestSetup, Method, stored_name
from eorinfer.core.errors import InputError
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, item_seed, round_seed
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.batched import draw
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.settings.contest import MethodName
from eorinfer.training.kept import load_or_train
from simulators.base import fingerprint_of

#: Views that read the very bins of P(k) that the Gaussian likelihood reads, those of ``[power_spectrum]``.
SAME_BINS: tuple[MethodName, ...] = ("npe-power", "npe-both")
#: Keys of ``[embedding]`` that each view sets, in place of the config's.
VIEWS: dict[MethodName, dict[str, Any]] = {
    "npe-power": {"convolution": False, "power_spectrum": True},
    "npe-image": {"convolution": True, "power_spectrum": False},
    "npe-both": {"convolution": True, "power_spectrum": True},
    "npe-scattering": {"convolution": False, "power_spectrum": False, "scattering": True},
    "npe-summaries": {"convolution": False},
    "regression": {"convolution": True, "power_spectrum": False},
}
#: Offset of the seeds of further trainings, beyond those of an ensemble's members.
AGAIN = 1000


def trained_posterior(
    setup: ContestSetup,
    name: MethodName,
    number: int = 1,
    *,
    rows: Rows | None = None,
    alignment: float = 0.0,
    place: str = "",
) -> Posterior:
    """Train the posterior of one view on the first round, or load it where it is kept.

    Parameters
    ----------
    setup, name
        Setup of the contest, and name of the view.
    number
        Number of the training, from 1, each with a seed of its own.
    rows, alignment
        Rows to train on, by default those of the contest, and see `eorinfer.npe.trainer.Trainer`.
    place
        Folder of what is trained on other rows or with an alignment, below ``contest/``.
    """
    chosen = setup.rows if rows is None else rows
    context, tables = setup.context, setup.context.config.tables
    if name == "npe-summaries" and not tables.embedding.all_summaries:
        raise InputError(f'{context.config.file}: [contest] methods: "{name}" needs [embedding] summaries = [...]')

    def train(checkpoints: Path) -> Posterior:
        view = VIEWS[name] if name == "npe-summaries" else {"summaries": None} | VIEWS[name]
        if name in SAME_BINS:
            view["bins"] = tables.power_spectrum.bins
        if name == "npe-power" and context.preprocessing is not None and context.preprocessing.spectra == "lines":
            view = {"convolution": False, "summaries": ("joint-power",)}
        flow = tables.flow.model_copy(update={"kind": "gaussian"}) if name == "regression" else tables.flow
        embedding = tables.embedding.model_copy(update=view)
        architecture = Architecture(embedding, flow, tables.power_spectrum, context.config.modules)
        trainer = context.trainer(context.config.prior, architecture, alignment)
        # The same seed for all views: they see the same batches with the same noise.
        seed = round_seed(tables.seed, PRIOR_ROUND, RoundStream.TRAINING)
        posterior = trainer.train(
            context.bank,
            chosen,
            folder=checkpoints,
            seed=seed if number == 1 else item_seed(seed, AGAIN + number),
            title=stored,
            progress=context.progress,
        )
        posterior.facts["simulations"] = len(chosen)
        return posterior

    stored = place or stored_name(name, number)
    more: dict[str, Any] = {} if rows is None else {"rows": rows_key(rows)}
    if alignment:
        more |= {"alignment": alignment}
    if name == "npe-both" and tables.embedding.bins != tables.power_spectrum.bins:
        more |= {"bins": tables.power_spectrum.bins}  # older versions gave it those of the embedding
    if number > 1:
        more |= {"training": number}
    folder, key = setup.folder(stored) / "posterior", setup.key_of(name, **more)
    return load_or_train(Posterior, folder, key, train, load=context.load_posterior)


def rows_key(rows: Rows) -> str:
    """Hash the rows of a training."""
    return fingerprint_of({"theta": rows.theta.tolist(), "seeds": rows.seed.tolist(), "world": rows.world.tolist()})


def retrained(setup: ContestSetup, name: MethodName) -> Iterator[Method]:
    """Train a network once for each further of ``[contest] seeds``; other methods have one training."""
    if name in VIEWS:
        for number in range(2, setup.settings.seeds + 1):
            yield network_method(setup, name, number)


def network_method(setup: ContestSetup, name: MethodName, number: int = 1) -> Method:
    """Build NPE on one view, or regression."""
    return amortised(name, trained_posterior(setup, name, number), number)


def amortised(name: MethodName, posterior: Posterior, number: int = 1) -> Method:
    """Build the method of a trained posterior."""

    def evaluate(observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> TruthPosteriors:
        start = time.monotonic()
        read = posterior.read(observed)
        values = draw(posterior, read, n, seed).values
        seconds = (time.monotonic() - start) / len(observed)
        return TruthPosteriors.on_whole_prior(
            values,
            log_density(posterior.networks, theta[:, None], read)[:, 0],
            log_density(posterior.networks, values, read),
            np.ones(len(observed), bool),
            np.full(len(observed), seconds),
        )

    return Method(name, posterior.facts["key"], posterior.facts["seconds"], evaluate, number=number)
