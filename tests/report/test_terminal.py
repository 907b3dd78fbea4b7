"""Lines for the terminal: posteriors with two digits of their errors, what is done and what is not."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
from eorinfer.report.terminal import closing_lines, posterior_table, status_lines
from eorinfer.run.config import load_config
from simulators import GaussianField
from tests.runs import config

PARAMETERS = GaussianField(cells=8).parameters


def chain(label: str, width: float, n: int = 2001) -> Samples:
    line = np.linspace(-1, 1, n) * width * 3**0.5
    return Samples.unweighted(np.column_stack([0.5 + line, -1.5 - 0.1 * line]), PARAMETERS, label)


def test_a_table_of_two_methods() -> None:
    chains = {"npe": chain("NPE", 0.2), "mcmc": chain("MCMC", 0.4)}
    truth = {"log_amplitude": 0.45, "slope": -1.5}
    assert posterior_table(chains, truth) == [
        "parameter      truth             NPE            MCMC  ratio of widths",
        "log_amplitude   0.45     0.50 ± 0.20     0.50 ± 0.40             0.50",
        "slope           -1.5  -1.500 ± 0.020  -1.500 ± 0.040             0.50",
    ]


def test_methods_of_other_parameters_and_no_truth() -> None:
    chains = {"npe": chain("NPE", 0.2), "field-flow": chain("flow", 0.4).only(["slope"])}
    lines = posterior_table(chains, None)
    assert lines[0].split() == ["parameter", "NPE", "flow", "ratio", "of", "widths"]
    assert lines[1].split() == ["log_amplitude", "0.50", "±", "0.20", "-", "-"]


def test_a_run_folder_says_where_it_stands(tmp_path: Path) -> None:
    out = tmp_path / "out"
    load_config(config(tmp_path)).write(_made(out) / "config.toml")
    assert closing_lines(out) == [f"no posterior yet: eorinfer infer {out}/config.toml --out {out}"]
    cube = GaussianField(cells=8, box_length=8.0)
    theta = np.array([0.5, -1.5])
    observation = Observation.from_observable(cube.observables[0], cube.simulate(theta, 1)["field"], theta, 1)
    observation.write(out / "observation.h5")
    chain("NPE", 0.2).write(out / "chains" / "npe")
    lines = status_lines(out)
    assert lines[:2] == [f"run: {out}", "done: observe, infer"]
    mcmc = f"eorinfer mcmc {out}/config.toml --out {out}"
    assert f"No power-spectrum MCMC to compare with: {mcmc}" in lines
    assert f"No summary.json: eorinfer plot {out}/config.toml --out {out}" in lines
    assert lines[-1] == f"not validated yet: eorinfer validate {out}/config.toml --out {out}"
    assert lines[-3].split()[:3] == ["log_amplitude", "0.5", "0.50"]
    (out / "validation.json").write_text('{"verdict": "calibrated: smallest p-value 0.3"}')
    assert closing_lines(out)[-1] == "calibrated: smallest p-value 0.3"
    chain("power-spectrum MCMC", 0.15).write(out / "chains" / "mcmc")
    assert closing_lines(out)[-2].startswith("NPE is 1.33 times as wide as power-spectrum MCMC, though an image holds")
    chain("power-spectrum MCMC", 0.19).write(out / "chains" / "mcmc")
    assert closing_lines(out)[-2].startswith("slope")
    (out / "chains" / "mcmc.json").write_text('{"converged": true, "steps": 900}')
    assert "power-spectrum MCMC: 900 steps, converged" in status_lines(out)
    (out / "chains" / "mcmc.txt").unlink()  # as of a copy without its chain
    assert not any("900 steps" in line for line in status_lines(out))
    whole = (out / "chains" / "npe.txt").read_text()
    (out / "chains" / "npe.txt").write_text("nonsense\n")
    assert any("it is left out. Remove it, and its step makes it anew" in line for line in status_lines(out))
    (out / "chains" / "npe.txt").write_text(whole)
    (out / "config.toml").unlink()  # as of a posterior that was trained elsewhere
    lines = status_lines(out)
    assert lines[1] == "done: observe, infer, validate"
    assert lines[-2].split()[:3] == ["log_amplitude", "0.5", "0.50"]


def test_a_separation_lacks_no_step_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[separation]\nsteps = 10\n")
    assert status_lines(tmp_path) == [f"run: {tmp_path}", "done: nothing yet"]
    _made(tmp_path / "separator").joinpath("separator.json").write_text("{}")
    assert status_lines(tmp_path)[-1] == "done: separate train"


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run and no contest"):
        status_lines(tmp_path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
