"""Read what the steps of a run left in its folder, without the simulator and without torch."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.facts import BankFacts
from eorinfer.bank.store import Bank
from eorinfer.bank.targets import read_true_targets
from eorinfer.core.chains import OTHER_FORMATS, chain_tables
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json
from eorinfer.core.prior import Prior
from eorinfer.core.reading import read_text
from eorinfer.core.samples import Samples
from eorinfer.core.toml import parse_toml
from eorinfer.cubes.observation import Observation
from eorinfer.report.scores import FILE as CONTEST
from eorinfer.report.scores import Contest, contest_file
from eorinfer.report.summary import is_of
from simulators.base import fingerprint_of

T = TypeVar("T")
#: Errors of a file that can be read and is not what a step writes.
MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError)
#: Names of the chains that the steps write, in the order of drawing.
CHAINS = ("npe", "field-flow", "combined", "mcmc")
#: File name of the chain of each method that samples one.
SAMPLED = {"mcmc": "mcmc", "field_flow": "field-flow", "combined": "combined"}
#: Descriptions of networks that are trained besides the posteriors of the rounds.
MODELS = ("field/field.json", "separator/separator.json", "contest/*/posterior/posterior.json")
#: File that says from which round on rounds are left out by ``[inference] stop_at``.
LEFT_OUT = Path("rounds") / "left-out.json"
#: Name of the page in a run folder, and what its last line begins with.
PAGE, PAGE_OF = "report.html", "<!-- of results "


def read_chains(out: Path) -> dict[str, Samples]:
    """Read the chains of the steps by name."""
    return {name: Samples.read(out / "chains" / name) for name in CHAINS if (out / "chains" / f"{name}.txt").exists()}


def read_all_chains(out: Path, problems: list[str]) -> dict[str, Samples]:
    """Read the chains of the steps by name, and after them those that somebody put beside them.

    A line is added to `problems` for each chain that cannot be read and is left out.
    """
    folder = out / "chains"
    names = [name for name in CHAINS if (folder / f"{name}.txt").exists()]
    there = {path.name.removesuffix(".paramnames") for path in folder.glob("[!.]*.paramnames")}
    names += sorted(there - {*CHAINS})
    chains, tables = {}, set()
    for name in names:
        tables |= {*chain_tables(folder / name)}
        try:
            chains[name] = Samples.read(folder / name)
        except InputError as error:
            anew = ". Remove it, and its step makes it anew" if name in CHAINS else ""
            problems.append(f"{error}; it is left out{anew}")
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix == ".txt" and path not in tables:
            problems.append(f"{path}: there is no file of its parameters' names, .paramnames; it is left out")
        elif path.suffix in OTHER_FORMATS and path.suffix not in (".h5", ".hdf5"):  # those are emcee's
            problems.append(f"{path}: chains are text files in getdist's format; it is left out")
    return chains


def corners(chains: dict[str, Samples], names: Sequence[str]) -> dict[str, list[Samples]]:
    """Sort chains into corner plots; `names` are those of all parameters of the run.

    Returns
    -------
    dict
        Chains by the name of the picture: ``corner`` has all chains of all parameters, ``corner-NAME`` a chain of
        some parameters or of another quantity (a neutral fraction).
    """
    whole = [chain for chain in chains.values() if chain.names == list(names)]
    pictures = {"corner": whole} if whole else {}
    for name, chain in chains.items():
        if chain.names != list(names):
            others = [w.only(chain.names) for w in whole if set(chain.names) <= set(w.names)]
            pictures[f"corner-{name}"] = [chain, *others]
    return pictures


def true_values(truth: dict[str, float] | None, samples: Samples) -> NDArray[np.float64] | None:
    """Pick the true values (P,) of a chain's parameters; None if one is not known."""
    names = samples.names
    return np.array([truth[name] for name in names]) if truth and set(names) <= truth.keys() else None


def read_rounds(out: Path) -> list[dict[str, Any]]:
    """Read the facts of each round's posterior: simulations, volume, fits, seconds."""
    return [read_json(path)["facts"] for path in sorted((out / "rounds").glob("*/posterior/posterior.json"))]


def outdated(
    validation: dict[str, Any], rounds: Sequence[dict[str, Any]], flow: dict[str, Any], combined: dict[str, Any]
) -> str | None:
    """Name what was trained again after its validation; None if nothing was.

    Parameters
    ----------
    validation
        Content of ``validation.json``; empty without one. An earlier version's does not say which posterior it was of.
    rounds, flow, combined
        Facts of each round's posterior, of the image flow, and of the chain of both.
    """
    of = validation.get("posterior")
    if of is None:
        return None
    method = validation.get("method", "npe")
    if method == "npe":
        return "posterior" if rounds and of != rounds[-1]["key"] else None
    if method == "combined":
        return "combined posterior" if of != combined.get("posterior") else None
    return "image flow" if of != flow.get("weighed", flow.get("key")) else None


def read_sampled(out: Path) -> dict[str, dict[str, Any] | None]:
    """Read steps, convergence and seconds of each method that samples a chain; None for a chain that is not there."""
    folder = out / "chains"
    there = {method: name for method, name in SAMPLED.items() if (folder / f"{name}.txt").exists()}
    return dict.fromkeys(SAMPLED) | {method: _json(folder / f"{name}.json") or None for method, name in there.items()}


