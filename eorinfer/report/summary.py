"""Content of ``summary.json``: what the posteriors say, and what they cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples

#: Mean ratio of widths, of images over their power spectrum, beyond which more is to be learned.
WIDER = 1.1


def summary(
    chains: dict[str, Samples],
    truth: Mapping[str, float] | None,
    facts: dict[str, Any],
    prior: Prior | None = None,
) -> dict[str, Any]:
    """Compute means, widths and volumes of each chain, and join facts of the run.

    Widths are compared with those of the prior, by default flat in the ranges of the chains. Facts are added as they
    are.
    """
    widths = {} if prior is None else dict(zip(prior.names, prior.std.tolist(), strict=True))
    content: dict[str, Any] = {"posteriors": {name: _posterior(s, truth, widths) for name, s in chains.items()}}
    if (both := _npe_and_mcmc(chains)) is not None:
        npe, mcmc = both
        content["npe_over_mcmc"] = {
            "std": dict(zip(npe.names, (npe.std / mcmc.std).tolist(), strict=True)),
            "volume": _volume(npe) / _volume(mcmc),
        }
    return content | facts


def is_of(content: Mapping[str, Any], chains: Mapping[str, Samples]) -> bool:
    """Whether ``summary.json`` is of these chains: it has each of them with its means."""
    posteriors = content.get("posteriors", {})
    for name, samples in chains.items():
        known = posteriors.get(name, {}).get("parameters", {})
        means = [known.get(p, {}).get("mean", np.nan) for p in samples.names]
        if not np.allclose(means, samples.mean, rtol=1e-6, atol=1e-6 * samples.std):
            return False
    return True


def wider_line(chains: Mapping[str, Samples]) -> str | None:
    """Say what helps where the posterior from images is wider than that of their power spectrum; None if it is not.

    An image holds its power spectrum, so that the exact posterior is no wider. A tenth is left to the likelihood of the
    spectrum, which may be too sure.
    """
    if (both := _npe_and_mcmc(chains)) is None:
        return None
    npe, mcmc = both
    mean = float(np.exp(np.log(npe.std / mcmc.std).mean()))
    if not mean > WIDER:  # NaN of a chain without width
        return None
    return (
        f"{npe.label} is {mean:.2f} times as wide as {mcmc.label}, though an image holds its power spectrum: more "
        'simulations ([inference] rounds) or longer training ([training] effort = "thorough") should narrow it'
    )


def _npe_and_mcmc(chains: Mapping[str, Samples]) -> tuple[Samples, Samples] | None:
    """Give both with the parameters that they share: NPE may infer some of them, or other targets; None for none."""
    if not {"npe", "mcmc"} <= chains.keys():
        return None
    names = [name for name in chains["npe"].names if name in chains["mcmc"].names]
    return (chains["npe"].only(names), chains["mcmc"].only(names)) if names else None


def _posterior(samples: Samples, truth: Mapping[str, float] | None, widths: Mapping[str, float]) -> dict[str, Any]:
    low68, high68 = samples.interval(0.68)
    low95, high95 = samples.interval(0.95)
    rows: dict[str, Any] = {}
    for i, p in enumerate(samples.parameters):
        width = widths.get(p.name, (p.high - p.low) / np.sqrt(12))
        rows[p.name] = {
            "mean": float(samples.mean[i]),
            "std": float(samples.std[i]),
            # A chain of somebody else may have no ranges.
            "std_over_prior": float(samples.std[i] / width) if np.isfinite(width) else None,
            "interval_68": [float(low68[i]), float(high68[i])],
            "interval_95": [float(low95[i]), float(high95[i])],
        }
        if truth is not None and p.name in truth:
            rows[p.name]["truth"] = float(truth[p.name])
            rows[p.name]["bias_sigma"] = float((samples.mean[i] - truth[p.name]) / samples.std[i])
    return {"label": samples.label, "samples": len(samples), "parameters": rows, "volume": _volume(samples)}


def _volume(samples: Samples) -> float:
    """Square root of the covariance's determinant: the area for two parameters, up to a constant."""
    return float(np.sqrt(np.linalg.det(samples.covariance)))
