"""What a training tries: a truncated normal and one with a flow, of which held-out rows choose."""

import pytest
import torch

from eorinfer.npe.candidates import Comparison, choose, network_count, stages
from eorinfer.settings.npe import FlowSettings, TrainingSettings


def test_only_auto_tries_both_each_from_its_first_step_on() -> None:
    training = TrainingSettings(steps=900, epochs=30, learning_rate=0.01)
    (only,) = stages(FlowSettings(kind="zuko_maf"), training)
    assert (only.flow.kind, only.training) == ("zuko_maf", training)
    simple, richer = stages(FlowSettings(hidden=(8,)), training)
    assert (simple.flow.kind, richer.flow.kind) == ("none", "zuko_nsf")
    assert richer.flow.hidden == (8,)
    # A flow that joins a trained truncated normal is left with features that do not tell branches apart.
    assert (simple.training, richer.training) == (training, training)


def test_a_flow_pays_beyond_one_standard_error() -> None:
    simple = torch.randn(400, generator=torch.Generator().manual_seed(1))
    scatter = torch.randn(400, generator=torch.Generator().manual_seed(2))
    scatter = (scatter - scatter.mean()) / scatter.std()
    rows = torch.arange(400.0)[:, None]
    kept = Comparison.from_losses(simple, simple - 0.06 - scatter, rows)
    assert kept.pays
    assert kept.line("a flow", "it") == "on 400 held-out rows a flow gains 0.060 ± 0.050 nats and is kept"
    left = Comparison.from_losses(simple, simple - 0.04 - scatter, rows)
    assert not left.pays
    assert left.line("a flow", "a truncated normal").endswith("is left out: a truncated normal is enough")
    assert not Comparison.from_losses(simple, simple + 0.5, rows).pays
    assert not Comparison.from_losses(simple, torch.where(torch.arange(400) == 7, torch.inf, simple - 1.0), rows).pays
    assert not Comparison.from_losses(simple, torch.where(torch.arange(400) == 7, -torch.inf, simple), rows).pays


def test_emulated_rows_are_tried_like_simulations_and_the_best_candidate_is_kept() -> None:
    tried = stages(FlowSettings(), TrainingSettings(), emulated_batch=256, parameters=9)
    assert [(one.name, one.emulated) for one in tried] == [
        ("normal", False),
        ("normal-flow", False),
        ("emulated-flow", True),
    ]
    assert [one.training.batch_size for one in tried] == [64, 64, 256]
    assert [one.training.learning_rate for one in tried] == [0.01, 0.01, 0.003]
    assert [one.training.steps for one in tried] == [3000, 3000, 9000]
    assert [one.flow.kind for one in tried] == ["none", "zuko_nsf", "zuko_nsf"]
    assert [one.flow.hidden for one in tried] == [(32, 32)] * 2 + [(252, 252)]
    assert stages(FlowSettings(hidden=(200, 8)), TrainingSettings(), 256, parameters=2)[-1].flow.hidden == (200, 56)
    # A kind that is given stays, and is as wide as it is given.
    given = stages(FlowSettings(kind="zuko_maf"), TrainingSettings(learning_rate=1e-3), 256, parameters=9)
    assert [(one.name, one.flow, one.training.learning_rate) for one in given] == [
        (name, FlowSettings(kind="zuko_maf"), 1e-3) for name in ("flow", "emulated-flow")
    ]
    theta = torch.arange(300.0)[:, None]
    noise = torch.randn(3, 300, generator=torch.Generator().manual_seed(3)) * 0.1
    best, found, lines = choose(tried, list(noise + torch.tensor([0.0, 0.5, -0.5])[:, None]), theta)
    assert best == 2
    assert [found[one.name].pays for one in tried[1:]] == [False, True]
    assert [line.split("nats")[0].split("gains")[0] for line in lines] == [
        "on 300 held-out rows a flow ",
        "on 300 held-out rows training on emulated rows with a flow ",
    ]
    assert lines[0].endswith("is left out: a truncated normal is enough")
    assert choose(tried[:1], [noise[0]], theta) == (0, {}, [])


@pytest.mark.parametrize(
    ("batch", "gain", "kept"),
    [(256, 0.05, True), (256, -0.05, True), (256, -0.15, False), (1, 0.05, True), (1, -0.05, False)],
)
def test_emulated_rows_are_kept_where_a_flow_is_not(batch: int, gain: float, kept: bool) -> None:
    """Of 500 simulations chance left them out at 0.056 ± 0.057 nats, which cost 0.14 nats."""
    tried, theta = stages(FlowSettings(), TrainingSettings(), emulated_batch=batch), torch.arange(100.0)[:, None]
    noise = torch.randn(100, generator=torch.Generator().manual_seed(3))
    gains = (noise - noise.mean()) / noise.std() + gain  # ± 0.10
    best, found, _ = choose(tried, [torch.zeros(100), -gains, -gains], theta)
    assert (best, found["normal-flow"].pays, found["emulated-flow"].pays) == (2 * kept, False, kept)


def test_views_of_a_run_count_once() -> None:
    gain = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = Comparison.from_losses(gain, 0 * gain, torch.arange(60.0)[:, None])
    assert alone.error == pytest.approx(float(gain.std()) / 60**0.5)
    views = Comparison.from_losses(gain.repeat(3), 0 * gain.repeat(3), torch.arange(60.0).repeat(3)[:, None])
    assert (views.rows, views.nats) == (180, pytest.approx(alone.nats))
    assert views.error == pytest.approx(alone.error)


def test_effort_stands_for_steps_and_epochs() -> None:
    assert TrainingSettings(effort="default") == TrainingSettings()
    quick, thorough = TrainingSettings(effort="quick"), TrainingSettings(effort="thorough", epochs=7)
    assert quick.steps < TrainingSettings().steps < thorough.steps
    assert (quick.epochs, thorough.epochs) == (60, 7), "what is given counts"
    for settings in (quick, thorough):
        assert TrainingSettings(**settings.model_dump()) == settings
    # Files and hashes of older versions have no such key.
    assert "effort" not in TrainingSettings(ensemble=3).model_dump()
    assert quick.model_dump()["effort"] == "quick"
    assert (quick.emulate, thorough.emulate) == ("never", "vectors")
    own = TrainingSettings(effort="quick", emulate="vectors")
    assert TrainingSettings(**own.model_dump()) == own
    with pytest.raises(ValueError, match="'quick', 'default' or 'thorough'"):
        TrainingSettings(effort="much")  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "networks"), [(40, 10), (600, 10), (4000, 6), (100_000, 6)])
def test_a_thorough_training_makes_more_networks_of_few_rows(rows: int, networks: int) -> None:
    assert network_count(TrainingSettings(effort="thorough"), rows) == networks
    assert network_count(TrainingSettings(effort="thorough", steps=10), rows) == 6, "steps end each one's training"
    assert network_count(TrainingSettings(effort="thorough", ensemble=2), rows) == 2
    assert [network_count(TrainingSettings(effort=e), rows) for e in ("quick", "default")] == [2, 3]  # type: ignore[arg-type]
