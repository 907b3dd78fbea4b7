"""Matplotlib without a window and without a cache in the home folder, and writers of its figures."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder, scratch_folder, whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eorinfer.cubes.observation import Observation
    from simulators import Observable

#: Pixels in an inch of a figure.
DOTS_PER_INCH = 150
#: Options of `Figure.savefig`.
SAVED: dict[str, Any] = {"bbox_inches": "tight", "dpi": DOTS_PER_INCH}


@dataclass(frozen=True)
class Look:
    """Colour, line and place of a method in every figure.

    Attributes
    ----------
    colour
        Of lines, points and contours.
    image
        Whether it sees whole images: then a corner plot fills it. None for a method that this package does not know.
    """

    colour: str
    image: bool | None = None


#: Looks by the beginning of a label; the first that fits counts.
LOOKS = {
    "NPE on image and P(k)": Look("#7b4fa3", True),
    "NPE on image": Look("#1f5fa8", True),  # also of "images"
    "NPE on the image": Look("#1f5fa8", True),
    "sequential NPE": Look("#17a2b8", True),
    "image flow": Look("#3a8f4d", True),
    "NPE and image flow": Look("#d7263d", True),
    "CNN regression": Look("#b5367a", True),
    "power-spectrum": Look("#d2691e", False),
    "P(k), covariance of θ": Look("#d2691e", False),
    "P(k), diagonal": Look("#8c8c8c", False),
    "P(k), fixed": Look("#c2a36b", False),
    "P(k), neural": Look("#a3553a", False),
    "P(k⊥, k∥)": Look("#e0a13a", False),
    "NPE on P(k)": Look("#8c5a2b", False),
    "NPE on scattering": Look("#5f7a1f", False),
    "NPE on the summaries": Look("#5b8a9e", False),
    "NPE, trained on one world": Look("#4c78a8", True),
    "NPE, features aligned": Look("#9467bd", True),
    "NPE, features with an error": Look("#2ca089", True),
    "NPE, half with and half without": Look("#b8860b", True),
    "simulator in emcee's loop": Look("#e377c2", False),
    "exact likelihood, by": Look("#777777", False),
    "exact": Look("#222222", False),
}
#: Colours of other methods.
SPARE = ("#c2456b", "#1a9c9c", "#8c6d31", "#b5b52b", "#9e9e9e")


def looks(labels: Sequence[str]) -> list[Look]:
    """Choose the look of each method of a figure by its label; no two known ones are alike."""
    chosen: list[Look] = []
    spare = cycle(SPARE)
    for label in labels:
        look = next((look for start, look in LOOKS.items() if label.startswith(start)), None)
        chosen.append(Look(next(spare)) if look is None or look in chosen else look)
    return chosen


def keep_matplotlib_out_of_home() -> None:
    """Set matplotlib up for the command line: no window, and a cache of its own in a temporary folder.

    Call it before anything imports matplotlib, as sbi does. Figures made from Python leave matplotlib as it is.
    """
    os.environ["MPLBACKEND"] = "Agg"
    if "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = str(scratch_folder())


def new_figure(**options: Any) -> "Figure":
    """Make a figure that no window shows and pyplot does not know; `options` are those of `Figure`."""
    from matplotlib.figure import Figure

    return Figure(**options)


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any) -> tuple["Figure", Any]:
    """Make a figure with a grid of axes, as `matplotlib.pyplot.subplots` does; `figsize` is in inches."""
    figure = new_figure(figsize=figsize, layout=options.pop("layout", None))
    return figure, figure.subplots(rows, columns, **options)


def logarithmic_k(axis: "Axes") -> None:
    """Make the x axis one of wavenumbers: logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(r"$k$ [Mpc$^{-1}$]")


def channel_name(cube: "Observation | Observable", channel: int) -> str:
    """Name a channel by its redshift, its wavelength in micrometres, what a light-cone spans, or its number."""
    axis, value, span = cube.axes[0], cube.channels[channel], cube.coordinates
    if axis == "redshift":
        return f"z = {value:g}"
    if axis == "channel" and span and cube.axes[-1] in ("frequency", "z"):
        ends = f"{span[0]:.4g} to {span[-1]:.4g}"
        return f"{ends} MHz" if cube.axes[-1] == "frequency" else f"z = {ends}"
    return f"{value:.4g} µm" if axis == "wavelength" else f"{axis} {value:g}"


