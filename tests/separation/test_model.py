"""Pairs of observed maps and lines, the Wiener filter, what is said of a training, and the folder of a separator."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eorinfer.core.errors import InputError, WorkError
from eorinfer.separation.apply import estimate, flow_draw, gan_draw, separate, tiled
from eorinfer.separation.data import Lines, Pairs, Target, find_targets, seeds_of, share_channels, split
from eorinfer.separation.health import diagnose
from eorinfer.separation.model import Separator
from eorinfer.separation.wiener import WienerFilter
from eorinfer.settings.separation import SeparationSettings
from eorinfer.survey.base import Identity
from eorinfer.survey.gaussian import WhiteNoiseSurvey
from simulators import GaussianField, Symmetry, build
from tests.mocks import SLAB, mock_bank, parts, separator_spec

ALL = Symmetry((False, False), "all")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def separator(**settings: Any) -> Separator:
    torch.manual_seed(0)
    return Separator(separator_spec(mock_bank(), **settings))


# -- targets and splits ----------------------------------------------------------------------------


def test_targets_of_maps_and_cubes() -> None:
    slab = build(SLAB).observables
    cubes = build({"kind": "lim-mock", "geometry": "cubes", "lines": ["ha", "oiii", "oii"]}).observables
    assert find_targets(slab, ()) == (Target("ha", 0), Target("oiii", 0))
    assert find_targets(cubes, ()) == (Target("ha", 0), Target("oiii", 1))
    assert find_targets(cubes, ("oii:1", "ha")) == (Target("oii", 1), Target("ha", 1))
    for wanted in ("hb", "ha:1", "ha:", "ha:x"):
        with pytest.raises(ValueError, match=f'"{wanted}" is not a line of this simulator.* ha, oiii and CHANNEL'):
            find_targets(slab, (wanted,))
    with pytest.raises(ValueError, match="each may be given once"):
        find_targets(slab, ("ha", "ha:0"))
    with pytest.raises(ValueError, match='gives "field" alone'):
        find_targets(GaussianField(cells=8).observables, ())


@pytest.mark.job
def test_realisations_are_never_split() -> None:
    rows = mock_bank().rows().ok
    found = split(rows, 0.2, 0.2)
    seeds = [set(seeds_of(part)) for part in (found.training, found.validation, found.test)]
    assert set.union(*seeds) == set(seeds_of(rows))
    assert sum(len(s) for s in seeds) == len(set(seeds_of(rows)))
    assert all(len(s) > 0 for s in seeds)
    fewer = split(rows[np.isin(rows.seed, sorted(seeds[0]))], 0.2, 0.2)
    assert set(seeds_of(fewer.training)) <= seeds[0]
    three = rows[np.isin(rows.seed, np.unique(rows.seed)[:3])]
    assert [len(seeds_of(p)) for p in (split(three, 0.01, 0.01).__dict__).values()] == [1, 1, 1]
    with pytest.raises(
        WorkError, match=r"16 valid simulations of 2 realisation\(s\): a separation needs at least three"
    ):
        split(rows[np.isin(rows.seed, np.unique(rows.seed)[:2])], 0.1, 0.1)


# -- pairs -----------------------------------------------------------------------------------------


def test_observed_maps_are_of_the_sum_with_fresh_noise() -> None:
    lines = Lines(mock_bank(), mock_bank().rows().ok)
    (clean,) = lines.__getitems__(list(range(64)))
    assert clean.shape == (64, 2, 1, 32, 32)
    pairs = Pairs(WhiteNoiseSurvey(6e-3), ALL, lines.names, (Target("oiii", 0), Target("ha", 0)))
    rng = generator()
    observed, true = pairs(clean, rng)
    again, _ = pairs(clean, rng)
    assert torch.equal(true[:, 0], clean[:, 1, 0])
    assert torch.equal(true[:, 1], clean[:, 0, 0])
    assert (observed[:, 0] - true.sum(1)).std() == pytest.approx(6e-3, rel=0.02)
    assert (observed - again).std() == pytest.approx(6e-3 * 2**0.5, rel=0.02)


@pytest.mark.parametrize("mix", [False, True])
def test_lines_are_turned_together_or_mixed(mix: bool) -> None:
    lines = Lines(mock_bank(), mock_bank().rows().ok)
    (clean,) = lines.__getitems__(list(range(32)))
    pairs = Pairs(Identity(), ALL, lines.names, (Target("ha", 0), Target("oiii", 0)), mix)
    observed, true = pairs(clean, generator(), training=True)
    torch.testing.assert_close(observed[:, 0], true.sum(1))
    means, before = true.double().mean((2, 3)), clean.double().mean((2, 3, 4))
    rows = [torch.cdist(means[:, i, None], before[:, i, None]).argmin(1) for i in range(2)]
    for i in range(2):
        assert sorted(rows[i].tolist()) == list(range(32))
    assert torch.equal(rows[0], torch.arange(32)) == (not mix)
    assert torch.equal(rows[0], rows[1]) == (not mix)
    assert not torch.equal(true[:, 0], clean[rows[0], 0, 0])


def test_cubes_are_mixed_by_volume() -> None:
    clean = torch.randn(32, 3, 2, 8, 8, 4, generator=generator())
    symmetry = Symmetry((False,) * 3, "transverse")
    targets = (Target("a", 0), Target("b", 1))
    pairs = Pairs(Identity(), symmetry, ["a", "b", "c"], targets, mix=True)
    lines = pairs._augmented(clean, generator())
    # Where a map is from, by its mean, which no mirror changes.
    means, before = (x.double().mean((3, 4, 5)) for x in (lines, clean))
    rows = [(means[:, i, c, None] - before[None, :, i, c]).abs().argmin(1) for i in range(3) for c in range(2)]
    assert torch.equal(rows[0], torch.arange(32))
    assert torch.equal(rows[3], torch.arange(32))
    for other in (rows[1], rows[2], rows[4], rows[5]):
        assert sorted(other.tolist()) == list(range(32))
        assert not torch.equal(other, rows[0])
    # One structure in two lines is turned as one.
    both = Pairs(Identity(), symmetry, ["a", "b", "c"], targets, mix=True)
    clean[:, 1, 1] = clean[:, 0, 0]
    lines = both._augmented(clean, generator())
    assert torch.equal(lines[:, 1, 1], lines[:, 0, 0])
    assert not torch.equal(lines[:, 0, 0], clean[:, 0, 0])


def test_cubes_that_share_channels() -> None:
    cubes = {"kind": "lim-mock", "geometry": "cubes", "pixels": 16}
    assert not share_channels(build(cubes | {"channels": 11}).observables[0])
    assert share_channels(build(cubes | {"channels": 12}).observables[0])
    assert not share_channels(build(SLAB).observables[0])


def test_an_image_that_is_no_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = mock_bank()
    read = bank.read
    monkeypatch.setattr(bank, "read", lambda name, rows: read(name, rows) * (1.1 if name == "total" else 1.0))
    with pytest.raises(WorkError, match="total is not the sum of ha, oiii"):
        Lines(bank, bank.rows().ok)


# -- Wiener filter ---------------------------------------------------------------------------------


def gaussian_lines(n: int, cells: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red line, a white one and white noise, and the gain of the red one in their sum."""
    rng = generator(seed)
    axes = tuple(range(-len(cells), 0))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(c) * c for c in cells], indexing="ij")).square().sum(0).sqrt()
    power = (1 + k) ** -2
    white = torch.randn(n, 1, *cells, generator=rng)
    red = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * power.sqrt(), dim=axes).real
    other = 0.3 * torch.randn(n, 1, *cells, generator=rng)
    noise = 0.2 * torch.randn(n, 1, *cells, generator=rng)
    return torch.cat([red, other], 1) + 2.0, noise, power / (power + 0.3**2 + 0.2**2)


