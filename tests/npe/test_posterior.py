"""The posterior bundle: the same posterior after a round trip, for the observations that it holds for alone."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kstest

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.marginals import LogUniform, Normal
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.batched import Truncation, draw
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.region import Region, draw_truncated
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.settings.survey import WhiteNoise
from simulators import GaussianField, Parameter

SIMULATOR = GaussianField(cells=8, box_length=8.0)
OBSERVABLE = SIMULATOR.observables[0]
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})
ARCHITECTURE = Architecture(
    EmbeddingSettings(width=4), FlowSettings(transforms=2, hidden=(16,)), PowerSpectrumSettings(bins=3)
)


def observation(log_amplitude: float = 0.5, seed: int = 1) -> Observation:
    theta = np.array([log_amplitude, -1.5])
    return Observation.from_observable(OBSERVABLE, SIMULATOR.simulate(theta, seed)["field"], theta, seed)


def posterior(seed: int, narrow: float = 1.0, regions: tuple[Region, ...] = ()) -> Posterior:
    """An untrained ensemble whose first parameter follows the mean of log|x|^2 through the affine map.

    Parameters
    ----------
    narrow
        Log of how much narrower than the prior.
    """
    networks = []
    for member in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(10 * seed + member)
            network = ARCHITECTURE.build(PRIOR, OBSERVABLE)
            for parameter in network.flow.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        with torch.no_grad():
            # Observations of other amplitude get other features, and these another mean.
            ours, other = (network.embedding(torch.from_numpy(observation(a).values[None]))[0] for a in (0.5, 3.0))
            step = (other - ours) / (other - ours).square().sum()
            network.normal.mean.weight[0] = 4.0 * step
            network.normal.mean.bias[0] = -4.0 * step @ ours
            network.normal.log_width.bias.fill_(-1.3 - narrow)
        networks.append(network.eval())
    return Posterior(
        PRIOR, OBSERVABLE, WhiteNoise(kind="white-noise", sigma=0.3), ARCHITECTURE, tuple(networks), regions
    )


@pytest.fixture(scope="module")
def first() -> Posterior:
    return posterior(1)


@pytest.fixture(scope="module")
def second(first: Posterior) -> Posterior:
    """Make a posterior of a second round, truncated where the first has its mass for our observation."""
    return posterior(2, narrow=1.5, regions=(first.region(observation(), 1e-3, seed=3),))


@pytest.fixture(scope="module")
def third(second: Posterior) -> Posterior:
    region = second.region(observation(), 1e-3, seed=4)
    return posterior(3, narrow=1.8, regions=(*second.regions, region))


def anywhere(n: int = 2000) -> NDArray[np.float64]:
    return PRIOR.sample(n, np.random.default_rng(5))


@pytest.mark.parametrize("round", [1, 2, 3])
def test_it_is_the_same_after_a_round_trip(tmp_path: Path, round: int, request: pytest.FixtureRequest) -> None:
    ours: Posterior = request.getfixturevalue({1: "first", 2: "second", 3: "third"}[round])
    replace(ours, facts={"key": "abc"}).save(tmp_path / "p")
    torch.manual_seed(12)
    state = torch.get_rng_state()
    back = Posterior.load(tmp_path / "p")
    x = observation()
    assert back.log_density(anywhere(), x).tobytes() == ours.log_density(anywhere(), x).tobytes()
    assert back.sample(x, 500, 7).values.tobytes() == ours.sample(x, 500, 7).values.tobytes()
    assert back.sample(x, 500, 8).values.tobytes() != ours.sample(x, 500, 7).values.tobytes()
    assert np.array_equal(back.contains(anywhere()), ours.contains(anywhere()))
    assert torch.equal(torch.get_rng_state(), state), "global random state is untouched"
    assert (back.survey, back.prior, back.observable) == (ours.survey, ours.prior, ours.observable)
    assert back.facts == {"key": "abc"}
    files = [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"} | ({".h5"} if round > 1 else set())
    for path in files:
        assert not path.read_bytes().startswith((b"\x80", b"PK")), "neither pickle nor torch's zip"
    back.save(tmp_path / "p")
    assert [path.name for path in tmp_path.iterdir()] == ["p"], "saving over it leaves nothing beside it"


def test_the_ensemble_is_the_mean_of_its_members(first: Posterior) -> None:
    x, theta = observation(), anywhere()
    each = [replace(first, networks=(network,)).log_density(theta, x) for network in first.networks]
    np.testing.assert_allclose(first.log_density(theta, x), np.logaddexp(*each) - np.log(2), rtol=1e-5)
    outside = first.log_density(np.array([[-2.1, -1.0], [np.nan, -1.0]]), x)
    assert (outside == -np.inf).all()


def wrong_observations() -> Iterator[tuple[str, Observation]]:
    ours = observation()
    yield "shape (1, 8, 9), expected (1, 8, 8)", replace(ours, values=np.zeros((1, 8, 9), np.float32))
    values = ours.values.copy()
    values[0, 2, 3] = np.nan
    yield "1 of 64 values are NaN or infinite", replace(ours, values=values)
    yield "unit is 'mK', expected ''", replace(ours, unit="mK")
    yield "axes is ('redshift', 'x', 'y')", replace(ours, axes=("redshift", "x", "y"))
    yield "cell_size is [2.0, 1.0], expected [1.0, 1.0]", replace(ours, cell_size=(2.0, 1.0))


@pytest.mark.parametrize(("message", "wrong"), list(wrong_observations()), ids=["shape", "nan", "unit", "axes", "cell"])
def test_an_observation_that_does_not_fit_is_refused(first: Posterior, message: str, wrong: Observation) -> None:
    for use in (
        lambda: first.sample(wrong, 10, 1),
        lambda: first.log_density(anywhere(3), wrong),
        lambda: first.region(wrong, 1e-3, 1),
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert message in str(caught.value)


def test_a_region_holds_the_mass_that_it_should(first: Posterior) -> None:
    region = first.region(observation(), 0.05, seed=1)
    drawn = first.sample(observation(), 5000, seed=2).values
    assert abs(region.contains(drawn).mean() - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 5000)
    assert 0.02 < region.contains(anywhere()).mean() < 0.8


def test_samples_of_truncated_posteriors_are_inside_all_regions(second: Posterior, third: Posterior) -> None:
    for truncated in (second, third):
        drawn = truncated.sample(observation(), 2000, 1).values
        assert len(drawn) == 2000
        assert PRIOR.contains(drawn).all()
        for region in truncated.regions:
            assert region.contains(drawn).all()


def test_regions_are_nested(first: Posterior, second: Posterior, third: Posterior) -> None:
    inside = [one.contains(anywhere()) for one in (first, second, third)]
    assert inside[0].all()
    assert (inside[0] >= inside[1]).all()
    assert (inside[1] >= inside[2]).all()
    assert inside[2].any()


def test_a_truncated_posterior_is_for_its_observation_alone(first: Posterior, second: Posterior) -> None:
    assert len(second.sample(observation(), 1000, 1)) == 1000
    far = observation(log_amplitude=3.0)
    with pytest.raises(InputError) as caught:
        second.sample(far, 1000, 1)
    assert "was trained in rounds truncated for one observation" in str(caught.value)
    assert "use the posterior of the first round (rounds/01), which holds for any observation" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(first.sample(far, 1000, 1)) == 1000


def test_truncated_draws_are_the_prior_inside_all_regions(third: Posterior) -> None:
    drawn, volume = draw_truncated(PRIOR, third.regions, 3000, np.random.default_rng(1))
    assert drawn.shape == (3000, 2)
    assert third.contains(drawn).all()
    many = PRIOR.sample(20000, np.random.default_rng(2))
    inside = many[third.contains(many)]
    assert abs(volume - len(inside) / 20000) < 5 * np.sqrt(volume / 10000)
    # Flat inside: the same distribution as all of the prior that is inside.
    error = inside.std(0) * np.sqrt(1 / 3000 + 1 / len(inside))
    assert (np.abs(drawn.mean(0) - inside.mean(0)) < 4.5 * error).all()
    again, _ = draw_truncated(PRIOR, third.regions, 3000, np.random.default_rng(1))
    assert again.tobytes() == drawn.tobytes()
    everything, volume = draw_truncated(PRIOR, (), 10, np.random.default_rng(1))
    assert volume == 1.0
    assert len(everything) == 10


def test_many_draws_from_a_small_region_take_few_passes_and_are_the_prior_inside_it() -> None:
    """By rejection they would take 200 million, seven hours of a network; rows of an emulator are so many."""
    flat = tuple(Parameter(name, name, 0.0, 1.0, 0.5) for name in "abcdef")
    wide = Prior.from_marginals(flat, {"a": LogUniform(0.01, 1.0), "f": Normal(0.0, 1.0, 0.7, 0.1)})
    passes: list[int] = []

    class Shell:
        def log_density(self, theta: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
            passes.append(len(theta))
            u = wide.unit(theta)
            return -np.abs(u[:, 1:].sum(1) - 2.5) - 4 * np.abs(u[:, 0] - u[:, 1]) - np.abs(u[:, 2] - u[:, 3])

        def save(self, folder: Path) -> None:
            raise NotImplementedError

    region = Region(Shell(), observation(), -0.12, wide)
    drawn, volume = draw_truncated(wide, [region], 60000, np.random.default_rng(1))
    assert drawn.shape == (60000, 6)
    assert region.contains(drawn).all()
    assert sum(passes) < 1e7
    few, again = draw_truncated(wide, [region], 3000, np.random.default_rng(2))
    assert abs(np.log(volume / again)) < 0.25
    u, v = wide.unit(drawn), wide.unit(few)
    for i in range(6):
        assert kstest(u[::20, i], v[:, i]).pvalue > 1e-4
    assert kstest(u[::20, 0] - u[::20, 1], v[:, 0] - v[:, 1]).pvalue > 1e-4
    assert len(np.unique(u, axis=0)) > 20000


def test_an_empty_region_ends(first: Posterior, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Region(first, observation(), np.inf, PRIOR)
    monkeypatch.setattr("eorinfer.npe.region.BATCH", 3_000_000)
    monkeypatch.setattr(Region, "contains", lambda self, theta: np.zeros(len(theta), bool))
    with pytest.raises(WorkError, match="less than a millionth of the box around it"):
        draw_truncated(PRIOR, (empty,), 10, np.random.default_rng(1))


def test_folders_that_hold_no_posterior(tmp_path: Path, first: Posterior) -> None:
    with pytest.raises(InputError, match=r"no posterior here \(posterior\.json is missing\)"):
        Posterior.load(tmp_path)
    folder = tmp_path / "p"
    first.save(folder)
    content = json.loads((folder / "posterior.json").read_text())
    for name, wrong, message in (
        ("posterior.json", json.dumps(content | {"format": 99}), "format 99, this version reads format 2"),
        ("posterior.json", json.dumps(content | {"flow": {"kind": "maf"}}), "the posterior cannot be read"),
        ("posterior.json", json.dumps({k: v for k, v in content.items() if k != "prior"}), "cannot be read ('prior')"),
        ("posterior.json", "{", "cannot be read as JSON"),
        ("weights.safetensors", "not weights", "the posterior cannot be read"),
    ):
        (folder / name).write_text(wrong)
        with pytest.raises(InputError) as caught:
            Posterior.load(folder)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        first.save(folder)


def test_an_observation_is_an_object_an_array_or_a_file(tmp_path: Path, first: Posterior) -> None:
    x = observation()
    ours = first.sample(x, 50, seed=7)
    x.write(tmp_path / "x.h5")
    np.save(tmp_path / "x.npy", x.values)
    for other in (x.values, x.values.astype(float), tmp_path / "x.h5", str(tmp_path / "x.npy")):
        np.testing.assert_array_equal(first.sample(other, 50, seed=7).values, ours.values)
    assert not np.array_equal(first.sample(x, 50).values, first.sample(x, 50).values), "without a seed: others"
    for wrong, message in ((x.values + 1j, "complex"), (x.values[:, :4], "shape"), (tmp_path / "y.h5", "no such file")):
        with pytest.raises(InputError, match=message):
            first.sample(wrong, 50)
    for n in (0, -1, 1e3):
        with pytest.raises(InputError, match="must be a whole number of samples, at least 1"):
            first.sample(x, n)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="must be a whole number of samples, at least 1"):
            first.sample_many([x], n)  # type: ignore[arg-type]
    assert len(first.sample(x, np.int64(3))) == 3  # type: ignore[arg-type]
    assert len(first.sample(x.values[:, ::-1], 3)) == 3
    for seed in (-1, 1.5, 2**32, True):
        with pytest.raises(InputError, match=r"seed = .*: must be a whole number, 0 or more and below 2\^32"):
            first.sample(x, 5, seed=seed)  # type: ignore[arg-type]


def test_a_density_is_of_rows_of_parameters(first: Posterior) -> None:
    x, theta = observation(), np.array([[0.5, -1.5]])
    assert first.log_density(theta.tolist(), x) == first.log_density(theta, x)
    for wrong in (theta[0], np.ones((2, 3)), 1.0):
        with pytest.raises(InputError, match=r"theta has shape .*, expected \(n, 2\)"):
            first.log_density(wrong, x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"theta must be an array \(n, P\) of numbers"):
        first.log_density({"log_amplitude": 0.5, "slope": -1.5}, x)  # type: ignore[arg-type]


@pytest.mark.parametrize("round", [1, 2])
def test_many_images_at_once(round: int, request: pytest.FixtureRequest) -> None:
    ours: Posterior = request.getfixturevalue({1: "first", 2: "second"}[round])
    images = np.stack([observation(0.5, seed).values for seed in (1, 2)])
    many = ours.sample_many(images, 4000, seed=3)
    assert [len(samples) for samples in many] == [4000, 4000]
    for image, samples in zip(images, many, strict=True):
        alone = ours.sample(image, 4000, seed=4)
        np.testing.assert_allclose(samples.mean, alone.mean, atol=float(5 * alone.std.max() / 4000**0.5))
    again = ours.sample_many([Observation.from_observable(OBSERVABLE, image) for image in images], 4000, seed=3)
    np.testing.assert_array_equal(again[1].values, many[1].values)
    assert ours.sample_many([], 10) == []
    for alone_given in (observation(), "x.h5"):
        with pytest.raises(InputError, match="images: give a list of observations"):
            ours.sample_many(alone_given, 10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"images\[1\]: observation: .*NaN"):
        ours.sample_many([images[0], np.full_like(images[0], np.nan)], 10)


def test_draws_that_are_no_numbers_end_sampling(first: Posterior) -> None:
    lost = deepcopy(first)
    for network in lost.networks:
        network.normal.mean.bias.data.fill_(torch.nan)
    with pytest.raises(WorkError, match="the networks draw parameters that are not numbers for this observation"):
        lost.draw(observation(), 50, seed=1)
    read = lost.read(torch.from_numpy(observation().values[None]))
    with pytest.raises(WorkError, match="not numbers for 1 of 1 observations"):
        draw(lost, read, 50, seed=1)


def test_draws_that_are_never_inside_the_prior_end_sampling(first: Posterior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eorinfer.npe.inside.TRIED", 3000)
    for network in first.networks:
        monkeypatch.setattr(network, "sample", lambda n, read: torch.full((n, len(read), 2), 50.0, dtype=torch.float64))
    with pytest.raises(WorkError, match="0 of 3000 draws are inside the prior"):
        first.draw(observation(), 50, seed=1)


def test_a_posterior_with_nothing_inside_its_regions_has_no_share_there(
    second: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its draws is inside, and its density there is zero: the truth counts as the failure it is."""
    theta, volume = draw_truncated(PRIOR, second.regions, 100, np.random.default_rng(1))
    for network in second.networks:
        monkeypatch.setattr(network, "sample", lambda n, read: torch.full((n, len(read), 2), 50.0, dtype=torch.float64))
        nothing = lambda t, read: torch.full((len(t), len(read)), -torch.inf)  # noqa: E731
        monkeypatch.setattr(network, "log_prob", nothing)
    monkeypatch.setattr(Posterior, "contains", lambda _, t: np.zeros(len(t), bool))
    read = second.read(torch.from_numpy(observation().values[None]))
    drawn = draw(second, read, 20, 1, Truncation(theta, volume))
    assert drawn.share.tolist() == [0.0]
    assert drawn.pooled.tolist() == [True]
    assert np.isfinite(drawn.values).all()
