"""Corner plots: methods look the same everywhere, axes close on narrow posteriors, and means stand above."""

import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.figures.corner import CLOSED, corner
from eorinfer.figures.style import LOOKS, looks
from eorinfer.settings.contest import METHODS
from simulators import Parameter

PARAMETERS = (Parameter("a", "a", -5.0, 5.0, 0.0), Parameter("b", "b", -5.0, 5.0, 0.0))


def posterior(width: float, label: str) -> Samples:
    values = 1.0 + width * np.random.default_rng(1).standard_normal((400, 2))
    return Samples.unweighted(values, PARAMETERS, label)


def test_each_method_has_one_look() -> None:
    labels = [row.label for row in METHODS.values()]
    chosen = looks(labels)
    assert len({look.colour for look in chosen}) == len(labels)
    assert all(look.image is not None for look in chosen)
    assert looks(["NPE on images", "power-spectrum MCMC"]) == looks(
        [METHODS["npe-image"].label, METHODS["ps-full"].label]
    )
    first, again, own, other = looks(["image flow", "image flow", "mine", "theirs"])
    assert first == LOOKS["image flow"]
    assert len({look.colour for look in (first, again, own, other)}) == 4
    assert (again.image, own.image) == (None, None)


def test_axes_close_on_narrow_posteriors_and_means_stand_above() -> None:
    narrow = corner(posterior(0.2, "power-spectrum MCMC"), posterior(0.1, "NPE on images"), truth=np.ones(2))
    low, high = narrow.axes[0].get_xlim()
    assert -0.5 < low < high < 2.5
    assert [text.get_text() for text in narrow.texts] == [f"dashed: true parameters\n{CLOSED}"]
    above = [text.get_text() for axis in narrow.axes for text in axis.texts]
    assert len(above) == 4
    assert all(text.startswith(("1.0", "0.9")) and len(text.split(" ± ")[1]) in (4, 5) for text in above)
    colours = [text.get_color() for text in next(axis.texts for axis in narrow.axes if axis.texts)]
    assert colours == [look.colour for look in looks(["power-spectrum MCMC", "NPE on images"])]
    wide = corner(posterior(1.0, "mine"), prior=Prior(PARAMETERS))
    np.testing.assert_allclose(wide.axes[0].get_xlim(), (-5, 5))
    assert CLOSED not in "".join(text.get_text() for text in wide.texts)
    forced = corner(posterior(1.0, "mine"), close=True)
    assert CLOSED in forced.texts[0].get_text()
    over_all = corner(posterior(3.0, "mine"), close=True)
    assert CLOSED not in "".join(text.get_text() for text in over_all.texts), "the axes are the prior's"


@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_all_texts_are_inside_a_plain_picture(names: list[str], several: int) -> None:
    """``savefig`` without ``bbox_inches="tight"`` cuts what is outside."""
    figure = corner(*(posterior(0.1 * (i + 1), f"method {i}").only(names) for i in range(several)))
    figure.canvas.draw()
    for axis in figure.axes:
        for text in axis.texts:
            box = text.get_window_extent()
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1, text.get_text()


def test_axes_span_the_ranges_of_all_posteriors() -> None:
    wide = posterior(0.8, "NPE")
    narrow = Samples.unweighted(
        np.clip(wide.values, 0.5, 1.5), tuple(Parameter(n, n, 0.5, 1.5, 1.0) for n in "ab"), "other prior"
    )
    for chains in ((narrow, wide), (wide, narrow)):
        np.testing.assert_allclose(corner(*chains, close=False).axes[0].get_xlim(), (-5, 5))


@pytest.mark.parametrize("close", [None, False, True])
def test_posteriors_may_share_some_parameters(close: bool | None) -> None:
    both = posterior(0.2, "NPE on images")
    values = np.column_stack([3.0 + 0.1 * np.random.default_rng(2).standard_normal(400), both["b"]])
    turned = Samples.unweighted(values, PARAMETERS[::-1], "power-spectrum MCMC")
    for other, above in ((both.only("b"), (2, 1)), (turned, (2, 2))):
        figure = corner(both, other, close=close)
        texts = [[text.get_text() for text in axis.texts] for axis in figure.axes if axis.texts]
        assert [sum("±" in text for text in axis) for axis in texts] == ([1, 2] if above == (2, 1) else [2, 2])
    # Means stand above their own parameter, whatever the order of the chain.
    assert any(text.startswith(("3.0", "2.99")) for text in texts[1])
    first_alone = corner(both.only("b"), both, close=close)
    assert len(first_alone.axes) == 1


def test_what_is_no_posterior_or_no_truth_of_it_is_said() -> None:
    ours = posterior(0.2, "NPE on images")
    other = Samples.unweighted(ours.values, [Parameter(name, name, -5.0, 5.0, 0.0) for name in ("c", "d")], "earlier")
    for wrong in ((), ([ours],)):
        with pytest.raises(InputError, match="give one or more posteriors"):
            corner(*wrong)
    with pytest.raises(InputError, match="earlier has none of a, b, but c, d"):
        corner(ours, other)
    with pytest.raises(InputError, match=r"NPE on images has 2 sample\(s\) of 2 parameters: draw more"):
        corner(Samples.unweighted(ours.values[:2], ours.parameters, ours.label))
    with pytest.raises(InputError, match="truth lacks b; it has a"):
        corner(ours, truth={"a": 1.0})
    with pytest.raises(InputError, match=r"truth has shape \(1,\), for 2 parameters: a, b"):
        corner(ours, truth=np.ones(1))


def test_a_truth_by_name_is_put_in_order() -> None:
    axes = corner(posterior(0.2, "NPE"), truth={"b": 2.0, "a": 1.0}).axes
    dashed = [[line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] for axis in axes]
    assert (dashed[0][0], dashed[-1][0]) == (1.0, 2.0)