@pytest.mark.parametrize("cells", [(16, 16), (8, 8, 6)])
def test_the_filter_is_the_ideal_one(cells: tuple[int, ...]) -> None:
    axes = tuple(range(-len(cells), 0))
    lines, noise, gain = gaussian_lines(600, cells, 1)
    observed = lines.sum(1, keepdim=True) + noise
    wiener = WienerFilter(1, 2, cells, (1.0,) * len(cells))
    wiener.fit(zip(observed.split(64), lines.split(64), strict=True))
    lines, noise, _ = gaussian_lines(64, cells, 2)
    observed = lines.sum(1, keepdim=True) + noise
    ideal = 2 + torch.fft.ifftn(torch.fft.fftn(observed - 4, dim=axes) * gain, dim=axes).real
    found = wiener(observed)
    assert (found[:, :1] - ideal).std() < 0.1 * ideal.std()
    # The orthogonality of the best linear estimate: its error has nothing in common with what is observed.
    error = found - lines
    assert (error * (observed - 4)).mean().abs() < 0.05 * error.std() * observed.std()
    assert error[:, 0].square().mean() < 1.03 * (ideal[:, 0] - lines[:, 0]).square().mean()


def test_channels_that_are_the_same_data() -> None:
    lines, noise, _ = gaussian_lines(200, (16, 16), 1)
    one = lines.sum(1, keepdim=True) + noise
    twice = torch.cat([one, one], 1)
    single, double = WienerFilter(1, 2, (16, 16), (1.0, 1.0)), WienerFilter(2, 2, (16, 16), (1.0, 1.0))
    single.fit([(one, lines)])
    double.fit([(twice, lines)])
    torch.testing.assert_close(single(one), double(twice), atol=1e-3, rtol=1e-3)