@contextmanager
def without_tex() -> Iterator[None]:
    """Draw by matplotlib's own fonts: a user's ``text.usetex`` needs a LaTeX that may not be there."""
    import matplotlib

    with matplotlib.rc_context({"text.usetex": False}), warnings.catch_warnings():
        # getdist 1.7.7, under python -W error
        warnings.filterwarnings("ignore", "The format attribute was deprecated")
        yield


def is_mathtext(text: str) -> bool:
    """Tell whether matplotlib draws a text with formulas between dollar signs, instead of ending with an error."""
    from matplotlib.mathtext import MathTextParser

    try:
        for line in text.splitlines():  # each is drawn by itself
            MathTextParser("path").parse(line)
    except (ValueError, RuntimeError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return False
    return True


def drawable(label: str, name: str) -> str:
    """Return a LaTeX label where matplotlib can draw it; else the name, as upright text.

    A name is no LaTeX: ``a_b_c`` would have two subscripts.
    """
    if label and "$" not in label and is_mathtext(f"${label}$"):
        return label
    special = {"_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "{": r"\{", "}": r"\}", "$": r"\$", " ": r"\ "}
    plain = "".join(special.get(c, "" if c in "^~\\" else c) for c in name)
    return rf"\mathrm{{{plain}}}"


@contextmanager
def going_on(what: Path | str, say: Callable[[str], None]) -> Iterator[None]:
    """Go on after a picture that cannot be drawn, and say which; what the user or the disk did still ends the step.

    Of a picture whose file is given none of before stays, as PNG or PDF. One that cannot be written leaves it.
    """
    try:
        yield
    except (InputError, WorkError):
        raise
    except Exception as error:  # matplotlib and getdist raise anything
        lines = str(error).strip().splitlines() or [""]
        if isinstance(what, Path):
            for suffix in (".png", ".pdf"):
                what.with_suffix(suffix).unlink(missing_ok=True)
        name = what.name if isinstance(what, Path) else what
        say(f"{name}: cannot be drawn ({type(error).__name__}: {lines[-1].strip()[:200]})")


def settle(figure: "Figure") -> "Figure":
    """Lay a constrained figure out once: each file would do it again, and a tight one otherwise than the first."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save_figure(figure: "Figure", root: Path) -> None:
    """Write ``ROOT.png`` and ``ROOT.pdf`` whole, and close the figure."""
    for suffix in (".png", ".pdf"):
        _write(figure, root.with_suffix(suffix))
    _close(figure)


def write_figure(figure: "Figure", file: Path) -> None:
    """Write one picture whole, as PNG or PDF by its name, and close the figure.

    Raises
    ------
    InputError
        If the name does not end in ``.png`` or ``.pdf``, or its folder cannot be written.
    """
    if file.suffix not in (".png", ".pdf"):
        raise InputError(f"{file}: pictures are .png or .pdf files")
    make_folder(file.parent)
    _write(figure, file)
    _close(figure)


def png_bytes(figure: "Figure") -> bytes:
    """Return the content of the PNG file that `write_figure` would write, and close the figure."""
    buffer = io.BytesIO()
    _save(figure, buffer, "png")
    _close(figure)
    return buffer.getvalue()


def _write(figure: "Figure", file: Path) -> None:
    with whole_file(file) as path:
        _save(figure, path, file.suffix[1:])


def _save(figure: "Figure", file: Path | io.BytesIO, kind: str) -> None:
    from matplotlib.text import Text

    with without_tex():
        for text in figure.findobj(Text):
            text.set_usetex(False)
            if "$" in text.get_text() and not is_mathtext(text.get_text()):
                text.set_parse_math(False)
        figure.savefig(file, format=kind, **SAVED)


def _close(figure: "Figure") -> None:
    """Close a figure that pyplot knows, as getdist's are."""
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
