"""The image flow's training and bundle: the known answer, conditions, dequantisation, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import prior_plans
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.check import held_out_images
from eorinfer.imageflow.conditions import (
    check_image_flow,
    image_flow_observable,
    line_of_sight,
    slicing_axes,
    slicing_symmetry,
)
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.isotropic import IsotropicFlow
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.multiscale import MultiscaleFlow
from eorinfer.imageflow.task import ImageFlowTask
from eorinfer.imageflow.training import ImageFlowTrainer, row_conditions
from eorinfer.likelihood.exact import ModePower, log_likelihood
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.survey import NoSurvey, SkaLow, WhiteNoise, build_survey
from simulators import GaussianField, Observable, Simulator, Symmetry

SIGMA = 0.3
SIMULATOR = GaussianField(cells=12, box_length=12.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-1.0, 2.0), "slope": (-2.5, -0.5)})
QUICK = ImageFlowSettings(steps=40, batch_size=32, hidden=(16,), k_knots=5, knots=5)


def bank_of(path: Path, simulator: Simulator, prior: Prior, n: int) -> tuple[Bank, Rows]:
    """A bank that is filled in this process."""
    bank = Bank.create(path, simulator)
    for plan in (of.plan for of in prior_plans(bank, prior, simulator, n, 1)):
        for shard in range(plan.shards):
            made = [simulator.simulate(plan.theta[i], int(plan.seed[i])) for i in range(*plan.rows(shard).indices(n))]
            some = len(made)
            arrays = {o.name: np.stack([one[o.name] for one in made]) for o in simulator.observables}
            status = {"status": ["ok"] * some, "message": [""] * some, "seconds": [0.1] * some}
            bank.write_shard(plan, shard, **status, arrays=arrays)
    return bank, bank.rows()


def trainer(
    settings: ImageFlowSettings, survey: Any = None, simulator: Simulator = SIMULATOR, prior: Prior = PRIOR
) -> ImageFlowTrainer:
    survey = survey or WhiteNoise(sigma=SIGMA)
    image = simulator.observables[0]
    return ImageFlowTrainer(prior, image, survey, build_survey(survey, image), settings, 0.1)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, Rows]:
    return bank_of(tmp_path_factory.mktemp("gaussian") / "bank", SIMULATOR, PRIOR, 600)


@pytest.fixture(scope="module")
def flow(gaussian: tuple[Bank, Rows], tmp_path_factory: pytest.TempPathFactory) -> ImageFlow:
    settings = ImageFlowSettings(steps=250, batch_size=64, hidden=(32,), k_knots=6, knots=5, convolutions=1)
    return trainer(settings).train(*gaussian, folder=tmp_path_factory.mktemp("fit"), seed=1)


def observed(i: int) -> tuple[Observation, NDArray[np.float64]]:
    """A map, and parameters around the ones that it was made with."""
    rng = np.random.default_rng([5, i])
    theta = np.array([0.5, -1.5]) + rng.uniform(-0.5, 0.5, 2)
    clean = SIMULATOR.simulate(theta, 10**6 + i)["field"]
    noisy = clean + SIGMA * rng.standard_normal(clean.shape).astype(np.float32)
    near = theta + rng.uniform(-0.3, 0.3, (30, 2))
    return Observation.from_observable(SIMULATOR.observables[0], noisy, theta), near


def exact(observation: Observation, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    field = observation.values[0].astype(np.float64)
    return log_likelihood(SIMULATOR, SIGMA, ModePower.from_field(field, SIMULATOR.box_length), theta)


@pytest.mark.job
def test_ratios_of_likelihoods_are_near_the_exact_ones(flow: ImageFlow) -> None:
    errors, spans = [], []
    for i in range(12):
        observation, theta = observed(i)
        truth = exact(observation, theta)
        errors.append((flow.log_prob(observation, theta) - truth).std())
        spans.append(truth.std())
    assert np.mean(spans) > 1, "else a constant would pass"
    assert np.sqrt(np.mean(np.square(errors))) < 0.3


@pytest.mark.job
def test_the_density_is_normalised_and_near_the_exact_one(flow: ImageFlow) -> None:
    excess = []
    for i in range(40):
        observation, theta = observed(i)
        # Up to the zero mode, which holds noise alone, and to the constants of the others.
        modes = 143 / 2 * np.log(2 * np.pi) + 144 / 2 * np.log(1.0)
        zero = observation.values.astype(float).sum() ** 2 / 144 / SIGMA**2
        whole = exact(observation, theta[:1])[0] - modes - 0.5 * (np.log(2 * np.pi * SIGMA**2) + zero)
        excess.append(whole - flow.log_prob(observation, theta[:1])[0])
    assert -0.3 < np.mean(excess) < 1.0


def test_samples_have_the_right_power(flow: ImageFlow) -> None:
    theta = np.tile([[0.5, -1.5]], (300, 1))
    images = flow.sample(theta, seed=1)[:, 0].astype(float)
    expected = SIMULATOR.variance(theta[0]) + SIGMA**2
    assert images.var() == pytest.approx(expected, rel=0.1)
    few = flow.sample(theta[:2], seed=1)
    assert (flow.sample(theta[:2], seed=1) == few).all()
    assert not (flow.sample(theta[:2], seed=2) == few).any()


def test_bundle_round_trip(flow: ImageFlow, tmp_path: Path) -> None:
    observation, theta = observed(0)
    flow.save(tmp_path / "field")
    assert {p.name for p in (tmp_path / "field").iterdir()} == {"field.json", "weights.safetensors"}
    state = torch.get_rng_state()
    again = ImageFlow.load(tmp_path / "field")
    assert torch.equal(torch.get_rng_state(), state)
    assert (again.log_prob(observation, theta) == flow.log_prob(observation, theta)).all()
    assert again.conditions == flow.conditions
    assert again.key(observation) == flow.key(observation)
    assert again.facts["training_rows"] + again.facts["validation_rows"] == 600
    with pytest.raises(InputError, match="no image flow here"):
        ImageFlow.load(tmp_path)
    weights = tmp_path / "field" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match="the image flow cannot be read"):
        ImageFlow.load(tmp_path / "field")


@pytest.mark.job
def test_the_multiscale_kind_is_trained_and_kept(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    small = {"kind": "multiscale", "width": 8, "depth": 1, "components": 2, "steps": 30}
    made = trainer(QUICK.model_copy(update=small)).train(*gaussian, folder=tmp_path / "fit", seed=1)
    history = made.facts["fits"]["generative"]["history"]
    assert history[-1]["validation"] < history[0]["validation"] - 0.05
    made.save(tmp_path / "field")
    again = ImageFlow.load(tmp_path / "field")
    assert isinstance(again.network, MultiscaleFlow)
    observation, theta = observed(0)
    assert (again.log_prob(observation, theta) == made.log_prob(observation, theta)).all()
    assert (again.sample(theta, seed=1) == made.sample(theta, seed=1)).all()


@pytest.mark.usefixtures("quick_diffusion")
@pytest.mark.job
def test_a_diffusion_is_trained_and_kept(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    settings = ImageFlowSettings(kind="diffusion", width=16, steps=24, hidden=(16,), k_knots=6)
    assert settings.learning_rate == 2e-3
    made = trainer(settings).train(*gaussian, folder=tmp_path / "fit", seed=1)
    assert made.dequantisation == 0
    # A Gaussian field: the network has nothing to add, and the density is the exact one but for its start.
    assert made.facts["fits"]["generative"]["validation_loss"] == pytest.approx(1, abs=0.05)
    errors = []
    for i in range(6):
        observation, theta = observed(i)
        errors.append((made.log_prob(observation, theta) - exact(observation, theta)).std())
    assert np.sqrt(np.mean(np.square(errors))) < 0.5
    made.save(tmp_path / "field")
    again = ImageFlow.load(tmp_path / "field")
    assert isinstance(again.network, DiffusionFlow)
    # A chain on ln p is not continued where its terms count for something else.
    assert replace(again, weights=(0.5,) * 5).key(observed(0)[0]) != again.key(observed(0)[0])
    observation, theta = observed(0)
    assert (again.log_prob(observation, theta) == made.log_prob(observation, theta)).all()
    assert (again.sample(theta, seed=1) == made.sample(theta, seed=1)).all()
    # Without noise of the survey, that of the dequantisation is the diffusion's.
    bare = trainer(settings.model_copy(update={"steps": 2}), NoSurvey()).train(*gaussian, folder=tmp_path / "b", seed=1)
    assert float(bare.network.noise) == pytest.approx(bare.dequantisation)
    assert bare.dequantisation > 0


def test_a_flow_of_before_there_were_kinds(flow: ImageFlow, tmp_path: Path) -> None:
    flow.save(tmp_path / "field")
    file = tmp_path / "field" / "field.json"
    content = json.loads(file.read_text())
    for key in ("kind", "width", "depth", "components"):
        del content["field"][key]
    file.write_text(json.dumps(content))
    observation, theta = observed(0)
    assert (ImageFlow.load(tmp_path / "field").log_prob(observation, theta) == flow.log_prob(observation, theta)).all()


def test_images_that_do_not_fit(flow: ImageFlow) -> None:
    observation, theta = observed(0)
    holes = observation.values.copy()
    holes[0, 3, 4] = np.nan
    for other, said in (
        (replace(observation, values=holes), "1 of 144 values are NaN or infinite"),
        (replace(observation, values=observation.values[:, :6]), r"shape \(1, 6, 12\), expected \(1, 12, 12\)"),
        (replace(observation, cell_size=(2.0, 2.0)), r"cell_size is \[2.0, 2.0\], expected \[1.0, 1.0\]"),
        (replace(observation, unit="K"), "unit is 'K'"),
        (replace(observation, mask=np.eye(12, dtype=bool)[None]), "12 cells are masked, and an image flow needs whole"),
    ):
        with pytest.raises(InputError, match=said):
            flow.log_prob(other, theta)


def test_conditions_outside_training_are_marked(flow: ImageFlow) -> None:
    assert flow.outside(np.array([[0.0, -1.0], [2.1, -1.0], [0.0, np.nan]])).tolist() == [False, True, True]


@pytest.mark.job
def test_some_of_the_parameters(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"condition": ("slope",)})
    made = trainer(settings).train(*gaussian, folder=tmp_path, seed=1)
    assert made.conditions.names == ["slope"]
    assert made.conditions.low == [-2.5]
    observation, theta = observed(0)
    assert made.log_prob(observation, theta[:, 1:]).shape == (30,)


@pytest.mark.job
def test_dequantisation(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    # Without noise the zero mode of these fields is exactly zero.
    made = trainer(QUICK, NoSurvey()).train(*gaussian, folder=tmp_path / "a", seed=1)
    fields = gaussian[0].read("field", gaussian[1][:200])
    assert made.dequantisation == pytest.approx(0.01 * fields.std(), rel=0.2)
    observation = Observation.from_observable(SIMULATOR.observables[0], fields[0])
    first, second = made.prepared(observation), made.prepared(observation)
    assert torch.equal(first, second)
    assert (first[0].numpy() - fields[0]).std() == pytest.approx(made.dequantisation, rel=0.2)
    given = QUICK.model_copy(update={"dequantisation": 0.2})
    assert trainer(given, NoSurvey()).train(*gaussian, folder=tmp_path / "b", seed=1).dequantisation == 0.2
    without = QUICK.model_copy(update={"dequantisation": 0.0})
    with pytest.raises(InputError, match=r"dequantisation = 0: there are Fourier modes without power"):
        trainer(without, NoSurvey()).train(*gaussian, folder=tmp_path / "c", seed=1)


class Neutral(GaussianField):
    """A field, and beside it the share of it that is above zero plus theta: what a neutral fraction is like."""

    @property
    def observables(self) -> tuple[Observable, ...]:
        image = super().observables[0]
        return image, replace(image, name="neutral_fraction")

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        field = super().simulate(theta, seed)["field"]
        neutral = (np.arange(field.size).reshape(field.shape) < field.size * (0.5 + 0.1 * theta[0])).astype(np.float32)
        return {"field": field + 5 * neutral, "neutral_fraction": neutral}


class NeutralAlone(Neutral):
    """The share alone: the mean of an image is its neutral fraction."""

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        neutral = super().simulate(theta, seed)["neutral_fraction"]
        return {"field": neutral, "neutral_fraction": neutral}


@pytest.mark.parametrize("image", ["whole", "slices"])
@pytest.mark.job
def test_neutral_fraction(image: str, tmp_path: Path) -> None:
    simulator = Neutral(dimension=3, cells=8, box_length=8.0)
    prior = Prior.from_ranges(simulator.parameters, {"log_amplitude": (-2.0, 2.0), "slope": (-1.5, -1.0)})
    bank, rows = bank_of(tmp_path / "bank", simulator, prior, 80)
    settings = QUICK.model_copy(update={"condition": "neutral-fraction", "image": image})
    check_image_flow(settings, simulator)
    made = trainer(settings, None, simulator, prior).train(bank, rows, folder=tmp_path / "fit", seed=1)
    assert made.conditions.names == ["x_HI"]
    neutral = bank.read("neutral_fraction", rows)
    # Slices are taken across all three axes.
    axes = [(1, 2, 3), (1, 2, 4), (1, 3, 4)] if image == "slices" else [(1, 2, 3, 4)]
    means = np.stack([neutral.mean(a) for a in axes])
    assert means.min() <= made.conditions.low[0] < made.conditions.high[0] <= means.max()
    assert made.observable.shape == ((1, 8, 8, 8) if image == "whole" else (1, 8, 8))
    images = made.sample(np.array([[made.conditions.low[0]], [made.conditions.high[0]]]).repeat(50, 0), seed=1)
    # Neutral cells are five brighter.
    difference = images[50:].mean() - images[:50].mean()
    assert difference == pytest.approx(5 * float(made.conditions.high[0] - made.conditions.low[0]), rel=0.25)


def test_slices_across_all_axes_go_with_their_own_condition(tmp_path: Path) -> None:
    simulator = Neutral(dimension=3, cells=8, box_length=8.0)
    prior = Prior.from_ranges(simulator.parameters, {"log_amplitude": (-2.0, 2.0), "slope": (-1.5, -1.0)})
    bank, rows = bank_of(tmp_path / "bank", simulator, prior, 30)
    settings = ImageFlowSettings(condition="neutral-fraction", image="slices")
    image = simulator.observables[0]
    assert slicing_axes(settings, WhiteNoise(sigma=1.0), image) == 3
    along = replace(image, symmetry=Symmetry((True,) * 3, "transverse"))
    assert slicing_axes(settings, WhiteNoise(sigma=1.0), along) == 1
    assert slicing_axes(settings, SkaLow(), image) == 1
    y = row_conditions(bank, rows, prior, settings, 3)
    assert torch.equal(y[:, :8], row_conditions(bank, rows, prior, settings))
    flow = IsotropicFlow((1, 8, 8), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    symmetry = image_flow_observable(settings, image).symmetry
    task = ImageFlowTask(flow, build_survey(NoSurvey(), image), symmetry, 0.0, slice_first=True, axes=3)
    neutral = torch.from_numpy(bank.read("neutral_fraction", rows))
    chosen, images = task.observe((y, neutral), torch.Generator().manual_seed(1))
    torch.testing.assert_close(images.double().mean((1, 2, 3)), chosen[:, 0])


@pytest.mark.parametrize("image", ["whole", "slices"])
def test_held_out_images_are_even_in_the_neutral_fraction_where_asked(image: str, tmp_path: Path) -> None:
    """Few boxes are half neutral, and most of them nearly all: so were the images that weights were learned on."""
    simulator = NeutralAlone(dimension=3, cells=8, box_length=8.0)
    prior = Prior.from_ranges(simulator.parameters, {"log_amplitude": (-2.0, 5.0), "slope": (-1.5, -1.0)})
    bank, rows = bank_of(tmp_path / "bank", simulator, prior, 300)
    rows = rows[(rows.theta[:, 0] > 4) | (np.arange(300) % 5 == 0)]
    settings = QUICK.model_copy(update={"condition": "neutral-fraction", "image": image})
    own = replace(trainer(settings, None, simulator, prior), validation_fraction=0.9)
    network = IsotropicFlow((1, 8, 8), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    seen = image_flow_observable(settings, simulator.observables[0])
    flow = ImageFlow(prior, seen, WhiteNoise(sigma=SIGMA), settings, network, 0.0)
    counts = []
    for evenly in (False, True):
        images, y, realisation = held_out_images(flow, own, bank, rows, 1, 21, evenly)
        assert images.shape == (21, *seen.shape)
        assert len(set(realisation)) > 5
        # Each image goes with its own condition, up to its noise.
        np.testing.assert_allclose(images.mean(tuple(range(1, images.ndim))), y[:, 0], atol=5 * SIGMA / 8)
        counts.append(np.histogram(y, np.linspace(0, 1, 11))[0][3:])
    assert counts[0][-1] >= 7
    assert np.ptp(counts[1]) <= 1


@pytest.mark.parametrize("first", [False, True])
def test_slices_go_with_their_own_condition(first: bool) -> None:
    flow = IsotropicFlow((1, 4, 4), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    image = GaussianField(dimension=3, cells=4).observables[0]
    settings = ImageFlowSettings(image="slices")
    symmetry = image_flow_observable(settings, image).symmetry if first else slicing_symmetry(settings, image.symmetry)
    task = ImageFlowTask(flow, build_survey(NoSurvey(), image), symmetry, 0.0, slice_first=first)
    y = torch.rand(20, 4, 1, dtype=torch.float64)
    clean = y[:, None, None, None, :, 0].float().expand(20, 1, 4, 4, 4)
    chosen, images = task.observe((y, clean), torch.Generator().manual_seed(1))
    assert images.shape == (20, 1, 4, 4)
    torch.testing.assert_close(images[:, 0, 0, 0], chosen[:, 0].float())
    assert len({float(c) for c in chosen.flatten()}) == 20


@pytest.mark.job
def test_the_seed_decides(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    observation, theta = observed(0)
    one, two, other = (
        trainer(QUICK).train(*gaussian, folder=tmp_path / name, seed=seed).log_prob(observation, theta)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert (one == two).all()
    assert not (one == other).any()


def test_one_realisation_is_too_few(gaussian: tuple[Bank, Rows], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="at least two realisations"):
        trainer(QUICK).train(gaussian[0], gaussian[1][:1], folder=tmp_path, seed=1)


def test_what_a_simulator_does_not_have() -> None:
    for settings, said in (
        (ImageFlowSettings(condition=("slop",)), r"condition = \['slop'\]: give some of log_amplitude, slope"),
        (ImageFlowSettings(condition="neutral-fraction"), "the simulator has no neutral_fraction"),
        (ImageFlowSettings(image="slices"), "only cubes can be sliced"),
    ):
        with pytest.raises(ValueError, match=said):
            check_image_flow(settings, SIMULATOR)
    check_image_flow(ImageFlowSettings(), SIMULATOR)


def test_the_line_of_sight_counts_where_something_tells_it_apart() -> None:
    cube = GaussianField(dimension=3, cells=8).observables[0]
    along = replace(cube, symmetry=Symmetry((True,) * 3, "transverse"))
    settings = ImageFlowSettings()
    assert not line_of_sight(settings, WhiteNoise(sigma=1.0), cube)
    assert line_of_sight(settings, WhiteNoise(sigma=1.0), along)
    assert line_of_sight(settings, SkaLow(), cube)
    slices = ImageFlowSettings(image="slices")
    assert not line_of_sight(slices, SkaLow(), image_flow_observable(slices, cube))
