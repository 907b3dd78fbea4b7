"""What the steps of a run left in its folder, read without the config and without torch."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.facts import BankFacts
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json
from eorinfer.core.observation import Observation
from eorinfer.core.samples import Samples
from eorinfer.report.scores import FILE as CONTEST
from eorinfer.report.scores import Contest

#: Chains that the steps write, in the order of drawing.
CHAINS = ("npe", "field-flow", "mcmc")
#: Methods that sample a chain, and its file's name.
SAMPLED = {"mcmc": "mcmc", "field_flow": "field-flow"}
#: Descriptions of what is trained besides the posteriors of the rounds.
MODELS = ("field/field.json", "separator/separator.json", "contest/*/posterior/posterior.json")


def read_chains(out: Path, others: bool = False) -> dict[str, Samples]:
    """The chains of the steps by name, and after them `others` that somebody put beside them."""
    names = [name for name in CHAINS if (out / "chains" / f"{name}.txt").exists()]
    if others:
        there = {path.name.removesuffix(".paramnames") for path in (out / "chains").glob("*.paramnames")}
        names += sorted(there - {*CHAINS})
    return {name: Samples.read(out / "chains" / name) for name in names}


def corners(chains: dict[str, Samples], names: Sequence[str]) -> dict[str, list[Samples]]:
    """Which chains go into which corner plot.

    Parameters
    ----------
    chains
        By name.
    names
        All parameters of the run.

    Returns
    -------
    dict
        By the name of the picture: ``corner`` with all chains of all parameters, and ``corner-NAME`` for each chain
        of some of them, or of none (a neutral fraction).
    """
    whole = [one for one in chains.values() if one.names == list(names)]
    found = {"corner": whole} if whole else {}
    for name, one in chains.items():
        if one.names != list(names):
            found[f"corner-{name}"] = [one, *(w.only(one.names) for w in whole if set(one.names) <= set(w.names))]
    return found


def true_values(truth: dict[str, float] | None, samples: Samples) -> NDArray[np.float64] | None:
    """True values (P,) of a chain's parameters; None where one is not known."""
    names = samples.names
    return np.array([truth[name] for name in names]) if truth and set(names) <= truth.keys() else None


def read_rounds(out: Path) -> list[dict[str, Any]]:
    """Facts of the posterior of each round: simulations, volume, fits, seconds."""
    return [read_json(path)["facts"] for path in sorted((out / "rounds").glob("*/posterior/posterior.json"))]


def read_sampled(out: Path) -> dict[str, dict[str, Any] | None]:
    """Steps, convergence and seconds of each method that samples a chain; None where there is none."""
    return {method: _json(out / "chains" / f"{name}.json") or None for method, name in SAMPLED.items()}


@dataclass(frozen=True)
class RunFolder:
    """All that a folder holds, read once; None or empty where a step has not been.

    Attributes
    ----------
    out
        The folder.
    config_text, config
        ``config.toml``, as it stands and read.
    observation
        Of the run.
    chains
        By name, those of others included.
    validation, summary
        The JSON files of these names.
    check
        What was found when the observation was compared with the simulations.
    rounds
        Facts of each round's posterior.
    sampled
        Facts of each sampled chain.
    trained
        Facts of the flow on the images, of a separator, and of the networks of a contest, by their folder.
    bank
        What it holds.
    contest
        Between methods.
    """

    out: Path
    config_text: str
    config: dict[str, Any]
    observation: Observation | None
    chains: dict[str, Samples]
    validation: dict[str, Any]
    summary: dict[str, Any]
    check: dict[str, Any] | None
    rounds: list[dict[str, Any]]
    sampled: dict[str, dict[str, Any] | None]
    trained: dict[str, dict[str, Any]]
    bank: BankFacts | None
    contest: Contest | None

    @classmethod
    def read(cls, out: Path) -> "RunFolder":
        """Read a folder.

        Raises
        ------
        InputError
            If there is none, or nothing in it that a run or a contest leaves, or a file in it cannot be read.
        """
        if not out.is_dir():
            raise InputError(f"{out}: no such folder")
        text = (out / "config.toml").read_text(encoding="utf-8") if (out / "config.toml").exists() else ""
        try:
            config = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{out / 'config.toml'}: not valid TOML: {error}") from error
        summary = _json(out / "summary.json")
        bank = Path(config.get("bank", {}).get("path", out / "bank"))
        models = {
            str(path.parent.relative_to(out)): read_json(path) for file in MODELS for path in sorted(out.glob(file))
        }
        found = cls(
            out,
            text,
            config,
            Observation.written(out / "observation.h5") if (out / "observation.h5").exists() else None,
            read_chains(out, others=True),
            _json(out / "validation.json"),
            summary,
            (_json(out / "chains" / "npe.json") or summary).get("misspecification"),
            read_rounds(out),
            read_sampled(out),
            {name: content["facts"] for name, content in models.items()},
            BankFacts.of(Bank.open(bank)) if (bank / "bank.json").exists() else None,
            Contest.read(out) if (out / CONTEST).exists() else None,
        )
        if not (text or found.chains or found.contest):
            raise InputError(f"{out}: holds no run and no contest: no config.toml, no chains and no {CONTEST}")
        return found

    @property
    def alarm(self) -> dict[str, Any] | None:
        """What the field flow found when the observation was compared with the images of its training."""
        return (self.sampled["field_flow"] or {}).get("misspecification")

    @property
    def only_contest(self) -> bool:
        """Whether a contest was held in the folder and no run has gone beyond its first simulations."""
        return self.contest is not None and not (self.rounds or {"npe", "mcmc"} & self.chains.keys())

    @property
    def truth(self) -> dict[str, float] | None:
        """True parameters of a mock by name."""
        if named := self.config.get("observation", {}).get("theta"):
            return dict(named)
        if self.observation is None or self.observation.theta is None:
            return None
        names = next((one.names for one in self.chains.values() if len(one.names) == len(self.observation.theta)), [])
        return dict(zip(names, map(float, self.observation.theta), strict=False)) or None


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
