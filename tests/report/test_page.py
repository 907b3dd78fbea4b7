"""What the page shows and how: cells and their order, drawings of every kind of observation, and escaping."""

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray

from eorinfer.cubes.observation import Observation
from eorinfer.figures.corner import COLOURS
from eorinfer.report import drawings
from eorinfer.report.cells import (
    MISSING,
    Number,
    Words,
    cell_from_plain,
    count,
    interval,
    is_numeric,
    leading_number,
    measurement,
    number,
    several,
    to_figures_of,
    words,
    yes_or_no,
)
from eorinfer.report.drawings import slices, training_curves
from eorinfer.report.page import (
    Code,
    Facts,
    MissingStep,
    Notes,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    render,
)
from simulators import Coeval, GaussianField, LightCone

COEVAL = Coeval(redshifts=(7.0, 8.5), cells=8, box_length=40.0).observables[0]
FLAT = GaussianField(cells=6).observables[0]
CONE = LightCone(
    cells=8, box_length=64.0, frequency_range=(150.0, 160.0), channels=20, transverse="angular"
).observables[0]
MAPS = replace(FLAT, shape=(10, 6, 6), axes=("wavelength", "x", "y"), channels=tuple(np.linspace(0.75, 5, 10)))


def image_of(picture: Picture) -> NDArray[np.float32]:
    """Pixels (height, width, 3) of a picture, from 0 to 1."""
    pixels = imread(io.BytesIO(base64.b64decode(picture.source.removeprefix("data:image/png;base64,"))))
    return np.asarray(pixels[..., :3], np.float32)


@pytest.mark.parametrize(
    ("text", "value"),
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
def test_the_number_that_a_text_begins_with(text: str, value: float | None) -> None:
    assert leading_number(text) == value


def test_how_values_are_shown() -> None:
    values = [None, "", True, 7, -12345, 0.123456, -1e-9, float("nan"), float("inf")]
    cells = [cell_from_plain(value) for value in values]
    assert [cell.text for cell in cells] == [
        "–",
        "–",
        "yes",
        "7",
        "−12\u202f345",
        "0.1235",
        "−1e−09",
        "nan",
        "inf",
    ]
    assert [cell.value for cell in cells] == [None, None, None, 7, -12345, 0.123456, -1e-9, None, None]


def test_cells_are_made_where_the_value_is_known() -> None:
    assert words("") == words(None) == yes_or_no(None) == count(None) == number(None) == several([]) == MISSING
    assert (words("2D"), yes_or_no(False)) == (Words("2D"), Words("no"))
    assert count(12345, "rows") == Number(12345.0, "12\u202f345 rows")
    assert number(-0.25, ".1%") == Number(-0.25, "−25.0%")
    assert number(1.23456, unit="mK") == Number(1.23456, "1.235 mK")
    assert number(float("nan"), unit="mK") == Words("nan mK")
    assert measurement(-0.4, 0.25, unit="nats") == Number(-0.4, "−0.40 ± 0.25 nats")
    assert interval(-1.2345, 2.0, 0.05) == Number(-1.2345, "−1.234 to 2.000")
    assert several([-0.5, 2.0], ".1f") == Number(-0.5, "−0.5, 2.0")


def test_a_column_of_numbers_may_have_gaps_and_a_few_words() -> None:
    assert is_numeric([number(1.0), MISSING, measurement(2, 1), words("not converged")])
    assert not is_numeric([words("NPE"), words("2D P(k)"), count(3)])
    assert not is_numeric([MISSING, MISSING])


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
    assert to_figures_of(value, error) == Number(value, text)


@pytest.mark.parametrize(
    ("observable", "alts"),
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
def test_every_kind_of_observation_is_drawn(observable: Any, alts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "CHANNELS", 2)
    cube = np.random.default_rng(0).standard_normal(observable.shape).astype(np.float32)
    drawn = slices(Observation.from_observable(observable, cube))
    assert len(drawn) == (2 if observable is CONE else min(len(cube), 2))
    assert alts[0] in drawn[0].alt
    assert alts[-1] in drawn[-1].alt
    for picture in drawn:
        assert picture.alt.startswith("Observed ")
        pixels = image_of(picture)
        assert (pixels[[0, -1]] == 1).all(), "white to its edges, as its card is"
        assert (pixels < 0.5).any(), "and something is drawn on it"
        assert picture.width == round(pixels.shape[1] * 96 / 150)
    assert [picture.wide for picture in drawn] == [observable is CONE, *[False] * (len(drawn) - 1)]


def test_a_constant_map_is_drawn_and_names_are_escaped() -> None:
    observation = replace(
        Observation.from_observable(FLAT, np.ones(FLAT.shape, np.float32)), unit='<b>"mK"</b>', axes=("<i>", "x", "y")
    )
    (picture,) = slices(observation)
    assert picture.alt == 'Observed map, <i> 0; from 1 to 1 <b>"mK"</b>'
    text = render(Page("title", "", Facts({}), [Section("s", "section", [Pictures([picture])])]))
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;i&gt; 0; from 1 to 1 &lt;b&gt;&#34;mK&#34;&lt;/b&gt;" in text


def test_training_curves_tell_their_lowest_losses() -> None:
    history = [{"epoch": e, "training": 3.0 - e, "validation": v} for e, v in enumerate((2.0, 0.5, 0.75))]
    both = training_curves("round 1", [history, history[:1]])
    assert both.alt == "Training curves of round 1; lowest validation losses: 0.5, 2"
    pixels = image_of(both)
    for colour in COLOURS[:2]:
        assert (np.abs(pixels - to_rgb(colour)).max(-1) < 0.01).any(), "each network has a colour"
    # As the training of a separator records it.
    training_curves("separation", [[{"stage": 0, "validation": 1.0}, {"stage": 1, "validation": 0.5}]])


def test_all_text_is_escaped() -> None:
    evil = [f"</code></script><script>alert({i})</script>" for i in range(23)]
    rest = iter(evil)
    blocks = [
        Text(next(rest)),
        Notes([next(rest)]),
        Facts({next(rest): words(next(rest))}),
        Code(next(rest), next(rest)),
        Table([next(rest)], [[words(next(rest))]], next(rest), next(rest)),
        Picture("data:,", next(rest), next(rest), next(rest)),
        Pictures([Picture("data:,", next(rest), next(rest), next(rest), wide=True)], next(rest)),
    ]
    sections, facts = [Section("s", next(rest), blocks)], Facts({})
    page = Page(next(rest), next(rest), facts, sections, [next(rest)], [MissingStep("what", next(rest))], next(rest))
    text = render(page)
    assert "<script>alert" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert [line for line in evil if str(escape(line)) not in text] == []
    assert next(rest, None) is None
