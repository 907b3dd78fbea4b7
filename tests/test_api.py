"""The public names: each can be imported, type checkers know them, and objects show what a person wants to see."""

import ast
import importlib
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import eorinfer
from eorinfer import (
    Architecture,
    Bank,
    EmbeddingSettings,
    FlowSettings,
    InputError,
    Observation,
    Posterior,
    PowerSpectrum,
    PowerSpectrumSettings,
    Prior,
    Run,
    Samples,
    Trainer,
    TrainingSettings,
    WhiteNoise,
    build_survey,
    fill,
    load_config,
    local_executor,
    plan_round,
)
from simulators import GaussianField
from tests.runs import config


def test_every_name_is_there_for_people_and_for_type_checkers() -> None:
    tree = ast.parse(Path(str(eorinfer.__file__)).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == {name: eorinfer._WHERE[name] for name in eorinfer.__all__ if name != "__version__"}
    for name, module in typed.items():
        assert getattr(eorinfer, name) is getattr(importlib.import_module(str(module)), name)
    assert set(dir(eorinfer)) == set(eorinfer.__all__)


@pytest.mark.job
def test_a_posterior_from_public_names_alone(tmp_path: Path) -> None:
    simulator = GaussianField(cells=8, box_length=8.0)
    observable = simulator.observables[0]
    prior = Prior.from_ranges(simulator.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})
    bank = Bank.create(tmp_path / "bank", simulator)
    theta = prior.sample(24, np.random.default_rng(1))
    plan = bank.add(plan_round(1, prior.hash(), theta, simulator, 1))
    with local_executor(1) as executor:
        fill(bank, plan, simulator, executor)
    rows = bank.rows().ok
    megabytes = sum(file.stat().st_size for file in (bank.path / "shards").iterdir()) / 1e6
    assert repr(bank) == f"Bank({bank.path}: 24 ok; field 1 x 8 x 8; {megabytes:.1f} MB)"
    power = PowerSpectrum(observable.cells, observable.box_length, n_bins=3)
    assert power(torch.from_numpy(bank.read("field", rows[:2]))).shape == (2, 1, 3)
    noise = WhiteNoise(sigma=0.3)
    architecture = Architecture(
        EmbeddingSettings(width=4),
        FlowSettings(kind="zuko_nsf", transforms=1, hidden=(8,)),
        PowerSpectrumSettings(bins=3),
    )
    training = TrainingSettings(steps=4, batch_size=8, ensemble=1, validation_fraction=0.3)
    trainer = Trainer(prior, observable, noise, build_survey(noise, observable), architecture, training)
    posterior = trainer.train(bank, rows, folder=tmp_path / "checkpoints", seed=1)
    text = f"trained on {posterior.facts['training_rows']} simulations, survey white-noise, 1 x zuko_nsf)"
    assert repr(posterior) == f"Posterior(q(log_amplitude, slope | field 1 x 8 x 8), {text}"
    sky = Observation.from_observable(observable, bank.read("field", rows[:1])[0])
    assert len(posterior.sample(sky, 20, seed=1)) == 20
    posterior.save(tmp_path / "posterior")
    assert repr(Posterior.load(tmp_path / "posterior")) == repr(posterior)


def test_samples_are_a_table() -> None:
    parameters = GaussianField(cells=8).parameters
    values = np.array([[0.0, -2.0], [1.0, -1.0], [2.0, -1.5]])
    assert repr(Samples.unweighted(values, parameters, "NPE")) == (
        "NPE: 3 samples\n"
        "parameter           mean        std  68% interval\n"
        "log_amplitude          1          1  0 to 2\n"
        "slope               -1.5        0.5  -2 to -1"
    )


def test_a_run_says_what_is_done(tmp_path: Path) -> None:
    run = Run(load_config(config(tmp_path)), tmp_path / "out")
    assert repr(run) == f"Run({tmp_path}/out, done: nothing yet)"
    assert repr(run.bank) == f"Bank({tmp_path}/out/bank: no rows yet; field 1 x 8 x 8; 0.0 MB)"
    for file in ("observation.h5", "rounds/01/posterior/posterior.json", "chains/mcmc.txt"):
        (run.out / file).parent.mkdir(parents=True, exist_ok=True)
        (run.out / file).touch()
    assert repr(run) == f"Run({tmp_path}/out, done: 1 of 2 rounds, observe, mcmc)"


def test_a_config_may_be_a_dict(tmp_path: Path) -> None:
    path = config(tmp_path)
    content = tomllib.loads(path.read_text())
    given, read = load_config(content), load_config(str(path))
    assert given.tables == read.tables
    assert given.folder == Path.cwd()
    run = Run(given, tmp_path / "out")
    assert load_config(run.out / "config.toml").content() == read.content()
    content["simulator"]["cells"] = "many"
    with pytest.raises(InputError, match=r"config \(dict\): \[simulator\] cells"):
        load_config(content)


@pytest.mark.parametrize(("interactive", "shown"), [(True, "Bars"), (False, "Silent")])
def test_progress_is_shown_where_somebody_looks_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interactive: bool, shown: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: interactive, raising=False)
    assert type(Run(load_config(config(tmp_path)), tmp_path / "out").progress).__name__ == shown