def test_a_second_channel_with_the_same_line_helps() -> None:
    lines, noise, _ = gaussian_lines(400, (16, 16), 1)
    other = 0.5 * lines[:, :1] + 0.1 * torch.randn(noise.shape, generator=generator(9))
    both = torch.cat([lines.sum(1, keepdim=True) + noise, other], 1)
    single, double = WienerFilter(1, 2, (16, 16), (1.0, 1.0)), WienerFilter(2, 2, (16, 16), (1.0, 1.0))
    single.fit([(both[:, :1], lines)])
    double.fit([(both, lines)])
    errors = [(f - lines)[:, 0].square().mean() for f in (single(both[:, :1]), double(both))]
    assert errors[1] < 0.7 * errors[0]


# -- what is said of a training --------------------------------------------------------------------


def stages(n: int, **changes: Any) -> list[dict[str, Any]]:
    sound = {
        "accuracy": 0.7,
        "gap": 1.0,
        "variance": [0.8, 0.5],
        "spread": [0.1, 0.1],
        "validation": 0.5,
        "adversarial": True,
        "draws": True,
    }
    return [sound | changes for _ in range(n)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"accuracy": 0.99, "gap": 12.0},
            "the discriminator has won: for 3 stages it has told 99.0% of the pairs apart",
        ),
        ({"variance": [0.6, 0.01]}, "the output of oiii has collapsed: its variance is 1.0% of that of the true maps"),
        ({"spread": [1e-6, 0.1]}, "draws of ha do not vary: their spread is 1.0e-06 of their error"),
        (
            {"validation": 0.6},
            "training maps are learnt by heart: the error on validation maps is 20% above its lowest",
        ),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    names = ["ha", "oiii"]
    assert diagnose(stages(5), names) == []
    assert diagnose(stages(5) + stages(2, **changes), names) == []
    (warning,) = diagnose(stages(5) + stages(3, **changes), names)
    assert warning.startswith(said)
    assert diagnose(stages(5, **changes) + stages(1), names) == []


def test_without_a_discriminator_and_draws_nothing_is_said_of_them() -> None:
    history = stages(4, accuracy=1.0, spread=[0.0, 0.0], adversarial=False, draws=False)
    assert diagnose(history, ["ha", "oiii"]) == []


# -- the folder ------------------------------------------------------------------------------------


