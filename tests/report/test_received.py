"""The page of a folder from somebody else: what cannot be read or drawn is named, and takes nothing else with it."""

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.samples import Samples
from eorinfer.figures import corner as drawing
from eorinfer.figures.style import drawable, is_mathtext, png_bytes, subplots
from eorinfer.report.write import write_report
from simulators import Parameter

EVIL = "</script><img src=x onerror=alert(1)>\"'"


def chains(folder: Path, label: str = "A", name: str = "a", method: str = "mine") -> Path:
    parameters = (Parameter(name, label, -5.0, 5.0, 0.0), Parameter("b", "b", -5.0, 5.0, 0.0))
    values = np.random.default_rng(0).normal(size=(400, 2))
    Samples.unweighted(values, parameters, method).write(folder / "chains" / "npe")
    return folder


def page(folder: Path, lines: list[str]) -> str:
    return unescape(write_report(folder, say=lines.append).read_text())


def test_chains_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    folder = chains(tmp_path) / "chains"
    (folder / "broken.paramnames").write_text("a\n")
    (folder / "broken.txt").write_text("1 0 nan\n")
    (folder / "bare.txt").write_text("1 0 1\n")
    (folder / "arviz.nc").write_bytes(b"CDF")
    lines: list[str] = []
    shown = page(tmp_path, lines)
    assert "What the posteriors say" in shown
    for name, reason in (
        ("broken.txt", "broken.txt: row 1: a is nan"),
        ("bare.txt", "there is no file of its parameters' names"),
        ("arviz.nc", "chains are text files in getdist's format"),
    ):
        (line,) = [line for line in lines if line.startswith(f"page: {folder}/{name}: ")]
        assert reason in line
        assert line.endswith("it is left out")
        assert line.removeprefix("page: ") in shown


@pytest.mark.parametrize("label", ["a_b_c", r"\frac{", "$x$", r"\unknown", "^", "x" * 300])
def test_a_label_that_cannot_be_drawn(tmp_path: Path, label: str) -> None:
    lines: list[str] = []
    shown = page(chains(tmp_path, label, method="costs $5 to $x_{"), lines)
    assert lines == []
    assert "Corner plot of a, b" in shown


def test_a_picture_that_fails_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("no such font")

    monkeypatch.setattr(drawing, "_plots", fails)
    lines: list[str] = []
    shown = page(chains(tmp_path), lines)
    assert lines == ["page: corner.png: cannot be shown whole (RuntimeError: no such font)"]
    assert "The picture corner.png cannot be drawn" in shown
    assert "What the posteriors say" in shown


def test_files_that_no_step_writes(tmp_path: Path) -> None:
    for name, content in (
        ("validation.json", {"verdict": 3}),
        ("summary.json", [1]),
        ("chains/mcmc.json", {"converged": False}),
        ("rounds/01/posterior/posterior.json", {}),
        ("field/field.json", {"facts": {"fits": 7}}),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "observation.h5").write_text("no HDF5")
    lines: list[str] = []
    shown = page(chains(tmp_path), lines)
    assert "What the posteriors say" in shown
    for word in ("observation.h5", "summary.json", "Calibration", "warnings", "Training", "facts"):
        assert any(word in line for line in lines), (word, lines)


def test_a_page_holds_no_file_that_a_link_leads_to(tmp_path: Path) -> None:
    figure, axis = subplots(figsize=(1, 1))
    axis.plot([0, 1])
    (tmp_path / "secret.png").write_bytes(png_bytes(figure))
    (tmp_path / "secret.toml").write_text("password = 'swordfish'\n")
    run = chains(tmp_path / "run")
    (run / "predictive.png").symlink_to(tmp_path / "secret.png")
    lines: list[str] = []
    shown = page(run, lines)
    assert any("predictive.png: is a symbolic link, not a file" in line for line in lines)
    assert shown.count("data:image/png") == 1, "the corner plot alone"
    (run / "predictive.png").unlink()
    (run / "predictive.png").write_text("swordfish")
    page(run, lines)
    assert "is no PNG file" in lines[-1]
    (run / "config.toml").symlink_to(tmp_path / "secret.toml")
    with pytest.raises(InputError, match=r"config\.toml: is a symbolic link, not a file"):
        write_report(run)


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(json.dumps({"a": EVIL}).replace('{"a": ', "a = ").rstrip("}"))
    name = "<b>a</b>"
    text = write_report(chains(tmp_path, name=name, method=EVIL)).read_text()
    assert EVIL not in text
    assert name not in text
    assert text.count("<script>") == text.count("</script>") == 1


def test_mathtext() -> None:
    assert is_mathtext(r"$\log_{10} f_{\rm esc}$")
    assert not is_mathtext("$a_b_c$")
    assert drawable(r"\alpha", "a") == r"\alpha"
    for name in ("a_b_c", "x{y", "50% of #1", "a^b~c\\d", "$"):
        assert is_mathtext(f"${drawable('', name)}$"), name
