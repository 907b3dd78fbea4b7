"""The setting of Moriwaki & Yoshida 2021, and the training of a separator in it."""

from pathlib import Path
from typing import Any

import tomli_w

from eorinfer.core.progress import Lines
from eorinfer.run.config import check_config
from eorinfer.run.line_separation import Separation

#: Lines 20 times as bright as published luminosity functions allow, smoothed by a Gaussian of 1.2 arcmin.
SIMULATOR: dict[str, Any] = {
    "kind": "lim-mock",
    "smoothing_sigma": 1.2,
    "amplitude": 20.0,
    "mass_min": 11.0,
    "fixed": {"B_HA": 0.2},
}
#: As good as fixed: the published networks know one relation. The rest makes every row a slab of its own.
PRIOR = {"A_HA": [-0.01, 0.01], "A_OIII": [-0.01, 0.01]}
#: Noise of the cases.
SURVEYS: dict[str, dict[str, Any]] = {
    "noise-free": {"kind": "none"},
    "deep": {"kind": "spherex", "field": "deep"},
    "all-sky": {"kind": "spherex", "field": "all-sky"},
}


def separation_step(
    out: Path, name: str, survey: str, simulator: dict[str, Any], separation: dict[str, Any], *, seed: int, workers: int
) -> Separation:
    """Set up the training of a separator, in a folder of its own beside a bank that all in `out` share.

    Parameters
    ----------
    out, name
        Folder of all, and name of the one.
    survey
        Key of `SURVEYS`.
    simulator, separation
        Keys of ``[simulator]`` beside those of `SIMULATOR`, and of ``[separation]``.
    seed, workers
        Seed, and processes that simulate.
    """
    content = {
        "seed": seed,
        "simulator": SIMULATOR | simulator,
        "prior": PRIOR,
        "survey": SURVEYS[survey],
        "separation": {"mix": True, **separation},
        "bank": {"path": "bank"},
        "executor": {"workers": workers},
    }
    path = out / f"{name}.toml"
    step = Separation(check_config(path, content, "separation"), path.with_suffix(""), Lines())
    # Afterwards, since a folder that holds another simulator's mocks is refused.
    path.write_text(tomli_w.dumps(content))
    return step