def test_a_separator_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    before = separator(kind="cgan")
    lines = Lines(mock_bank(), parts(mock_bank()).training)
    pairs = Pairs(WhiteNoiseSurvey(6e-3), ALL, lines.names, before.spec.targets)
    observed, true = pairs(lines.__getitems__(list(range(40)))[0], generator())
    before.fit_scalings(observed, true)
    before.wiener.fit([(observed, true)])
    before.save(tmp_path / "separator")
    assert sorted(p.name for p in (tmp_path / "separator").iterdir()) == ["separator.json", "weights.safetensors"]
    after = Separator.load(tmp_path / "separator")
    assert after.spec == before.spec
    with torch.no_grad():
        torch.testing.assert_close(after(observed), before(observed), rtol=0, atol=0)
        torch.testing.assert_close(after.wiener(observed), before.wiener(observed), rtol=0, atol=0)
        assert not torch.equal(after(observed, generator()), after(observed, generator(2)))
    assert not after.train().training
    assert not any(p.requires_grad for p in after.parameters())


def test_it_works_in_physical_units_above_a_floor_and_below_a_ceiling() -> None:
    net = separator(kind="cgan")
    lines = torch.rand(8, 2, 32, 32) * torch.tensor([1e-3, 1.0])[:, None, None]
    net.fit_scalings(lines.sum(1, keepdim=True), lines)
    with torch.no_grad():
        first, second = net(lines.sum(1, keepdim=True)).abs().amax((0, 2, 3)).tolist()
        assert first < 0.1 * second
        bright = net(1e30 * torch.rand(1, 1, 32, 32))
    assert bright.isfinite().all()
    assert (bright.amax((0, 2, 3)) <= torch.tensor([2e-3, 2.0])).all()
    assert bright.amin() >= lines.amin() > 0


def damaged(folder: Path, how: str) -> None:
    path = folder / "separator.json"
    content = json.loads(path.read_text())
    if how == "format":
        path.write_text(json.dumps(content | {"format": 9}))
    elif how == "json":
        path.write_text("{")
    elif how == "lacking":
        del content["targets"]
        path.write_text(json.dumps(content))
    elif how == "key":
        path.write_text(json.dumps(content | {"separation": content["separation"] | {"colour": 1}}))
    elif how == "shape":
        path.write_text(json.dumps(content | {"separation": content["separation"] | {"width": 6}}))
    elif how == "weights":
        (folder / "weights.safetensors").write_bytes(b"\x80\x04")
    elif how == "tensor":
        weights = load_file(folder / "weights.safetensors")
        del weights["ceiling"]
        save_file(weights, folder / "weights.safetensors")
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("format", "format 9, this version reads format 3"),
        ("json", "cannot be read as JSON"),
        ("lacking", r"cannot be read \('targets'\)"),
        ("key", "colour"),
        ("shape", "size mismatch"),
        ("weights", "weights.safetensors|header"),
        ("tensor", "Missing key.*ceiling"),
        ("none", "no separator here"),
    ],
)
def test_a_damaged_separator_is_refused(tmp_path: Path, how: str, said: str) -> None:
    separator().save(tmp_path / "separator")
    damaged(tmp_path / "separator", how)
    with pytest.raises(InputError, match=said):
        Separator.load(tmp_path / "separator")


def test_what_an_observed_map_must_be_like() -> None:
    net = separator()
    larger = net.observable_of((1, 80, 96), "sky.h5")
    assert larger.field_of_view == pytest.approx(80 * 0.8 / 60)
    assert replace(larger, shape=(1, 32, 32), field_of_view=32 * 0.8 / 60) == net.spec.observable
    for shape in [(2, 32, 32), (1, 16, 32), (1, 32, 32, 4), (32, 32)]:
        with pytest.raises(InputError, match=r"sky\.h5: the map has shape .*, the separator takes \(1, 32, 32\)"):
            net.observable_of(shape, "sky.h5")


# -- application -----------------------------------------------------------------------------------


def test_tiles_agree_where_the_network_sees_little() -> None:
    """A network of one level reaches two cells far: tiles give what the whole map gives, away from its edges."""
    net = separator(depth=1, kind="cgan")
    observed = torch.randn(1, 64, 96)
    with torch.no_grad():
        # The filter is not fitted: it gives zero, here of a map that is larger than it takes.
        inputs = torch.cat([net.source_scaling(observed[None]), torch.zeros(1, 2, 64, 96)], dim=1)
        whole = net.target_scaling.inverse(net.generator(inputs))[0]
    made = tiled(net, observed[None], (32, 32))[0]
    assert made.shape == whole.shape
    inside = (slice(None), slice(4, -4), slice(4, -4))
    # Half-transparent edges of tiles mirror what is beyond: a weight of sin^2 keeps that below a percent.
    assert (made - whole)[inside].std() < 0.01 * whole.std()


