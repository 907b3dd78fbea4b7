"""The contest's picture: volumes are drawn where they are, and what is beyond the axis is said."""

import numpy as np

from eorinfer.figures.contest import WIDEST, contest_figure


def test_ratios_beyond_the_axis_are_said_and_not_moved_to_its_edge() -> None:
    rng = np.random.default_rng(1)
    volumes = [rng.normal(0, 0.3, 200), np.r_[rng.normal(0, 0.3, 150), np.full(50, 9.0)], np.full(200, -9.0)]
    log_volumes = [np.log(10) * decades for decades in volumes]
    curve = np.column_stack([np.linspace(0, 1, 5)] * 2)
    gains = np.array([[1.0, 0.1], [1.2, 0.1], [1.1, 0.1]])
    figure = contest_figure(["a", "b", "c"], gains, [True] * 3, [curve] * 3, log_volumes, "a")
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
