"""Samples of a posterior, the result of every method, and getdist's chain files."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eorinfer.core.chains import read_chain, with_suffix
from eorinfer.core.digits import aligned, decimals
from eorinfer.core.files import whole_file
from simulators import Parameter

if TYPE_CHECKING:
    import arviz
    import pandas
    from getdist import MCSamples


@dataclass(frozen=True)
class Samples:
    """Weighted samples of a posterior.

    Attributes
    ----------
    values
        (n, P).
    weights
        (n,), not normalised.
    parameters
        The P parameters; their `low` and `high` are the prior's.
    label
        Name of the method, for legends.
    correlated
        True for samples of a Markov chain.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import Samples
    >>> from simulators import Parameter
    >>> values = np.random.default_rng(1).normal(0.5, 0.1, (1000, 1))
    >>> samples = Samples.unweighted(values, [Parameter("x", "x", 0.0, 1.0, 0.5)], "mine")
    >>> round(float(samples.std[0]), 1)
    0.1
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    parameters: tuple[Parameter, ...]
    label: str
    correlated: bool = False

    def __post_init__(self) -> None:
        n, p = self.values.shape
        if p != len(self.parameters) or self.weights.shape != (n,):
            raise ValueError(
                f"values {self.values.shape} and weights {self.weights.shape} do not fit "
                f"{len(self.parameters)} parameters"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        width = max(len(name) for name in ["parameter", *self.names])
        low, high = self.interval()
        lines = [f"{self.label}: {len(self)} samples", f"{'parameter':{width}s}       mean        std  68% interval"]
        for name, mean, std, a, b in zip(self.names, self.mean, self.std, low, high, strict=True):
            lines.append(f"{name:{width}s} {mean:10.4g} {std:10.3g}  {a:.4g} to {b:.4g}")
        return "\n".join(lines)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return the values (n,) of the parameter `name`; `weights` belong to them.

        Raises
        ------
        KeyError
            If no parameter has this name; the message lists the names.
        """
        return self.values[:, self._column(name)]

    def __contains__(self, name: object) -> bool:
        """Tell whether a parameter has this name."""
        return name in self.names

    #: Over samples, or over names? `values` and `names` say which.
    __iter__ = None

    def _column(self, name: str) -> int:
        """Return the place of a parameter."""
        if name not in self.names:
            raise KeyError(f"{name!r} is no parameter of these samples, which have {', '.join(self.names)}")
        return self.names.index(name)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float64]:
        """Return the values (n, P) for NumPy.

        Raises
        ------
        ValueError
            If the samples have unequal weights, which an array would lose.
        """
        if np.ptp(self.weights) > 0:
            raise ValueError(
                f"{self.label}: these samples have weights, which an array would lose; "
                "take resample(n, seed), or values and weights"
            )
        return np.array(self.values, dtype=dtype, copy=copy)

    @classmethod
    def unweighted(
        cls,
        values: NDArray[np.float64],
        parameters: Sequence[Parameter],
        label: str,
        correlated: bool = False,
    ) -> "Samples":
        """Make samples of weight one."""
        values = np.asarray(values, np.float64)
        return cls(values, np.ones(len(values)), tuple(parameters), label, correlated)

    @property
    def names(self) -> list[str]:
        """Names of the P parameters."""
        return [p.name for p in self.parameters]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean (P,)."""
        return np.asarray(np.average(self.values, axis=0, weights=self.weights))

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance (P, P); NaN of a single sample."""
        if len(self.values) < 2:
            return np.full((len(self.names), len(self.names)), np.nan)
        return np.atleast_2d(np.cov(self.values, rowvar=False, aweights=self.weights))

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviations (P,)."""
        return np.sqrt(np.diag(self.covariance))

    def quantile(self, q: float) -> NDArray[np.float64]:
        """Return the marginal quantiles (P,)."""
        out = []
        for column in self.values.T:
            order = np.argsort(column)
            cumulative = np.cumsum(self.weights[order])
            out.append(np.interp(q * cumulative[-1], cumulative - self.weights[order] / 2, column[order]))
        return np.array(out)

    def interval(self, level: float = 0.68) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ends (P,) and (P,) of the equal-tailed marginal intervals."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def resample(self, n: int, seed: int) -> "Samples":
        """Draw n samples of weight one, with replacement and by weight."""
        rows = np.random.default_rng(seed).choice(len(self), n, p=self.weights / self.weights.sum())
        return replace(self, values=self.values[rows], weights=np.ones(n))

    def only(self, names: str | Sequence[str]) -> "Samples":
        """Return the samples of the named parameters, in this order.

        Raises
        ------
        KeyError
            If no parameter has one of the names; the message lists the names.
        """
        columns = [self._column(name) for name in ([names] if isinstance(names, str) else names)]
        return replace(self, values=self.values[:, columns], parameters=tuple(self.parameters[i] for i in columns))

    def table(self, style: Literal["text", "latex"] = "text") -> str:
        """Write mean, standard deviation and the 68 and 95% intervals of each parameter as a table.

        Parameters
        ----------
        style
            ``"text"``, or ``"latex"`` for a tabular environment.
        """
        if style not in ("text", "latex"):
            raise ValueError(f'style = "{style}": must be "text" or "latex"')
        bounds = [*self.interval(0.68), *self.interval(0.95)]
        head = ("mean", "std", "68% interval", "95% interval")
        rows = []
        for i, parameter in enumerate(self.parameters):
            digits = decimals(self.std[i])
            mean, std, *ends = (f"{v:.{digits}f}" for v in (self.mean[i], self.std[i], *(b[i] for b in bounds)))
            pairs = (f"{ends[0]} to {ends[1]}", f"{ends[2]} to {ends[3]}")
            rows.append((parameter.name, parameter.label, parameter.unit, mean, std, *pairs))
        if style == "latex":
            lines = [r"\begin{tabular}{lrrrr}", r"\hline"]
            lines.append(" & ".join(("parameter", *head)).replace("%", r"\%") + r" \\ \hline")
            for _, label, unit, *cells in rows:
                name = f"${label}$" + (f" [{_latex_text(unit)}]" if unit else "")
                lines.append(" & ".join((name, *(cell.replace("-", "$-$") for cell in cells))) + r" \\")
            return "\n".join([*lines, r"\hline", r"\end{tabular}"])
        texts = [("parameter", *head), *((name, *rest) for name, _, _, *rest in rows)]
        return "\n".join(aligned(texts))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a data frame with a column for each parameter, and a column ``weight``."""
        import pandas

        return pandas.DataFrame(self.values, columns=self.names).assign(weight=self.weights)

    def to_arviz(self) -> "arviz.InferenceData":
        """Return the samples as one chain for ArviZ, which must be installed.

        Raises
        ------
        ValueError
            If the samples have unequal weights, which ArviZ would lose.
        """
        import arviz

        values = np.asarray(self)
        return arviz.from_dict({name: values[None, :, i] for i, name in enumerate(self.names)})

    def density(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Marginal density (n,) of one parameter on a grid (n,) over its range, by getdist, edges heeded."""
        if np.ptp(self.only([name]).values) == 0:
            raise ValueError(f"{name} has one value in all samples")
        with without_advice():
            found = self.only([name]).to_getdist().get1DDensity(name)
        return np.asarray(found.x, np.float64), np.maximum(np.asarray(found.P, np.float64), 0.0)

    def to_getdist(self) -> "MCSamples":
        """Return the samples for getdist."""
        from getdist import MCSamples, chains

        chains.print_load_details = False  # it would print on standard output
        return MCSamples(
            samples=self.values,
            weights=self.weights,
            names=self.names,
            labels=[p.label for p in self.parameters],
            # Without ranges getdist halves the density at a prior's edge.
            ranges={p.name: [_end(p.low), _end(p.high)] for p in self.parameters},
            label=self.label,
            sampler="mcmc" if self.correlated else "uncorrelated",
            ignore_rows=0,
        )

    def write(self, root: Path) -> None:
        """Write ``ROOT.txt`` and beside it ``.paramnames``, ``.ranges`` and ``.properties.ini``."""
        root = _root(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        table = np.column_stack([self.weights, np.zeros(len(self)), self.values])
        with whole_file(with_suffix(root, ".txt")) as path:
            np.savetxt(path, table, fmt="%.10e")
        texts = {
            ".paramnames": "".join(f"{p.name}\t{p.label}\n" for p in self.parameters),
            ".ranges": "".join(f"{p.name}\t{p.low!r}\t{p.high!r}\n" for p in self.parameters),
            ".properties.ini": f"sampler = {'mcmc' if self.correlated else 'uncorrelated'}\n"
            f"burn_removed = T\nlabel = {self.label}\n",
        }
        for suffix, text in texts.items():
            with whole_file(with_suffix(root, suffix)) as path:
                path.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, root: Path) -> "Samples":
        """Read chain files in getdist's format, from `write` or another program.

        Raises
        ------
        InputError
            If a file is missing or malformed.
        """
        chain = read_chain(_root(root))
        return cls(chain.values, chain.weights, chain.parameters, chain.label, chain.correlated)


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence getdist's log lines on kernel widths, which matter only for posteriors as narrow as a pixel."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _root(root: Path) -> Path:
    """Return ROOT where the name of its table, ``ROOT.txt``, is given."""
    root = Path(root)
    return root.with_suffix("") if root.suffix == ".txt" else root


def _end(value: float) -> float | None:
    """Return the end of a range as getdist takes it, None where there is none."""
    return value if np.isfinite(value) else None


def _latex_text(text: str) -> str:
    """Escape the characters of a plain text that LaTeX reads as commands."""
    return "".join("\\" + c if c in "%&#_{}$" else {"^": r"\^{}", "\\": "/"}.get(c, c) for c in text)
