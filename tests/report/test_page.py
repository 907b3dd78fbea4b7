"""What the page shows and how: cells and their order, drawings of every kind of observation, and escaping."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from eorinfer.core.observation import Observation
from eorinfer.report import drawings as page_figures
from eorinfer.report.cells import NOTHING, is_numeric, leading_number, shown, to_figures_of
from eorinfer.report.drawings import slices, training_curves
from eorinfer.report.page import Code, Facts, MissingStep, Notes, Page, Picture, Section, Table, Text, render
from simulators import Coeval, GaussianField, LightCone

COEVAL = Coeval(redshifts=(7.0, 8.5), cells=8, box_length=40.0).observables[0]
FLAT = GaussianField(cells=6).observables[0]
CONE = LightCone(
    cells=8, box_length=64.0, frequency_range=(150.0, 160.0), channels=20, transverse="angular"
).observables[0]
MAPS = replace(FLAT, shape=(10, 6, 6), axes=("wavelength", "x", "y"), channels=tuple(np.linspace(0.75, 5, 10)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.65 ± 0.09", 1.65),
        ("−0.4 to 0.3", -0.4),
        ("-3e-2", -0.03),
        ("> 12%", 12.0),
        ("1,234.5 s", 1234.5),
        (".5", 0.5),
        ("3/4", 3.0),
        ("2D P(k)", None),
        ("21cmFAST", None),
        ("4.2x", None),
        ("1.2.3", None),
        ("01-5a673ea541f0", None),
        ("1 × 32 × 32", None),
        ("NPE", None),
        ("", None),
    ],
)
def test_the_number_that_a_text_begins_with(text: str, number: float | None) -> None:
    assert leading_number(text) == number


def test_how_values_are_shown() -> None:
    cells = [None, "", True, 7, -12345, 0.123456, -1e-9, float("nan"), float("inf")]
    assert [shown(cell).text for cell in cells] == [
        NOTHING,
        NOTHING,
        "yes",
        "7",
        "−12\u202f345",
        "0.1235",
        "−1e−09",
        "nan",
        "inf",
    ]
    assert [shown(cell).value for cell in cells] == [None, None, None, 7, -12345, 0.123456, -1e-9, None, None]


def test_a_column_of_numbers_may_have_gaps_and_a_few_words() -> None:
    assert is_numeric([shown(cell) for cell in (1.0, None, "2 ± 1", "not converged")])
    assert not is_numeric([shown(cell) for cell in ("NPE", "2D P(k)", 3)])
    assert not is_numeric([shown(cell) for cell in (None, None)])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-1.23456, 0.0123, "−1.235"),
        (0.5, 1.5, "0.5"),
        (1234.5, 321.0, "1230"),
        (-0.001, 0.12, "0.00"),
        (1.0, 0.0, "1"),
        (1.0, float("nan"), "1"),
    ],
)
def test_a_value_has_the_decimals_of_its_error(value: float, error: float, text: str) -> None:
    assert to_figures_of(value, error) == text


@pytest.mark.parametrize(
    ("observable", "told"),
    [
        (COEVAL, ["z = 7 in the middle", "z = 8.5 in the middle"]),
        (FLAT, ["channel 0; from"]),
        (CONE, ["along the line of sight", "in the middle"]),
        (MAPS, ["0.75 µm", "5 µm"]),
        (replace(FLAT, shape=(1, 6), axes=("channel", "x"), cell_size=(1.0,)), ["Observed values, channel 0"]),
        (replace(FLAT, cell_size=(0.0, 0.0)), ["channel 0"]),
    ],
    ids=["coeval", "flat", "cone", "maps", "line", "no lengths"],
)
def test_every_kind_of_observation_is_drawn(observable: Any, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_figures, "CHANNELS", 2)
    cube = np.random.default_rng(0).standard_normal(observable.shape).astype(np.float32)
    drawn = slices(Observation.of(observable, cube))
    assert len(drawn) == (2 if observable is CONE else min(len(cube), 2))
    assert told[0] in drawn[0].svg
    assert told[-1] in drawn[-1].svg
    for one in drawn:
        assert one.svg.startswith('<svg role="img" aria-label="Observed ')
        assert "currentColor" in one.svg, "it follows the page"
        assert "#010203" not in one.svg
        assert "<style" not in one.svg, "it would hold for the whole page"


def test_a_constant_map_is_drawn_and_names_are_escaped() -> None:
    observation = replace(
        Observation.of(FLAT, np.ones(FLAT.shape, np.float32)), unit='<b>"mK"</b>', axes=("<i>", "x", "y")
    )
    (drawn,) = slices(observation)
    assert "<b>" not in drawn.svg
    assert "<i>" not in drawn.svg
    assert "&lt;i&gt; 0; from 1 to 1 &lt;b&gt;&#34;mK&#34;&lt;/b&gt;" in drawn.svg


def test_training_curves_tell_their_lowest_losses() -> None:
    history = [{"epoch": e, "training": 3.0 - e, "validation": v} for e, v in enumerate((2.0, 0.5, 0.75))]
    both = training_curves("round 1", [history, history[:1]]).svg
    assert "lowest validation losses: 0.5, 2" in both
    assert "var(--series-0)" in both
    assert "var(--series-1)" in both
    # As the training of a separator records it.
    training_curves("separation", [[{"stage": 0, "validation": 1.0}, {"stage": 1, "validation": 0.5}]])


def test_all_text_is_escaped() -> None:
    evil = [f"</code></script><script>alert({i})</script>" for i in range(19)]
    rest = iter(evil)
    blocks = [
        Text(next(rest)),
        Notes([next(rest)]),
        Facts({next(rest): next(rest)}),
        Code(next(rest), next(rest)),
        Table([next(rest)], [[next(rest)]], next(rest), next(rest)),
        Picture("data:,", next(rest), next(rest), next(rest)),
    ]
    sections, facts = [Section("s", next(rest), blocks)], Facts({})
    page = Page(next(rest), next(rest), facts, sections, [next(rest)], [MissingStep("what", next(rest))], next(rest))
    text = render(page)
    assert "<script>alert" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert [one for one in evil if str(escape(one)) not in text] == []
    assert next(rest, None) is None
