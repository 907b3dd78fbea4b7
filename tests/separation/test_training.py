"""Training a separator: it learns, goes on after a stop, says what is wrong, and stops at NaN with what was good."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Silent
from eorinfer.networks.discriminator import Discriminator
from eorinfer.separation import health
from eorinfer.separation import precision as precisions
from eorinfer.separation.apply import posterior
from eorinfer.separation.data import Lines, Pairs
from eorinfer.separation.losses import distance
from eorinfer.separation.model import Separator
from eorinfer.separation.regression import Regression
from eorinfer.separation.training import Adversaries, train
from eorinfer.settings.separation import SeparationSettings
from eorinfer.survey import build_survey
from tests.mocks import mock_bank, parts, separator_spec
from tests.training.test_fit import Lines as Heard
from tests.training.test_fit import StopsAt, same


def trained(folder: Path, noise: float = 6e-3, progress: Any = None, **settings: Any) -> Separator:
    bank = mock_bank()
    wanted = separator_spec(bank, noise, **settings)
    survey = build_survey(wanted.survey, wanted.observable)
    return train(wanted, bank, parts(bank), survey, folder=folder, seed=3, progress=progress)


def errors(separator: Separator) -> tuple[float, float, float]:
    """Mean absolute error on test maps, of the separator, of the training mean and of the observed map."""
    bank = mock_bank()
    lines = Lines(bank, parts(bank).test)
    wanted = separator.spec
    pairs = Pairs(
        build_survey(wanted.survey, wanted.observable), wanted.observable.symmetry, lines.names, wanted.targets
    )
    observed, true = pairs(lines.__getitems__(list(range(len(lines))))[0], torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = (separator(observed), separator.wiener.mean_lines, observed)
        return tuple((answer - true).abs().mean().item() for answer in answers)  # type: ignore[return-value]


def test_it_learns(tmp_path: Path) -> None:
    net = trained(tmp_path, noise=1e-4, steps=300, loss="l1", learning_rate=3e-3, width=8, widest=16, mix=True)
    # It begins with what is observed.
    found, mean, observed = errors(net)
    assert found < 0.8 * mean
    assert found < 0.8 * observed
    history = net.spec.facts["history"]
    assert history[-1]["validation"] < history[0]["validation"]
    json.dumps(net.spec.facts)


@pytest.mark.parametrize("loss", ["talk", "wasserstein", "l1"])
def test_losses(tmp_path: Path, loss: str) -> None:
    net = trained(tmp_path, loss=loss, steps=10)
    history = net.spec.facts["history"]
    assert len(history) == 10
    assert (history[-1]["discriminator"] != 0) == (loss != "l1")
    assert all(v.isfinite().all() for v in net.state_dict().values())


def test_the_same_seed_gives_the_same_weights_after_a_stop_too(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a", steps=41, kind="cgan")
    torch.manual_seed(99)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", steps=41, kind="cgan", progress=StopsAt(11, KeyboardInterrupt))
    steps = 0
    original = Adversaries.training_step

    def counted(self: Adversaries, batch: Any, index: int) -> None:
        nonlocal steps
        steps += 1
        original(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adversaries, "training_step", counted)
        resumed = trained(tmp_path / "b", steps=41, kind="cgan")
    # Stages of two steps, and the tenth was the last to be kept.
    assert steps == 42 - 20
    assert same(whole, resumed)
    assert whole.spec.facts == resumed.spec.facts


@pytest.mark.parametrize("stage", [3, 9])
def test_a_flow_is_the_same_after_a_stop_in_either_of_its_trainings(tmp_path: Path, stage: int) -> None:
    whole = trained(tmp_path / "a", steps=12)
    history = whole.spec.facts["history"]
    assert [entry["network"] for entry in history] == ["mean"] * 6 + ["flow"] * 6
    torch.manual_seed(99)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", steps=12, progress=StopsAt(stage, KeyboardInterrupt))
    resumed = trained(tmp_path / "b", steps=12)
    assert same(whole, resumed)
    assert whole.spec.facts == resumed.spec.facts


def test_a_mean_is_better_than_the_filter_and_draws_have_the_power_of_the_truth(tmp_path: Path) -> None:
    net = trained(tmp_path, noise=1e-4, steps=160, learning_rate=2e-3, width=8, widest=16, mix=True, flow_steps=8)
    # One stage in four ends with a validation.
    assert [entry["network"] for entry in net.spec.facts["history"]] == ["mean"] * 10 + ["flow"] * 10
    bank = mock_bank()
    lines = Lines(bank, parts(bank).test)
    pairs = Pairs(
        build_survey(net.spec.survey, net.spec.observable),
        net.spec.observable.symmetry,
        lines.names,
        net.spec.targets,
        mix=True,
    )
    rng = torch.Generator().manual_seed(1)
    clean = lines.__getitems__(list(range(len(lines))))[0]
    made = [pairs(clean, rng, training=True) for _ in range(8)]
    observed, true = (torch.cat(x) for x in zip(*made, strict=True))
    mean, draws = posterior(net, observed, 2, 1)
    with torch.no_grad():
        assert (mean - true).square().mean() < (net.wiener(observed) - true).square().mean()
    for line in range(2):
        # There are few test maps, and a few bright pixels have most of the variance.
        wanted = true[:, line].var().item()
        assert mean[:, line].var().item() < 0.9 * draws[:, :, line].var().item()
        assert draws[:, :, line].var().item() == pytest.approx(wanted, rel=0.4)
    assert (observed[:, 0] - draws.sum(2)).std().item() == pytest.approx(1e-4, rel=0.05)
    assert set(net.spec.facts["sureness"]["ha"]) == {"pixels", "map mean", "standard deviation of the map"}


def test_a_mean_that_learns_its_maps_by_heart_is_the_best_of_its_training(tmp_path: Path) -> None:
    net = trained(tmp_path, noise=1e-9, kind="mean", steps=400, learning_rate=5e-3, width=16, widest=32)
    validation = [entry["validation"] for entry in net.spec.facts["history"]]
    assert min(validation) < 0.98 * validation[-1], "else there is nothing to see"
    bank = mock_bank()
    rows = parts(bank)
    lines = Lines(bank, rows.validation)
    pairs = Pairs(
        build_survey(net.spec.survey, net.spec.observable), bank.observables[0].symmetry, lines.names, net.spec.targets
    )
    observed, true = pairs(lines.__getitems__(list(range(len(lines))))[0], torch.Generator().manual_seed(1))
    with torch.no_grad():
        off = net.generator(net.scaled(observed)).float() - net.target_scaling(true)
    assert off.square().mean().item() == pytest.approx(min(validation), rel=0.01)


def test_a_training_stopped_under_the_old_names_is_resumed(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a", steps=10, kind="cgan")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", steps=10, kind="cgan", progress=StopsAt(6, KeyboardInterrupt))
    path = tmp_path / "b" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name.replace("discriminator.", "judge."): value for name, value in weights.items()}
    assert checkpoint["state_dict"].keys() != weights.keys()
    checkpoint["history"] = checkpoint["history"].replace('"discriminator"', '"judge"')
    assert '"judge"' in checkpoint["history"]
    torch.save(checkpoint, path)
    resumed = trained(tmp_path / "b", steps=10, kind="cgan")
    assert same(whole, resumed)
    assert whole.spec.facts == resumed.spec.facts


@pytest.mark.parametrize("loss", ["talk", "wasserstein"])
def test_the_generator_is_pulled_as_by_its_own_loss(loss: str) -> None:
    """The gradient that one pass of the discriminator gives, against that of the generator's loss by autograd."""
    bank = mock_bank()
    spec = separator_spec(bank, 1e-3, loss=loss, instance_noise=0.0)
    survey = build_survey(spec.survey, spec.observable)
    pairs = Pairs(survey, spec.observable.symmetry, Lines(bank, parts(bank).test).names, spec.targets)
    discriminator = Discriminator(1 + len(spec.targets), spec.strides, spec.periodic, width=4, widest=8)
    runner = Adversaries(Separator(spec), discriminator, pairs, 10, 1, Silent())
    runner._random = torch.Generator().manual_seed(1)
    rng = torch.Generator().manual_seed(2)
    source, target, made = (torch.randn(6, n, *spec.observable.cells, generator=rng) for n in (1, 2, 2))
    # Logits of both signs and a spread of 20: the ratio of the losses' gradients spans many powers of ten.
    last = discriminator.last.convolution
    last.weight.data *= 20 / discriminator(source, made).std()
    last.bias.data -= discriminator(source, made).mean()
    judged = made.clone().requires_grad_(True)
    against, _, logits = runner._discriminator_loss(source, target, judged)
    against.backward()
    direct = made.clone().requires_grad_(True)
    own = discriminator(source, direct)
    (torch.nn.functional.softplus(-own) if loss == "talk" else -own).mean().backward()
    assert logits.min() < -5
    assert logits.max() > 5
    scale = direct.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(runner._pull(judged, logits) / scale, direct.grad / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("paired", [200_000, 50_000])
def test_draws_have_the_right_spread_at_the_minimum(number: int, paired: int) -> None:
    """The numbers are Gaussian about a known mean, with a standard deviation of 1.5."""
    rng = torch.Generator().manual_seed(1)
    target = 0.7 + 1.5 * torch.randn(200_000, 1, 1, generator=rng)
    drawn = torch.randn(number, 200_000, 1, 1, generator=rng)

    def loss(mean: float, deviation: float) -> float:
        made = mean + deviation * drawn
        return distance(made[0], target, made[1:, :paired]).item()

    lowest = loss(0.7, 1.5)
    for mean, deviation in [(0.7, 1.2), (0.7, 1.9), (0.5, 1.5), (0.9, 1.5), (0.7, 0.0)]:
        assert loss(mean, deviation) > lowest
    # Nor are draws of cells that are mostly empty better with more or less contrast than the truth has.
    empty, filled = (torch.randn(n, 200_000, 1, 1, generator=rng).clamp(min=1) ** 5 - 1 for n in (1, number))
    scores = [distance(c * filled[0], empty[0], c * filled[1:]).item() for c in (0.7, 1.0, 1.4)]
    assert min(scores) == scores[1]
    one = drawn[0]
    torch.testing.assert_close(distance(one, target), (one - target).abs().mean())


def test_an_estimate_from_some_pairs_is_on_average_that_of_all() -> None:
    rng = torch.Generator().manual_seed(2)
    first, second, target = torch.randn(3, 16, 8, generator=rng)
    orders = [torch.randperm(16, generator=rng) for _ in range(2000)]
    pairs = [(first, second), (second, first)] * 1000
    some = torch.stack([distance(a[o], target[o], b[o][None, :4]) for (a, b), o in zip(pairs, orders, strict=True)])
    every = distance(first, target, second[None])
    assert abs(some.mean() - every) < 4 * some.std() / 2000**0.5
    assert some.std() > 0.01


def test_checkpoints_hold_no_pickled_objects(tmp_path: Path) -> None:
    trained(tmp_path, steps=2)
    for network in ("mean", "flow"):
        assert sorted(p.name for p in (tmp_path / network).glob("*.ckpt")) == ["last.ckpt"]
        assert "state_dict" in torch.load(tmp_path / network / "last.ckpt", weights_only=True)
    trained(tmp_path, steps=2, kind="cgan")
    assert sorted(p.name for p in tmp_path.glob("*.ckpt")) == ["before.ckpt", "last.ckpt"]
    assert "state_dict" in torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_nan_stops_it_and_names_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Pairs.forward
    calls = 0

    def breaks(self: Pairs, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        observed, true = original(self, *arguments, **options)
        calls += options.get("training", False)
        return (observed * torch.nan if calls > 16 and options.get("training") else observed), true

    monkeypatch.setattr(Pairs, "forward", breaks)
    said = (
        r"the discriminator's loss is not finite at step 17 of 80; the last checkpoint, of step 16, is kept\. A lower"
    )
    with pytest.raises(WorkError, match=said):
        trained(tmp_path, steps=80, kind="cgan")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 7
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_a_gradient_that_is_not_finite_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipped by an infinite norm it would be nothing, and a training stand still in silence."""
    original = Regression.on_after_backward
    calls = 0

    def breaks(self: Regression) -> None:
        nonlocal calls
        original(self)
        calls += 1
        if calls == 5:
            next(self.network.parameters()).grad.fill_(torch.inf)

    monkeypatch.setattr(Regression, "on_after_backward", breaks)
    with pytest.raises(WorkError, match="separation: the gradient is not finite at step 5 of 80; the last checkpoint"):
        trained(tmp_path, steps=80, kind="mean")


def test_a_discriminator_that_wins_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a generator that hardly learns; in so few steps it is right nine times in ten."""
    monkeypatch.setattr(health, "WON", 0.9)
    progress = Heard()
    net = trained(
        tmp_path, steps=120, discriminator_rate=2e-3, learning_rate=1e-7, noise=1e-4, progress=progress, average=0.0
    )
    assert any("the discriminator has won: for 3 stages it has told" in line for line in progress.lines)
    assert sum("has won" in line for line in progress.lines) == 1
    assert any("has won" in warning for warning in net.spec.facts["warnings"])


def test_an_output_that_has_collapsed_is_said_to(tmp_path: Path) -> None:
    """In noise a thousand times the signal the median of what is possible is all that is left."""
    progress = Heard()
    trained(tmp_path, steps=200, loss="l1", learning_rate=5e-3, noise=10.0, dropout=0.0, progress=progress)
    assert any("the output of oiii has collapsed: its variance is" in line for line in progress.lines)


def test_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert precisions.precision(SeparationSettings(precision="bf16-mixed")) == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precisions, "has_bfloat16", lambda device: device != "cpu")
    assert precisions.precision(SeparationSettings()) == "32-true"
    monkeypatch.setattr(precisions, "has_bfloat16", lambda device: device == "cpu")
    assert precisions.precision(SeparationSettings()) == "bf16-mixed"
    net = trained(tmp_path, steps=4, loss="wasserstein")
    assert all(v.dtype == torch.float32 for k, v in net.state_dict().items() if "num_batches" not in k)
    assert net.spec.facts["history"][-1]["error"] > 0
