"""Sequential NPE beside a contest: the later rounds of its config, for the run's observation alone."""

from dataclasses import replace
from typing import Any

from eorinfer.core.samples import Samples
from eorinfer.npe.posterior import Posterior
from eorinfer.run import Run


def sequential_posterior(run: Run) -> tuple[Samples, dict[str, Any]]:
    """Run, or read, all rounds of ``eorinfer infer``; samples are in ``chains/npe``.

    The first round is the contest's own, trained once more with the networks that the config names.

    Parameters
    ----------
    run
        Run of more than one round.

    Returns
    -------
    Samples
        Samples of the last round.
    dict
        Simulations and seconds of all rounds.
    """
    samples = run.infer()
    last = Posterior.load(run.out / "posterior", run.config.modules, run.config.own_names).facts["round"]
    numbers = range(1, last + 1)
    posteriors = [
        Posterior.load(run.out / "rounds" / f"{number:02d}" / "posterior", run.config.modules, run.config.own_names)
        for number in numbers
    ]
    label = f"sequential NPE, {len(posteriors)} rounds"
    return replace(samples, label=label), {
        "label": label,
        "simulations": sum(run.tables.inference.rounds[:last]),
        "training_seconds": sum(posterior.facts["seconds"] for posterior in posteriors),
    }
