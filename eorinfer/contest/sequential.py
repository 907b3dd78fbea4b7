"""Sequential NPE beside a contest: the later rounds of its config, for the run's observation alone."""

from dataclasses import replace
from typing import Any

from eorinfer.core.samples import Samples
from eorinfer.run import Run


def sequential_posterior(run: Run) -> tuple[Samples, dict[str, Any]]:
    """Run, or read, all rounds of ``eorinfer infer``; samples of the last are in ``chains/npe``.

    The first round is the contest's own, trained once more with the networks that the config names. Also gives the
    simulations and seconds of all rounds.
    """
    samples = run.infer()
    load, rounds = run.context.load_posterior, run.out / "rounds"
    last = load(run.out / "posterior").facts["round"]
    posteriors = [load(rounds / f"{number:02d}" / "posterior") for number in range(1, last + 1)]
    label = f"sequential NPE, {len(posteriors)} rounds"
    return replace(samples, label=label), {
        "label": label,
        "simulations": sum(run.tables.inference.rounds[:last]),
        "training_seconds": sum(posterior.facts["seconds"] for posterior in posteriors),
    }
