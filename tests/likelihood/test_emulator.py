"""The emulator of P(k) against Gaussian fields, whose spectra have a known mean and variance."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.likelihood import emulator as module
from eorinfer.likelihood.emulator import FOLDS, Emulator, Spectra, observe_spectra, train_emulator
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey.gaussian import WhiteNoiseSurvey
from simulators import GaussianField, Parameter
from simulators.fourier import wavenumbers

SIMULATOR = GaussianField(cells=16, box_length=16.0)
OBSERVABLE = SIMULATOR.observables[0]
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-1.0, 2.0), "slope": (-2.5, 0.0)})
SIGMA = 0.3
SPECTRUM = PowerSpectrum(OBSERVABLE.cells, OBSERVABLE.box_length, n_bins=4)
FAST = {"steps": 200, "learning_rate": 1e-2}


class Rows:
    """The part of `Cubes` that `observe_spectra` needs, in memory."""

    def __init__(self, n: int) -> None:
        self.theta = torch.from_numpy(PRIOR.sample(n, np.random.default_rng(1)))
        self.seed = np.arange(n, dtype=np.uint64)
        fields = [SIMULATOR.simulate(t, int(s))["field"] for t, s in zip(self.theta.numpy(), self.seed, strict=True)]
        self.clean = torch.from_numpy(np.stack(fields))

    def __len__(self) -> int:
        return len(self.theta)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.theta[indices], self.clean[indices]


def spectra(n: int, draws: int = 4) -> Spectra:
    rows = Rows(n)
    survey = WhiteNoiseSurvey(SIGMA)
    return observe_spectra(rows, rows.seed, survey, OBSERVABLE.symmetry, SPECTRUM, draws, noise_seed=2)  # type: ignore[arg-type]


def truth(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and standard deviation (n, K) of the observed P(k) in the bins of `SPECTRUM`."""
    cells = SIMULATOR.cells
    k = wavenumbers((cells, cells), SIMULATOR.box_length).ravel()
    power = SIMULATOR.power(theta.numpy(), k) + SIGMA**2 * SIMULATOR.box_length**2 / cells**2
    weight = np.broadcast_to(
        np.where(np.isin(np.arange(cells // 2 + 1), [0, cells // 2]), 1.0, 2.0), (cells, 9)
    ).ravel()
    means, variances = [], []
    bins = np.digitize(k, SPECTRUM.edges.numpy()) - 1
    for b in range(len(SPECTRUM.k)):
        inside = (bins == b) & (k > 0)
        share = weight[inside] / weight[inside].sum()
        means.append(power[:, inside] @ share)
        # Half of the modes are independent.
        variances.append(2 * (power[:, inside] ** 2) @ share / weight[inside].sum())
    return torch.from_numpy(np.stack(means, 1)), torch.from_numpy(np.sqrt(np.stack(variances, 1)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEAN_FIT", module.MEAN_FIT.model_copy(update=FAST))
        patch.setattr(module, "COVARIANCE_FIT", module.COVARIANCE_FIT.model_copy(update=FAST))
        return train_emulator(spectra(1500), PRIOR, folder=tmp_path_factory.mktemp("emulator"), seed=3)


def interior(n: int = 60) -> Tensor:
    """Theta away from the prior's edges."""
    low, width = PRIOR.low, PRIOR.high - PRIOR.low
    return torch.from_numpy(low + width * np.random.default_rng(4).uniform(0.15, 0.85, (n, 2)))


@torch.no_grad()
@pytest.mark.job
def test_mean_and_deviation_are_the_true_ones(trained: Emulator) -> None:
    theta = interior()
    mean, std = truth(theta)
    emulated, _ = trained(theta)
    ratio = emulated / mean - 1
    # The first bin of one field scatters by half, so that 1500 fields fix its mean to 1.3% at best.
    assert ratio.mean(0).abs().max() < 0.06
    assert ratio.mean(0)[2:].abs().max() < 0.02
    assert (emulated - mean).div(std).square().mean().sqrt() < 0.25, "its error is small beside the scatter"
    scatter = torch.diagonal(trained.covariance(theta), dim1=1, dim2=2).sqrt() / std
    assert (scatter.mean(0) - 1).abs().max() < 0.15, scatter.mean(0)
    assert (scatter > 0.6).all()
    assert (scatter < 1.6).all()


@torch.no_grad()
def test_the_covariance_is_whole(trained: Emulator) -> None:
    theta = torch.from_numpy(PRIOR.sample(200, np.random.default_rng(5)))
    covariance = trained.covariance(theta)
    torch.testing.assert_close(covariance, covariance.mT)
    assert torch.linalg.eigvalsh(covariance).min() > 0
    _, w = trained(theta)
    torch.testing.assert_close(covariance @ (w.mT @ w), torch.eye(4).double().expand(200, 4, 4), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_likelihood_is_the_multivariate_normal(trained: Emulator) -> None:
    theta = interior(50)
    power = spectra(1, draws=1).power[0, 0]
    mean, _ = trained(theta)
    normal = torch.distributions.MultivariateNormal(mean, trained.covariance(theta))
    expected = normal.log_prob(power)
    torch.testing.assert_close(trained.log_likelihood(power, theta), expected, rtol=1e-6, atol=1e-6)
    assert expected.std() > 1


def test_it_is_the_same_after_a_round_trip(trained: Emulator, tmp_path: Path) -> None:
    trained.facts["key"] = "k"
    trained.save(tmp_path / "e")
    back = Emulator.load(tmp_path / "e")
    assert back.facts == {"key": "k"}
    theta, power = interior(), torch.ones(4, dtype=torch.float64)
    assert torch.equal(back.log_likelihood(power, theta), trained.log_likelihood(power, theta))
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"emulator.json", "weights.safetensors"}


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.job
def test_empty_boxes_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Fully ionised boxes without noise have no power at all."""
    few = {"steps": 20}
    monkeypatch.setattr(module, "MEAN_FIT", module.MEAN_FIT.model_copy(update=few))
    monkeypatch.setattr(module, "COVARIANCE_FIT", module.COVARIANCE_FIT.model_copy(update=few))
    some = spectra(80, draws=2)
    empty = torch.from_numpy(PRIOR.unit(some.theta.numpy())[:, 0] < share)
    power = torch.where(empty[:, None, None], torch.zeros_like(some.power), some.power)
    made = train_emulator(Spectra(some.theta, some.seed, power), PRIOR, folder=tmp_path, seed=1)
    theta = torch.from_numpy(PRIOR.sample(100, np.random.default_rng(6)))
    with torch.no_grad():
        covariance = made.covariance(theta)
        assert covariance.isfinite().all()
        scale = torch.diagonal(covariance, dim1=1, dim2=2).sqrt()
        correlation = covariance / scale[:, :, None] / scale[:, None, :]
        assert torch.linalg.eigvalsh(correlation).min() > 0
        for observed in (torch.zeros(4).double(), some.power[0, 0]):
            assert made.log_likelihood(observed, theta).isfinite().all()


def test_folds_and_validation_never_share_a_realisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = spectra(60, draws=2)
    seed = np.repeat(np.arange(20, dtype=np.uint64), 3)  # three rows of each realisation
    of_theta = {tuple(t): int(s) for t, s in zip(some.theta.tolist(), seed, strict=True)}
    fits: list[tuple[set[int], set[int]]] = []

    def fit(network: object, training: object, validation: object, *_: object, **__: object) -> SimpleNamespace:
        sides = []
        for rows in (training, validation):
            theta = rows._tensors[0]  # type: ignore[attr-defined]
            if theta.dtype == torch.float64:
                sides.append({of_theta[tuple(t)] for t in theta.tolist()})
        if sides:
            fits.append((sides[0], sides[1]))
        return SimpleNamespace()

    monkeypatch.setattr(module, "fit", fit)
    train_emulator(Spectra(some.theta, seed, some.power), PRIOR, folder=tmp_path, seed=3)
    assert len(fits) == FOLDS
    left_out = [set(range(20)) - training - validation for training, validation in fits]
    assert all(not training & validation for training, validation in fits)
    assert [len(out) for out in left_out] == [4] * FOLDS
    assert set.union(*left_out) == set(range(20)), "each realisation is left out once"


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def of_steep_spectra(n: int, parameters: int, bins: int) -> Spectra:
    """Spectra over orders of magnitude, bent in every parameter, that scatter by 10%."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng(1)
    theta = rng.uniform(-1, 1, (n, parameters))
    slopes, bends = fixed.normal(size=(parameters, bins)), fixed.normal(size=(parameters, parameters, bins))
    log_power = 3 * (theta @ slopes + np.einsum("ni,nj,ijd->nd", theta, theta, bends)) / parameters**0.5
    power = np.exp(log_power)[:, None] * (1 + 0.1 * rng.normal(size=(n, 2, bins)))
    return Spectra(torch.from_numpy(theta), np.arange(n, dtype=np.uint64), torch.from_numpy(power))


@pytest.mark.parametrize(("n", "parameters", "warns"), [(150, 9, True), (300, 1, False)])
@pytest.mark.job
def test_an_emulator_that_knows_too_little_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, parameters: int, warns: bool
) -> None:
    monkeypatch.setattr(module, "MEAN_FIT", module.MEAN_FIT.model_copy(update=FAST))
    monkeypatch.setattr(module, "COVARIANCE_FIT", module.COVARIANCE_FIT.model_copy(update=FAST))
    prior = Prior(tuple(Parameter(f"p{i}", f"p{i}", -1.0, 1.0, 0.0) for i in range(parameters)))
    train_emulator(of_steep_spectra(n, parameters, 4), prior, folder=tmp_path, seed=3, progress=(said := Said()))
    warned = [line for line in said.lines if line.startswith("WARNING: of ")]
    assert len(warned) == warns, said.lines
    assert all("([inference] rounds), or take fewer [power_spectrum] bins" in line for line in warned)


def test_too_few_realisations_are_refused(tmp_path: Path) -> None:
    some = spectra(9, draws=1)
    with pytest.raises(WorkError, match="at least 10 valid realisations, there are 9"):
        train_emulator(some, PRIOR, folder=tmp_path, seed=1)
