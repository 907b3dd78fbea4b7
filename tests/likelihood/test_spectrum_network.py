"""A network of spectra: it learns them, forgets what noise hides, and goes on where it was stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.likelihood import spectrum_network
from eorinfer.likelihood.spectrum_network import SpectrumNetwork, train_spectrum_network
from eorinfer.settings.npe import TrainingSettings
from simulators import Parameter

Array = NDArray[np.float64]
PRIOR = Prior((Parameter("a", "a", 0.0, 2.0, 1.0), Parameter("n", "n", -3.0, 0.0, -1.0)))
LOG_K = np.log([0.1, 0.3, 0.9])
FLOOR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 50.0]])


def spectra(theta: Array) -> Array:
    """Give ln Δ² (n, 2, 3), all of them below 7."""
    first = theta[:, :1] ** 2 + theta[:, 1:] * (LOG_K + 1)
    return np.stack([first, np.sin(2 * theta[:, :1]) + first], 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum_network, "ROWS", 4096)
    monkeypatch.setattr(spectrum_network, "HELD_OUT", 256)
    monkeypatch.setattr(spectrum_network, "PIECE", 1024)
    fit = TrainingSettings(steps=300, epochs=1000, batch_size=256, learning_rate=2e-3, weight_decay=0.0)
    monkeypatch.setattr(spectrum_network, "FIT", fit)


def train(folder: Path, of: object = spectra) -> SpectrumNetwork:
    folder.mkdir(exist_ok=True)
    return train_spectrum_network(of, PRIOR, FLOOR, folder=folder, key="k", seed=1, progress=Silent())  # type: ignore[arg-type]


def test_it_gives_the_spectra_back_and_is_kept(tmp_path: Path) -> None:
    network = train(tmp_path / "checkpoints")
    theta = PRIOR.sample(500, np.random.default_rng(7))
    found, wanted = network.log_delta(theta), spectra(theta)
    shown = np.broadcast_to(FLOOR == 0, wanted.shape)
    assert np.median(np.abs(found - wanted)[shown]) < 0.03
    # Far below the floor only the sum with it is right.
    hidden = np.exp(wanted[:, 1, 2]) < 10
    assert hidden.any()
    total = np.log(np.exp(found[:, 1, 2]) + 50) - np.log(np.exp(wanted[:, 1, 2]) + 50)
    assert np.median(np.abs(total[hidden])) < 0.03
    assert np.isfinite(found).all()
    assert network.facts["median_error"] < 0.03 < 10 * network.facts["error_99"]
    network.save(tmp_path / "kept")
    assert np.array_equal(SpectrumNetwork.load(tmp_path / "kept").log_delta(theta), found)
    with pytest.raises(InputError, match="network of spectra"):
        SpectrumNetwork.load(tmp_path / "elsewhere")


def test_spectra_that_were_computed_are_not_computed_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def stopping(theta: Array) -> Array:
        asked.append(len(theta))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return spectra(theta)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stopping)
    found = train(tmp_path, stopping).log_delta(PRIOR.low[None])
    assert asked == [1024] * 5
    assert np.array_equal(found, train(tmp_path / "another").log_delta(PRIOR.low[None]))


def test_it_learns_more_where_it_is_used(tmp_path: Path) -> None:
    network = train(tmp_path)
    near = Prior.from_ranges(PRIOR.parameters, {"a": (0.9, 1.1), "n": (-1.6, -1.4)})
    known, new = (near.sample(n, np.random.default_rng(n)) for n in (400, 300))
    with torch.no_grad():  # as those who observe truths are
        taught = network.taught(known, spectra(known), 1)
    off, before = (np.abs(one.log_delta(new) - spectra(new))[:, 0].mean() for one in (taught, network))
    assert off < 0.5 * before
    assert np.array_equal(network.taught(known, spectra(known), 1).log_delta(new), taught.log_delta(new))
