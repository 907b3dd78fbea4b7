"""External data as weights of simulations: optical depth, neutral fraction and UV luminosity functions.

The forms are those of 21CMMC (Greig & Mesinger 2015, arXiv 1501.06576). The observables are those that a bank keeps
beside the image; each row has its own, sample variance included.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.reading import read_text
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import PRIOR_ROUND
from simulators import Observable

#: Effective rows that a joint prior needs for each parameter.
ROWS_PER_PARAMETER = 10
#: Difference in redshift up to which a luminosity function of the bank is that of a line of the file.
NEAR = 0.05
#: Luminosity functions below this (1/Mpc3/mag) count as it, so that they have a logarithm.
FAINT = 1e-30


@dataclass(frozen=True)
class External:
    """Data that are not images.

    Attributes
    ----------
    optical_depth
        Mean and standard deviation: normal.
    neutral_fraction
        Redshift, upper limit and its standard deviation: all fractions below the limit are as likely, those above
        fall like a normal around it (McGreer+2015, arXiv 1411.5375: 0.06 and 0.05 at z = 5.9).
    luminosity_function
        File of redshift, magnitude, density (1/Mpc3/mag) and its standard deviation: normal, in each line.
    """

    optical_depth: tuple[float, float] | None = None
    neutral_fraction: tuple[float, float, float] | None = None
    luminosity_function: Path | None = None

    def log_likelihood(self, bank: Bank, rows: Rows) -> NDArray[np.float64]:
        """Log likelihood (n,) of the data at each row, up to a constant.

        Raises
        ------
        InputError
            If nothing is given, the bank lacks an observable, or a number makes no sense.
        """
        found: list[NDArray[np.float64]] = []
        if self.optical_depth is not None:
            mean, sigma = self.optical_depth
            _refuse(sigma, "--optical-depth")
            depth = bank.read(_observable(bank, "optical_depth").name, rows)[:, 0, 0].astype(np.float64)
            found.append(-0.5 * ((depth - mean) / sigma) ** 2)
        if self.neutral_fraction is not None:
            redshift, limit, sigma = self.neutral_fraction
            _refuse(sigma, "--neutral-fraction")
            above = np.maximum(neutral_fraction(bank, rows, redshift) - limit, 0.0)
            found.append(-0.5 * (above / sigma) ** 2)
        if self.luminosity_function is not None:
            found.append(_luminosity(bank, rows, self.luminosity_function))
        if not found:
            raise InputError("give --optical-depth, --neutral-fraction or --luminosity-function")
        return np.asarray(np.sum(found, axis=0))


def weighed(bank: Bank, prior: Prior, external: External) -> Samples:
    """Weigh the rows that were drawn from a prior by the likelihood of external data: the prior given the data.

    Raises
    ------
    InputError
        If there are too few rows, or too few of them count.
    """
    plans = [p for p in bank.plans() if p.number == PRIOR_ROUND and p.proposal == prior.hash()]
    rows = bank.rows(plans).ok
    if not len(rows):
        raise InputError(f"{bank.path}: has no simulations from the prior of the config")
    log_l = external.log_likelihood(bank, rows)
    weights = np.exp(log_l - log_l.max())
    effective, wanted = weights.sum() ** 2 / np.square(weights).sum(), ROWS_PER_PARAMETER * len(prior.parameters)
    if effective < wanted:
        raise InputError(
            f"{bank.path}: {effective:.0f} of {len(rows)} simulations count under these data, {wanted} are needed; "
            "simulate more, or narrow [prior] to where the data are"
        )
    return Samples(rows.theta, weights, prior.parameters, "prior with external data", correlated=False)


def neutral_fraction(bank: Bank, rows: Rows, redshift: float) -> NDArray[np.float64]:
    """Mean neutral fraction (n,) of each row at a redshift, linear between those of the history."""
    observable = _observable(bank, "global_neutral_fraction")
    history = np.array(observable.coordinates)
    if not history.min() <= redshift <= history.max():
        raise InputError(
            f"{bank.path}: the history is known from z = {history.min():g} to {history.max():g}, not at {redshift:g}"
        )
    order = np.argsort(history)
    values = bank.read(observable.name, rows)[:, 0].astype(np.float64)
    return np.array([np.interp(redshift, history[order], row[order]) for row in values])


def _luminosity(bank: Bank, rows: Rows, file: Path) -> NDArray[np.float64]:
    observable = _observable(bank, "luminosity_function")
    try:
        lines = [line.replace(",", " ").split() for line in read_text(file).splitlines()]
        table = np.array([[float(x) for x in line] for line in lines if line and not line[0].startswith("#")])
        if table.ndim != 2 or table.shape[1] != 4 or not np.isfinite(table).all() or (table[:, 3] <= 0).any():
            raise ValueError("it has other columns, or a standard deviation that is not above 0")
    except ValueError as error:
        raise InputError(f"{file}: must be redshift, magnitude, density, standard deviation ({error})") from error
    logs = np.log10(np.maximum(bank.read(observable.name, rows).astype(np.float64), FAINT))
    log_l = np.zeros(len(rows))
    magnitudes = np.array(observable.coordinates)
    order = np.argsort(magnitudes)
    if (beyond := (table[:, 1] < magnitudes.min()) | (table[:, 1] > magnitudes.max())).any():
        raise InputError(
            f"{file}: M_UV = {table[beyond][0, 1]:g}, but the bank has luminosity functions from "
            f"{magnitudes.min():g} to {magnitudes.max():g} mag; leave out what is beyond"
        )
    for redshift, magnitude, density, sigma in table:
        channel = int(np.argmin(np.abs(np.array(observable.channels) - redshift)))
        if abs(observable.channels[channel] - redshift) > NEAR:
            there = ", ".join(f"{z:g}" for z in observable.channels)
            raise InputError(f"{file}: z = {redshift:g}, but the bank has luminosity functions at z = {there}")
        model = 10 ** np.array([np.interp(magnitude, magnitudes[order], row[order]) for row in logs[:, channel]])
        log_l -= 0.5 * ((model - density) / sigma) ** 2
    return log_l


def _observable(bank: Bank, name: str) -> Observable:
    for observable in bank.observables:
        if observable.name == name:
            return observable
    there = ", ".join(o.name for o in bank.observables)
    raise InputError(f"{bank.path}: keeps {there}, but no {name}; name it in [simulator] observables")


def _refuse(sigma: float, option: str) -> None:
    if not sigma > 0:
        raise InputError(f"{option}: the last number is a standard deviation, above 0 (given: {sigma:g})")
