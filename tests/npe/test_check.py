"""The check of an observation: it warns of what the simulations are not, and of nothing else."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kstest, kstwo
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.check import ScaleCheck
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.check import (
    LEVEL,
    HeldOut,
    ObservationCheck,
    check_images,
    check_observation,
    check_together,
    learn_reference,
)
from eorinfer.npe.image_statistics import ImageStatistics
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.reference import regression
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.settings.survey import WhiteNoise
from eorinfer.survey.gaussian import WhiteNoiseSurvey
from simulators import GaussianField, Observable

CELLS, SIGMA = 32, 0.3
SIMULATOR = GaussianField(cells=CELLS, box_length=float(CELLS))
OBSERVABLE = SIMULATOR.observables[0]
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, -1.0)})
SURVEY = WhiteNoiseSurvey(SIGMA)


class Rows:
    """Simulations in memory, where the check wants rows of a bank."""

    def __init__(self, theta: NDArray[np.float64], first_seed: int) -> None:
        self.theta = torch.from_numpy(theta)
        self.seeds = np.arange(first_seed, first_seed + len(theta), dtype=np.uint64)
        self.clean = torch.from_numpy(fields(theta, first_seed))

    def __len__(self) -> int:
        return len(self.theta)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.theta[indices], self.clean[indices]


def held_out(rows: Any) -> HeldOut:
    return HeldOut((0,), rows, rows.seeds)


def fields(theta: NDArray[np.float64], first_seed: int) -> NDArray[np.float32]:
    return np.stack([SIMULATOR.simulate(t, first_seed + i)["field"] for i, t in enumerate(theta)])


@pytest.fixture(scope="module", autouse=True)
def _many_draws() -> Iterator[None]:
    """An untrained posterior is as wide as the prior: few of its draws are near an image's parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eorinfer.npe.check.DRAWS", 1024)
        yield


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    """Untrained: its features are of no use, the image's statistics have to do."""
    architecture = Architecture(
        EmbeddingSettings(width=4), FlowSettings(transforms=1, hidden=(8,)), PowerSpectrumSettings()
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = architecture.build(PRIOR, OBSERVABLE)
    rng = np.random.default_rng(1)
    training: Any = Rows(PRIOR.sample(500, rng), 1)
    validation: Any = Rows(PRIOR.sample(80, rng), 10_000)
    network.embedding.fit_scaling(SURVEY(training.clean, torch.Generator().manual_seed(1)))
    bare = Posterior(PRIOR, OBSERVABLE, WhiteNoise(kind="white-noise", sigma=SIGMA), architecture, (network.eval(),))
    return replace(
        bare, reference=learn_reference(bare, training, [HeldOut((0,), validation, validation.seeds)], SURVEY, seed=1)
    )


def mocks(theta: NDArray[np.float64], seed: int, noise: float = SIGMA) -> Tensor:
    clean = torch.from_numpy(fields(theta, 100_000 * seed))
    return clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def warned(posterior: Posterior, images: Tensor) -> float:
    return float(np.mean([check.unlike for check in check_images(posterior, images)]))


def at(log_amplitude: float, slope: float, n: int = 20) -> NDArray[np.float64]:
    return np.tile([log_amplitude, slope], (n, 1))


@pytest.mark.job
def test_it_rarely_warns_of_what_is_like_the_simulations(posterior: Posterior) -> None:
    checks = check_images(posterior, mocks(PRIOR.sample(500, np.random.default_rng(2)), 2))
    # The level is right on average over references; with 80 held-out realisations one may have twice that.
    alarms = np.mean([check.unlike for check in checks])
    assert 0.2 * LEVEL <= alarms < 3 * LEVEL, alarms
    for name in ("p_statistics", "p_features"):
        p = np.array([getattr(check, name) for check in checks])
        assert abs(np.mean(p < 0.5) - 0.5) < 0.12, "and its p-values are spread evenly"
        assert kstwo.sf(kstest(p, "uniform").statistic, round(1 / (1 / 80 + 1 / 500))) > 0.02, "like 500 of 580"
        assert 0.02 < np.mean(p < 0.05) < 0.1


def spread(images: Tensor) -> Tensor:
    return images.std(dim=(2, 3), keepdim=True)


def gradient(images: Tensor) -> Tensor:
    return images + 5 * spread(images) * torch.linspace(-1, 1, CELLS)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "mK for K": lambda x: 1000 * x,
    "K for mK": lambda x: x / 1000,
    "foreground": gradient,
    "offset": lambda x: x + 0.5 * spread(x),
    "empty": torch.zeros_like,
    "lognormal": lambda x: torch.exp(x / spread(x)),
    "white noise": lambda x: spread(x) * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.job
def test_it_warns_of_what_the_simulations_are_not(posterior: Posterior, name: str) -> None:
    images = mocks(at(1.0, -2.5), 3)
    assert warned(posterior, images) <= 0.1
    assert warned(posterior, WRONG[name](images)) >= 0.9


@pytest.mark.parametrize(("theta", "noise"), [((-1.5, -2.8), 4 * SIGMA), ((-1.0, -2.8), 0.0)])
def test_it_warns_of_the_wrong_noise_where_noise_is_seen(
    posterior: Posterior, theta: tuple[float, float], noise: float
) -> None:
    """No parameters of the prior look like it: the best of them is off by a chi^2 of 72 and of 1,900."""
    assert warned(posterior, mocks(at(*theta), 4)) <= 0.1
    assert warned(posterior, mocks(at(*theta), 4, noise)) >= 0.8


def test_the_warning_is_in_plain_words(posterior: Posterior) -> None:
    image = mocks(at(0.5, -1.5, 1), 5)[0].numpy()
    check = check_observation(posterior, Observation.from_observable(OBSERVABLE, image))
    assert check is not None
    assert not check.unlike
    assert check.line().startswith("the observation is like the simulations (p = ")
    off = check_observation(posterior, Observation.from_observable(OBSERVABLE, image + 10))
    assert off is not None
    assert off.unlike
    assert off.line().startswith("WARNING: the observation is unlike the simulations (p = ")
    assert "mean " in off.line()
    assert "sigma too high" in off.line()
    assert "Do not trust this posterior" in off.line()
    assert "\n" not in off.line()
    assert json.loads(json.dumps(off.content()))["unlike"] is True
    assert off.deviations[0][0] == "mean"


def test_sampling_from_python_warns(posterior: Posterior) -> None:
    image = mocks(at(0.5, -1.5, 1), 5)[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior.sample(image, 20, seed=1)
        posterior.sample_many([image, image], 20, seed=1)
    with pytest.warns(UserWarning, match="the observation is unlike the simulations"):
        posterior.sample(image + 10, 20, seed=1)
    with pytest.warns(UserWarning, match=r"images\[1\]: the observation is unlike"):
        posterior.sample_many([image, image + 10], 20, seed=1)


def test_the_reference_travels_with_the_posterior(posterior: Posterior, tmp_path: Path) -> None:
    posterior.save(tmp_path / "p")
    assert (tmp_path / "p" / "reference.safetensors").is_file()
    back = Posterior.load(tmp_path / "p")
    observation = Observation.from_observable(OBSERVABLE, mocks(at(0.5, -1.5, 1), 6)[0].numpy())
    ours, theirs = check_observation(posterior, observation), check_observation(back, observation)
    assert ours is not None
    assert theirs is not None
    assert theirs.p_statistics == pytest.approx(ours.p_statistics)
    assert theirs.p_features == pytest.approx(ours.p_features)
    assert [name for name, _ in theirs.deviations] == [name for name, _ in ours.deviations]
    replace(posterior, reference=None).save(tmp_path / "p")
    assert check_observation(Posterior.load(tmp_path / "p"), observation) is None, "as one of an older version"


def test_statistics_of_a_known_image() -> None:
    several = Observable(
        name="t",
        shape=(2, 8, 8, 8),
        unit="mK",
        axes=("redshift", "x", "y", "z"),
        cell_size=(2.0,) * 3,
        channels=(7.0, 8.0),
        symmetry=OBSERVABLE.symmetry,
    )
    statistics = ImageStatistics(several)
    cube = 3 + 2 * torch.randn(400, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    values = statistics(cube)
    assert values.shape == (400, len(statistics.names))
    found = dict(zip(statistics.names, values.mean(0).tolist(), strict=True))
    assert found["mean at z = 7"] == pytest.approx(1.5, rel=0.02)
    assert found["variance at z = 8"] == pytest.approx(np.log(4), abs=0.02)
    assert found["skewness at z = 7"] == pytest.approx(0, abs=0.02)
    assert found["kurtosis at z = 7"] == pytest.approx(np.log(3), abs=0.03)
    power = [value for name, value in found.items() if name.startswith("power")]
    assert power[-1] == pytest.approx(np.log(4 * 8), abs=0.1), "white noise of variance 4 in cells of 8 Mpc^3"
    for empty in (torch.zeros(1, 2, 8, 8, 8), torch.ones(1, 2, 8, 8, 8)):
        assert torch.isfinite(statistics(empty)).all()


def test_the_regression_knows_its_own_error() -> None:
    rng = np.random.default_rng(1)
    theta = torch.from_numpy(rng.random((600, 2)))
    noise = torch.from_numpy(rng.standard_normal((600, 2)))
    curve = torch.stack([torch.sin(4 * theta[:, 0]), theta[:, 0] * theta[:, 1]], dim=1)
    reference = regression(theta[:500], (curve + 0.1 * noise)[:500], theta[:500])
    predicted = reference.predicted(theta[500:]) * reference.scale + reference.centre
    assert (predicted - curve[500:]).abs().max() < 0.15
    error = reference.residual * reference.scale
    np.testing.assert_allclose(error.numpy(), 0.1, rtol=0.15)


def test_the_warning_comes_at_one_percent() -> None:
    """The smaller of two independent p-values has the p-value 1 - (1 - p)^2."""
    assert LEVEL == 0.01
    for one, other in ((0.0049, 0.9), (0.9, 0.0049)):
        assert ObservationCheck(one, other, (), 64).unlike
        assert ObservationCheck(one, other, (), 64).p == pytest.approx(1 - 0.9951**2)
    for one, other in ((0.0051, 0.9), (0.9, 0.0051), (0.0051, 0.0051)):
        assert not ObservationCheck(one, other, (), 64).unlike
    assert ObservationCheck(0.8, 0.9, (), 64).p == pytest.approx(0.96)
    assert ObservationCheck(0.0051, 0.9, (), 64, tests=1.4).unlike, "where the two mostly agree"


def test_a_p_value_that_is_no_number_is_an_alarm() -> None:
    for check in (ObservationCheck(np.nan, 0.5, (), 64), ObservationCheck(0.5, np.nan, (), 64)):
        assert (check.p, check.unlike) == (0.0, True)
        assert "its statistics are not numbers" in check.line()
    check = ScaleCheck(("coarse", "fine"), (0.5, np.nan), (0.1, np.nan), 64)
    assert (check.p, check.unlike) == (0.0, True)
    assert "its ln p is not a number" in check.line()


def test_few_held_out_realisations_cannot_call_an_observation_like_the_simulations(posterior: Posterior) -> None:
    rng = np.random.default_rng(1)
    training: Any = Rows(PRIOR.sample(60, rng), 1)
    validation: Any = Rows(PRIOR.sample(6, rng), 10_000)
    bare = replace(posterior, reference=None)
    weak = replace(
        bare, reference=learn_reference(bare, training, [HeldOut((0,), validation, validation.seeds)], SURVEY, seed=1)
    )
    image = mocks(at(0.5, -1.5, 1), 5)
    (check,) = check_images(weak, image)
    assert check.weak
    assert not check.unlike
    assert check.line().startswith("CANNOT TELL whether the observation is like the simulations: 6 realisations were")
    assert "p is 0.29 at best" in check.line()
    content = check.content()
    assert (content["realisations"], content["smallest_p"]) == (6, pytest.approx(2 / 7))
    (off,) = check_images(weak, 1e4 * image)
    assert abs(dict(off.deviations)["variance"]) > 50
    assert off.unlike
    assert "only 6 realisations held out" in off.line()
    assert "sigma too high" in off.line()
    far = ObservationCheck(0.02, 0.5, (("variance", 50.0),), 6)
    assert far.unlike, "although Student's t of few realisations gives 4%"
    assert "variance 50.0 sigma too high" in far.line()


def test_of_the_image_flow_neither() -> None:
    few = ScaleCheck(("coarse", "fine"), (1.0, 1.0), (0.0, 0.0), 6)
    assert not few.unlike
    assert few.line().startswith("CANNOT TELL")
    assert ScaleCheck(("coarse", "fine"), (0.04, 0.5), (50.0, 0.0), 6).unlike
    many = ScaleCheck(("coarse", "fine"), (0.5, 0.5), (0.0, 0.0), 20)
    assert many.line() == "the observation is like the images that the flow was trained on (p = 1)"


def test_several_observations_have_one_p_value() -> None:
    same = [ObservationCheck(0.1, 0.5, (), 400)] * 20
    assert check_together(same[:1]) == pytest.approx(1 - 0.9**2, rel=0.01)
    assert check_together(same) < 1e-5, "twenty at 10% are no accident"
    few = [ObservationCheck(0.1, 0.5, (), 20)] * 20
    assert check_together(few) > 10 * check_together(same), "what they are compared with errs for all alike"
    assert check_together([*same, ObservationCheck(np.nan, 0.5, (), 400)]) == 0.0
    rng = np.random.default_rng(1)
    p = [check_together([ObservationCheck(*pair, (), 10**6) for pair in rng.random((5, 2))]) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08


def test_folds_are_held_out_by_their_own_network(posterior: Posterior) -> None:
    """Distances of two folds come from two networks; a network that knows its rows too well would not show there."""
    rng = np.random.default_rng(3)
    two = replace(posterior, networks=posterior.networks * 2, reference=None)
    training: Any = Rows(PRIOR.sample(200, rng), 1)
    folds = [
        HeldOut((i,), rows, rows.seeds) for i, rows in enumerate(Rows(PRIOR.sample(40, rng), s) for s in (500, 600))
    ]
    reference = learn_reference(two, training, folds, SURVEY, seed=1)
    assert (int(reference.realisations), int(reference.blocks)) == (80, 2)
    assert reference.held_out.shape == (2, 160)
    assert len(reference.features) == 280, "all rows are in the reference that an observation is compared with"
    checks = check_images(replace(two, reference=reference), mocks(at(0.5, -1.5, 30), 8))
    assert np.mean([check.unlike for check in checks]) <= 0.1
    assert warned(replace(two, reference=reference), mocks(at(0.5, -1.5), 8) + 10) == 1.0
