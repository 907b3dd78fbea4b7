"""Figures made from Python leave the caller's matplotlib as it is."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eorinfer import Observation, Samples, corner
from eorinfer.figures.style import channel_name, is_mathtext, save_figure, subplots
from simulators import Observable, Parameter, Symmetry

#: In a process of its own, as matplotlib's backend is chosen once.
LEAVES = """
import os
import sys
from dataclasses import replace
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["lines.linewidth"] = 7.0
before = dict(matplotlib.rcParams), os.environ.get("MPLCONFIGDIR"), os.environ.get("MPLBACKEND")
import numpy as np
from eorinfer import Samples, corner
from eorinfer.figures.style import save_figure, subplots
from pathlib import Path
from simulators import Observable, Parameter, Symmetry
samples = Samples.unweighted(np.random.default_rng(1).normal(size=(500, 1)), (Parameter("a", "a", -5, 5, 0),), "x")
corner(samples)
save_figure(subplots(figsize=(3, 3))[0], Path(sys.argv[1]) / "empty")
assert matplotlib.get_backend() == "svg", matplotlib.get_backend()
after = dict(matplotlib.rcParams), os.environ.get("MPLCONFIGDIR"), os.environ.get("MPLBACKEND")
assert after == before, [k for k in before[0] if before[0][k] != after[0][k]]
"""


@pytest.mark.job
def test_backend_settings_and_folders_stay(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVES, str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"empty.png", "empty.pdf"}


def test_a_title_of_several_lines_is_checked_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    assert is_mathtext("$a=1$\n$b=2$")
    assert not caplog.records, "no warning of a font that lacks a line break"
    assert not is_mathtext("$a=1$\n$\\nothing$")


@pytest.mark.job
def test_tex_that_a_user_asked_for_everywhere_ends_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    monkeypatch.setenv("PATH", "")  # no LaTeX to be found
    with matplotlib.rc_context({"text.usetex": True}):
        figure, axis = subplots(figsize=(3, 3))
        axis.set(xlabel="k [1/Mpc]", title=r"$\log_{10} f_\mathrm{esc}$")
        save_figure(figure, tmp_path / "plain")
        samples = np.random.default_rng(1).normal(size=(500, 2))
        parameters = (Parameter("a", r"\alpha_*", -5, 5, 0), Parameter("b", "b", -5, 5, 0))
        save_figure(corner(Samples.unweighted(samples, parameters, "x")), tmp_path / "corner")
        assert matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "corner.png").stat().st_size > 1000


def test_a_channel_is_named_with_its_unit() -> None:
    sky = np.zeros((2, 4, 4))
    assert channel_name(Observation.from_array(sky, cell_size=1.0, wavelengths=[1.509, 2.0]), 0) == "1.509 µm"
    assert channel_name(Observation.from_array(sky, cell_size=1.0, redshifts=[7.0, 8.5]), 1) == "z = 8.5"
    assert channel_name(Observation.from_array(sky[0], cell_size=1.0), 0) == "channel 0"
    axes, symmetry = ("channel", "x", "y", "z"), Symmetry((False,) * 3, "none")
    cone = Observable("t", (1, 4, 4, 3), "mK", axes, (1.0,) * 3, (0.0,), symmetry, (7.0, 7.5, 8.0))
    assert channel_name(cone, 0) == "z = 7 to 8"
    slices = replace(cone, axes=("channel", "x", "y", "frequency"), coordinates=(158.0, 160.0, 162.4))
    assert channel_name(slices, 0) == "158 to 162.4 MHz"
