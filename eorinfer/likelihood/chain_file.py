"""A chain of emcee that is kept: in memory while it runs, and whole in a file every few seconds.

emcee's own backend changes its file in place at every step. A kill or a full disk in the course of that leaves a file
that cannot be read, or one whose step, random state and number of accepted proposals belong to different moments.
"""

import os
import time
from pathlib import Path
from typing import Any

import emcee
import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.files import whole_hdf5
from eorinfer.core.hdf5 import opened
from eorinfer.core.progress import Progress
from eorinfer.core.reading import ForeignFileError, refuse_foreign, refuse_surroundings

#: Second name of the present chain's group: the one that emcee opens by default.
PRESENT = "mcmc"
#: Seconds between two writes, at least; and how much longer than a write they are apart.
EVERY, TIMES_A_WRITE = 2.0, 20.0


class KeptBackend(emcee.backends.Backend):
    """A backend of emcee in memory, which writes itself whole, in the layout of emcee's `HDFBackend`.

    The chain that was written last also has the name that ``HDFBackend(file)`` opens by default.

    Parameters
    ----------
    file
        HDF5 file, which may have chains of other names; None keeps the chain in memory alone.
    name
        Name of the chain's group in the file.

    Attributes
    ----------
    seconds, evaluations
        Seconds and evaluations of the likelihood that the chain took up to now, in all calls.
    """

    def __init__(self, file: Path | None, name: str) -> None:
        super().__init__()
        self._file, self._name = file, name
        self._written, self._pause = time.monotonic(), EVERY
        self._spent, self._began = 0.0, time.monotonic()
        self.evaluations = 0
        self._state: dict[str, Any] | None = None
        if file is not None and file.exists():
            with opened(file) as content:
                if name in content and content[name].attrs["iteration"]:
                    self._read(content[name])

    def _read(self, group: h5py.Group) -> None:
        self.reset(int(group.attrs["nwalkers"]), int(group.attrs["ndim"]))
        self.iteration = int(group.attrs["iteration"])
        self.chain, self.log_prob = (group[name][: self.iteration] for name in ("chain", "log_prob"))
        self.accepted = group["accepted"][:]
        self.random_state = [group.attrs[f"random_state_{i}"] for i in range(5)]
        # Chains of emcee's own backend do not say what they cost.
        self._spent, self.evaluations = float(group.attrs.get("seconds", 0.0)), int(group.attrs.get("evaluations", 0))

    @property
    def seconds(self) -> float:
        return self._spent + time.monotonic() - self._began

    def save_step(self, state: emcee.State, accepted: NDArray[np.bool_]) -> None:
        """Take a step, as emcee asks; write the file where the last time is long ago."""
        super().save_step(state, accepted)
        # One assignment: an interrupt cannot leave a part of it.
        self._state = self._now()
        if time.monotonic() - self._written > self._pause:
            self.write()

    def _now(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "accepted": self.accepted.copy(),
            "random_state": self.random_state,
            "evaluations": self.evaluations,
        }

    def be_present(self) -> None:
        """Give this chain the name `PRESENT` in its file, where another one has it, or none.

        Raises
        ------
        WorkError
            As `write`.
        """
        if self._file is None or not self._file.exists():
            return
        with opened(self._file) as content:
            there = self._name in content
            named = PRESENT in chains_in(content) or (
                PRESENT in content and content[PRESENT] == content.get(self._name)
            )
        if there and not named:
            self._state = self._now()
            self.write()

    def write(self) -> None:
        """Write the chain up to the last whole step; chains of other names stay in the file.

        Raises
        ------
        WorkError
            If the disk is full or cannot be written; the file stays as it was.
        """
        if self._file is None or self._state is None:
            return
        began, state = time.monotonic(), self._state
        with whole_hdf5(self._file) as content:
            if self._file.exists():
                with opened(self._file) as before:
                    for name in chains_in(before):
                        if name != self._name:
                            before.copy(name, content)
            group, done = content.create_group(self._name), state["iteration"]
            group.attrs.update(version=emcee.__version__, nwalkers=self.nwalkers, ndim=self.ndim, has_blobs=False)
            group.attrs.update(iteration=done, seconds=self.seconds, evaluations=state["evaluations"])
            for i, element in enumerate(state["random_state"]):
                group.attrs[f"random_state_{i}"] = element
            group["accepted"] = state["accepted"]
            for name in ("chain", "log_prob"):
                values = getattr(self, name)[:done]
                group.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
            if PRESENT not in content:
                content[PRESENT] = group
        self._state, self._written = None, time.monotonic()
        self._pause = max(EVERY, TIMES_A_WRITE * (self._written - began))


def chains_in(content: h5py.File) -> list[str]:
    """List the chains of a file, each by one name; `PRESENT` only if it is a chain that has no other."""
    names = [name for name in content if name != PRESENT]
    second = PRESENT in content and any(content[PRESENT] == content[name] for name in names)
    return names + [PRESENT] * (PRESENT in content and not second)


def open_chain(file: Path, name: str, progress: Progress) -> KeptBackend:
    """Open the chain of this name in a file; one that a kill or a full disk left unreadable is set aside.

    Raises
    ------
    WorkError
        If the operating system refused to read the file: then it may be whole.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(file):
        try:
            refuse_foreign(file)
            with opened(file) as content:
                for chain in chains_in(content):
                    _check(content[chain])
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, ForeignFileError) as error:
            refuse_surroundings(file, error)
            aside = file.with_name(f"damaged-{file.name}")
            os.replace(file, aside)
            progress.line(
                f"{file}: cannot be read ({str(error).splitlines()[0]}); it is set aside as {aside.name}, "
                "the chain starts afresh"
            )
    return KeptBackend(file, name)


def _check(group: h5py.Group) -> None:
    """Read all of a chain, which fails where it is damaged.

    Raises
    ------
    ValueError
        If steps are missing.
    """
    attributes = dict(group.attrs)
    done = int(attributes["iteration"])
    shape = (done, int(attributes["nwalkers"]), int(attributes["ndim"]))
    chain, log_prob, _ = (group[name][:done] for name in ("chain", "log_prob", "accepted"))
    if chain.shape != shape or log_prob.shape != shape[:2]:
        raise ValueError(f"{len(chain)} of {done} steps are in it")
    if not done:
        return
    # What a full disk took reads as zeros; walkers never are all at one place.
    if (np.ptp(chain, axis=1) == 0).all(-1).any():
        raise ValueError("steps are missing in it")
    for i in range(5):
        attributes[f"random_state_{i}"]
