"""The contest's picture: volumes are drawn where they are, and what is beyond the axis is said."""

import numpy as np

from eorinfer.figures.contest import WIDEST, contest_figure


def test_ratios_beyond_the_axis_are_said_and_not_moved_to_its_edge() -> None:
    rng = np.random.default_rng(1)
    volumes = [rng.normal(0, 0.3, 200), np.r_[rng.normal(0, 0.3, 150), np.full(50, 9.0)], np.full(200, -9.0)]
    log_volumes = [np.log(10) * decades for decades in volumes]
    curve = np.column_stack([np.linspace(0, 1, 5)] * 2)
    gains = np.array([[1.0, 0.1], [1.2, 0.1], [1.1, 0.1]])
    figure = contest_figure(["a", "b", "c"], gains, [True, False, False], [curve] * 3, log_volumes, "a")
    right = figure.axes[2]
    assert [text.get_text() for text in right.texts] == ["25% beyond →", "← 100% beyond"]
    np.testing.assert_allclose(right.get_xlim(), (-WIDEST, WIDEST))
    bodies = [body.get_paths()[0].vertices for body in right.collections]
    assert len(bodies) == 2, "of the third none is on the axis"
    # The widest place is near the middle, and no second mode stands at the edge.
    for vertices in bodies:
        near_edge = vertices[np.abs(vertices[:, 0]) > 1.3]
        height = np.ptp(vertices[:, 1])
        assert not len(near_edge) or np.ptp(near_edge[:, 1]) < 0.1 * height


def test_calibrated_methods_are_on_the_axes_however_far_they_are() -> None:
    """In nine parameters NPE is calibrated, 8 nats below the exact posterior and ten thousand times as large."""
    rng = np.random.default_rng(1)
    curve = np.column_stack([np.linspace(0, 1, 5)] * 2)
    gains = np.array([[11.0, 1.0], [2.7, 0.2], [-9.0, 2.0]])
    log_volumes = [np.zeros(0), np.log(10) * rng.normal(4.0, 1.0, 200), np.log(10) * rng.normal(-30.0, 1.0, 200)]
    figure = contest_figure(["exact", "npe", "ps"], gains, [True, True, False], [curve] * 3, log_volumes, "exact")
    left, _, right = figure.axes
    assert left.get_xlim()[0] < 2.5
    assert [text.get_text() for text in left.texts] == ["← -9 ± 2"]
    assert 4.5 < right.get_xlim()[1] < 6.5
    assert [text.get_text() for text in right.texts] == ["10% beyond →", "← 100% beyond"]