def test_tiles_cover_a_map_smoothly() -> None:
    net = separator()
    torch.nn.init.normal_(net.generator.last.convolution.weight, std=0.1)
    observed = torch.randn(1, 32, 101)
    made = tiled(net, observed[None], (32, 32))[0]
    assert made.isfinite().all()
    steps = (made[..., 1:] - made[..., :-1]).abs().mean((0, 1))
    assert steps.max() < 2 * steps.mean()
    # Of the size of training it is one tile.
    with torch.no_grad():
        torch.testing.assert_close(tiled(net, observed[None, ..., :32], (32, 32)), net(observed[None, ..., :32]))


@pytest.mark.parametrize("kind", ["cgan", "flow-matching"])
def test_draws_their_mean_and_spread(kind: str) -> None:
    net = separator(kind=kind, flow_steps=2)
    observed = np.random.default_rng(1).normal(size=(1, 32, 48)).astype(np.float32)
    made, again, other = (separate(net, observed, 4, seed) for seed in (1, 1, 2))
    assert made.draws.shape == (4, 2, 32, 48)
    np.testing.assert_array_equal(made.draws, again.draws)
    assert np.std(made.draws - other.draws) > 0
    # The mean is that of the posterior, whatever the number of draws.
    assert made.lines.shape == (2, 32, 48)
    np.testing.assert_array_equal(separate(net, observed, 2).draws, made.draws[:2])
    assert made.spread is not None
    assert (made.spread > 0).mean() > 0.9
    one = separate(net, observed, 1)
    assert one.spread is not None
    assert np.isnan(one.spread).all()
    assert separate(net, observed).spread is None
    if kind == "flow-matching":
        np.testing.assert_allclose(separate(net, observed).lines, made.lines, rtol=1e-5)


def test_a_mean_alone_makes_no_draws() -> None:
    with pytest.raises(InputError, match='kind = "mean" makes no draws'):
        separate(separator(kind="mean"), np.zeros((1, 32, 32), np.float32), 2)


@pytest.mark.parametrize("kind", ["mean", "flow-matching"])
def test_a_separator_from_before_there_was_a_network_of_half_resolution(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    before = Separator(replace(separator_spec(mock_bank(), kind=kind), earlier=True))
    before.save(tmp_path)
    after = Separator.load(tmp_path)
    assert after.spec == before.spec
    observed = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(estimate(after, observed), estimate(before, observed))
    if kind == "flow-matching":
        made, drawn = (flow_draw(net, observed, estimate(net, observed), 3) for net in (after, before))
        torch.testing.assert_close(made, drawn)


def test_a_separator_from_before_there_was_a_correction(tmp_path: Path) -> None:
    before = separator(kind="cgan")
    before.save(tmp_path)
    weights = load_file(tmp_path / "weights.safetensors")
    save_file({k: v for k, v in weights.items() if "correction" not in k}, tmp_path / "weights.safetensors")
    content = json.loads((tmp_path / "separator.json").read_text())
    del content["separation"]["kind"], content["separation"]["flow_steps"]
    (tmp_path / "separator.json").write_text(json.dumps(content))
    after = Separator.load(tmp_path)
    assert after.spec.settings.kind == "cgan"
    observed = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(estimate(after, observed), before(observed))
    drawn = gan_draw(after, observed, 3)
    corrected = after.correction.of_draw(observed, drawn, drawn, generator())
    torch.testing.assert_close(corrected, drawn)


@pytest.mark.parametrize(
    ("table", "kind"),
    [({}, "flow-matching"), ({"loss": "l1"}, "cgan"), ({"dropout": 0.1}, "cgan"), ({"kind": "mean"}, "mean")],
)
def test_an_old_table_is_of_a_gan(table: dict[str, Any], kind: str) -> None:
    assert SeparationSettings(**table).kind == kind