@dataclass(frozen=True)
class RunFolder:
    """Contents of a run folder, read once; None or empty for a step that was not run.

    Attributes
    ----------
    out
        Path of the folder.
    config_text, config
        ``config.toml`` as text, and its tables.
    observation
        Observed cube of the run.
    chains
        Posterior samples by name, including chains that others put there.
    validation, summary
        Contents of the JSON files of these names.
    check
        Comparison of the observation with the simulations.
    rounds
        Facts of each round's posterior.
    sampled
        Facts of each sampled chain.
    trained
        Facts of the image flow, of a separator, and of the networks of a contest, by their folder.
    bank
        Counts, sizes and reasons of the bank.
    contest
        Contest between methods.
    problems
        A line for each part that could not be read, and is left out.
    prior
        Prior, where it is not flat.
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
    problems: list[str]
    prior: Prior | None = None

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
        problems: list[str] = []
        chains = read_all_chains(out, problems)

        def kept(read: Callable[[], T], otherwise: T) -> T:
            """Read a part of the folder; one that cannot be read is left out of the page, which says so."""
            try:
                return read()
            except (InputError, WorkError, *MISSHAPEN) as error:
                what = str(error) if isinstance(error, InputError | WorkError) else f"{out}: {_words(error)}"
                problems.append(f"{what}; it is left out")
                return otherwise

        file = out / "config.toml"
        text = read_text(file, links=False) if os.path.lexists(file) else ""
        config = parse_toml(file, text)
        nothing: dict[str, Any] = {}
        summary = kept(lambda: _json(out / "summary.json"), nothing)
        observed, contest = out / "observation.h5", contest_file(out)
        run = cls(
            out,
            text,
            config,
            kept(lambda: Observation.read_unchecked(observed), None) if observed.exists() else None,
            chains,
            kept(lambda: _json(out / "validation.json"), nothing),
            summary,
            kept(lambda: (_json(out / "chains" / "npe.json") or summary).get("misspecification"), None),
            kept(lambda: read_rounds(out), []),
            kept(lambda: read_sampled(out), dict.fromkeys(SAMPLED)),
            kept(lambda: read_models(out), {}),
            kept(lambda: _read_bank(out, config), None),
            None if contest is None else Contest.read(contest),
            problems,
            kept(lambda: Prior.read(out), None),
        )
        if not (text or run.chains or run.contest):
            if problems:
                raise InputError(problems[0])
            raise InputError(f"{out}: holds no run and no contest: no config.toml, no chains and no {CONTEST}")
        return run

    @property
    def alarm(self) -> dict[str, Any] | None:
        """Comparison of the observation with the images that the image flow was trained on."""
        return (self.sampled["field_flow"] or {}).get("misspecification")

    @property
    def odds(self) -> dict[str, float]:
        """Odds of the worlds for the observation; empty where they were not asked for."""
        return self.summary.get("world_odds") or {}

    @property
    def outdated(self) -> str | None:
        """What was trained again after its validation, see `outdated`."""
        return outdated(self.validation, self.rounds, self.trained.get("field", {}), self.sampled["combined"] or {})

    @property
    def summary_is_old(self) -> bool:
        """Whether ``summary.json``, and the pictures that are made with it, are of earlier posteriors."""
        of_steps = {name: chain for name, chain in self.chains.items() if name in CHAINS}
        return bool(self.summary) and not is_of(self.summary, of_steps)

    @property
    def key(self) -> str:
        """Hash of the results, see `results_key`."""
        return results_key(self.chains, self.observation, self.validation)

    @property
    def only_contest(self) -> bool:
        """Whether the folder has a contest, and no run beyond its first simulations."""
        return self.contest is not None and not (self.rounds or {"npe", "mcmc"} & self.chains.keys())

    @property
    def truth(self) -> dict[str, float] | None:
        """True parameters of a mock by name."""
        if named := self.config.get("observation", {}).get("theta"):
            return dict(named) | read_true_targets(self.out)
        if self.observation is None or self.observation.theta is None:
            return None
        theta = self.observation.theta
        names = next((chain.names for chain in self.chains.values() if len(chain.names) == len(theta)), [])
        return dict(zip(names, map(float, theta), strict=False)) or None


def results_key(chains: Mapping[str, Samples], observation: Observation | None, validation: Mapping[str, Any]) -> str:
    """Hash what a page shows before all else: the posteriors of the steps, of which observation, and the verdict."""
    return fingerprint_of(
        {
            "chains": {name: [c.mean.tolist(), c.std.tolist()] for name, c in chains.items() if name in CHAINS},
            "observation": None if observation is None else observation.digest,
            "verdict": validation.get("verdict"),
        }
    )


def page_is_old(out: Path, key: str) -> bool:
    """Whether the page of a folder is of other results than those of this key; pages of older versions do not say."""
    file = out / PAGE
    last = file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-1:] if file.is_file() else []
    return bool(last) and last[0].startswith(PAGE_OF) and last[0] != page_line(key)


def page_line(key: str) -> str:
    """Return the last line of a page of results of this key."""
    return f"{PAGE_OF}{key} -->"


def read_models(out: Path) -> dict[str, dict[str, Any]]:
    """Read the facts of the networks by their folder."""
    paths = [path for file in MODELS for path in sorted(out.glob(file))]
    return {str(path.parent.relative_to(out)): read_json(path)["facts"] for path in paths}


def _read_bank(out: Path, config: dict[str, Any]) -> BankFacts | None:
    bank = Path(config.get("bank", {}).get("path", out / "bank"))
    return BankFacts.from_bank(Bank.open(bank)) if (bank / "bank.json").exists() else None


def _words(error: Exception) -> str:
    """Say what an error of a misshapen file is about."""
    return f"lacks {error}" if isinstance(error, KeyError) else f"is misshapen ({error})"


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
