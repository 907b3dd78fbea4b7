"""`eorinfer contest` on a tiny Gaussian run: every method, the same truths, and nothing done twice."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import eorinfer.contest.likelihoods as likelihoods
import eorinfer.likelihood.neural as neural
from eorinfer.contest.method import ON_DISK
from eorinfer.core.digits import with_error
from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from eorinfer.likelihood.exact import grid_posterior
from eorinfer.likelihood.sampled import PosteriorSample
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from tests.runs import call, config, quick_emulator

METHODS = ["exact", "ps-diagonal", "ps-fixed", "ps-full", "ps-neural", "npe-power", "npe-image", "npe-both"]
COSTS = "Simulator calls and seconds"
METHODS += ["npe-scattering", "regression", "image-flow", "exact-emcee"]
CONTEST: dict[str, Any] = {
    "methods": METHODS,
    "truths": 60,
    "sampled_truths": 24,
    "image_flow_truths": 20,
    "samples": 200,
}
TABLES: dict[str, Any] = {
    "inference": {"rounds": [120], "samples": 300, "predictive": 0},
    "image_flow": {"steps": 40, "convolutions": 1, "knots": 4},
    "contest": CONTEST,
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        patch.setattr(neural, "FIT", neural.FIT.model_copy(update={"steps": 10}))
        patch.setattr(likelihoods, "POINTS", 40)
        yield


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contest")
    assert call("contest", config(folder, **TABLES), "--out", folder / "run") == 0
    return folder


def table_of(content: dict[str, Any], title: str) -> dict[str, Any]:
    (table,) = (table for table in content["tables"] if table["title"] == title)
    return table  # type: ignore[no-any-return]


def parts(run: Path, method: str) -> list[Path]:
    return sorted((run / "contest" / method / "answers").glob("*.h5"))


def test_every_method_is_scored_and_kept(held: Path) -> None:
    run = held / "run"
    content = read_json(run / "contest.json")
    assert list(content["methods"]) == METHODS
    assert content["methods"]["exact"]["calibrated"]
    assert content["methods"]["npe-power"]["truths"] == 60
    assert content["methods"]["ps-full"]["truths"] == 24
    assert content["methods"]["image-flow"]["truths"] == 20
    for table in content["tables"]:
        assert len(table["rows"]) in (len(METHODS), 2 * len(METHODS), len(METHODS) + 1)
    one = table_of(content, "The observation of the run")
    assert [row[0] for row in one["rows"]] == [m["label"] for m in content["methods"].values()] + ["truth"]
    exact = Samples.read(run / "chains" / "exact")
    assert one["rows"][0][1:] == [with_error(m, s) for m, s in zip(exact.mean, exact.std, strict=True)]
    json.dumps(content, allow_nan=False)
    for figure in content["figures"]:
        assert (run / figure["file"]).stat().st_size > 10000
    for method in METHODS:
        assert Samples.read(run / "chains" / ON_DISK.get(method, method)).weights.sum() == 300


def test_it_leaves_no_checkpoints(held: Path) -> None:
    run = held / "run"
    assert [*run.rglob("*.ckpt"), *run.rglob("*checkpoints*")] == []
    assert (run / "contest/ps-neural/likelihood/weights.safetensors").is_file()


def test_it_leaves_a_page(held: Path) -> None:
    page = (held / "run/report.html").read_text()
    sections = ["scores", "posterior", "observation", "training", "bank", "config", "versions"]
    assert re.findall(r'<section id="(.*?)"', page) == sections
    for method in ("npe-power", "npe-image", "npe-both", "npe-scattering", "regression", "image flow, generative"):
        assert f'alt="Training curves of {method}; lowest' in page
    alts = re.findall(r'<img src="[^"]*" alt="(.*?)"', page)
    assert len(alts) == page.count("<img ")
    others = [alt for alt in alts if not alt.startswith(("Training curves of ", "Observed map, "))]
    assert len(others) == 2, "the figures of the contest, and no corner of eleven posteriors"
    for table in read_json(held / "run/contest.json")["tables"]:
        assert f"<h3>{table['title']}</h3>" in page


def test_the_exact_answers_are_those_of_the_grid(held: Path) -> None:
    """By another way: samples of `grid_posterior` for the run's own observation."""
    from eorinfer import Observation, Run, load_config

    run = Run(load_config(config(held, **TABLES)), held / "run")
    observation = Observation.read(held / "run" / "observation.h5", run.config.observable)
    known = grid_posterior(run.config.simulator, 0.3, observation.values[0], run.config.prior, 5000, seed=1)  # type: ignore[arg-type]
    for method in ("exact", "exact-emcee"):
        found = Samples.read(held / "run" / "chains" / method)
        assert found.mean == pytest.approx(known.mean, abs=4 * known.std.max() / 300**0.5)
        assert found.std == pytest.approx(known.std, rel=0.2)


def test_a_second_call_asks_nothing_again_and_says_the_same(held: Path, tmp_path: Path) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    path, run = config(tmp_path, **TABLES), tmp_path / "run"
    before = {file: file.stat().st_mtime_ns for file in run.glob("contest/*/answers/*.h5")}
    said = read_json(run / "contest.json")
    lost = parts(run, "npe-image")[-1]
    kept = lost.read_bytes()
    lost.unlink()
    assert call("contest", path, "--out", run) == 0
    after = {file: file.stat().st_mtime_ns for file in run.glob("contest/*/answers/*.h5")}
    assert {file for file in after if after[file] != before[file]} == {lost}
    with_key = _key(lost)
    again, first = TruthPosteriors.read(lost, with_key), _read(kept, tmp_path / "kept.h5", with_key)
    assert again is not None
    assert np.array_equal(again.values, first.values)
    now = read_json(run / "contest.json")
    for content in (said, now):  # what took how long may differ
        for method in content["methods"].values():
            del method["seconds_per_observation"]
        content["tables"].remove(table_of(content, COSTS))
        del content["command"]
    assert now == said


def test_a_stop_loses_no_posterior_that_was_sampled(
    held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    run, asked = tmp_path / "run", 0
    original = likelihoods.sample_on_grid

    def stopped(*arguments: Any) -> PosteriorSample:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(likelihoods, "sample_on_grid", stopped)
    n = sum(map(_truths_in, parts(run, "ps-full")))
    shutil.rmtree(run / "contest/ps-full/answers")
    path = config(tmp_path, **TABLES)
    assert call("contest", path, "--out", run) == 1
    assert len(list((run / "contest/ps-full/answers").rglob("*.h5"))) == 3
    assert call("contest", path, "--out", run) == 0
    assert asked == n + 1
    assert sum(map(_truths_in, parts(run, "ps-full"))) == n
    assert [file for file in (run / "contest").glob("*/answers/*") if file.is_dir()] == []


def test_truths_can_be_added(held: Path, tmp_path: Path) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    run = tmp_path / "run"
    more = TABLES | {"contest": CONTEST | {"methods": ["npe-power", "exact"], "truths": 110, "baseline": "npe-power"}}
    more["contest"]["reference"] = "exact"
    before = [path.stat().st_mtime_ns for path in parts(run, "npe-power")]
    assert call("contest", config(tmp_path, **more), "--out", run) == 0
    assert read_json(run / "contest.json")["methods"]["npe-power"]["truths"] == 110
    after = [path.stat().st_mtime_ns for path in parts(run, "npe-power")]
    assert len(after) == 3
    assert after[0] == before[0]  # a whole part is kept


def test_trainings_with_other_seeds_and_truths_for_choices(held: Path, tmp_path: Path) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    run = tmp_path / "run"
    few = {"methods": ["ps-full", "npe-power", "npe-image"], "seeds": 2, "choice_truths": 30, "truths": 30}
    before = [path.stat().st_mtime_ns for path in parts(run, "npe-power")][:1]
    assert call("contest", config(tmp_path, **(TABLES | {"contest": CONTEST | few})), "--out", run) == 0
    assert [path.stat().st_mtime_ns for path in parts(run, "npe-power")][:1] == before, "the first training is kept"
    content = read_json(run / "contest.json")
    assert "trainings" not in content["methods"]["ps-full"], "likelihoods have one"
    found = content["methods"]["npe-power"]
    assert found["truths"] == 30
    first, second = (training["gain"] for training in found["trainings"])
    assert first != second
    assert found["gain"]["mean"] == pytest.approx((first + second) / 2)
    assert found["gain"]["training_scatter"] == pytest.approx(abs(first - second) / 2**0.5)
    tables = {table["title"]: table for table in content["tables"]}
    assert [row[0] for row in tables["Truths for choices"]["rows"]] == [m["label"] for m in content["methods"].values()]
    assert tables["Information"]["columns"][2] == "information gained, nats, on the same 24 truths"
    assert tables["Calibration"]["rows"][1][2] in ("0 of 2", "1 of 2", "2 of 2")
    posterior = {n: read_json(run / "contest" / n / "posterior/posterior.json") for n in ("npe-power", "npe-both")}
    assert {p["embedding"]["bins"] for p in posterior.values()} == {3}, "those of the likelihood"


@pytest.mark.parametrize(
    ("contest", "said"),
    [
        ({"methods": ["npe-image", "npe-image"]}, "each may be named once"),
        ({"methods": ["npe-image"], "reference": "ps-full"}, 'reference = "ps-full": must be one of the methods'),
        ({"methods": ["ps-2d", "npe-image"]}, '"ps-2d", P(k_perp, k_par), is for cubes'),
        ({"methods": ["image-flow", "ps-full"]}, '"image-flow" starts from one of'),
        ({"methods": ["npe"]}, "methods"),
    ],
)
def test_what_is_wrong_with_a_contest_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], contest: dict[str, Any], said: str
) -> None:
    assert call("contest", config(tmp_path, **(TABLES | {"contest": contest})), "--out", tmp_path / "run") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_image_flow_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = TABLES | {"image_flow": {"condition": ["slope"]}}
    assert call("contest", config(tmp_path, **tables), "--out", tmp_path / "run") == 2
    assert '"image-flow" is of whole images and all parameters' in capsys.readouterr().err


def _truths_in(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["at_truth"])


def _key(path: Path) -> str:
    import h5py

    with h5py.File(path) as file:
        return str(file.attrs["key"])


def _read(content: bytes, path: Path, key: str) -> TruthPosteriors:
    path.write_bytes(content)
    found = TruthPosteriors.read(path, key)
    assert found is not None
    return found


def test_the_simulator_in_the_loop_keeps_its_simulations_and_goes_on(held: Path, tmp_path: Path) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    run, few = tmp_path / "run", {"methods": ["ps-full", "npe-power"], "loop_walkers": 4}
    tables = TABLES | {"contest": CONTEST | few | {"loop_steps": 4}}
    assert call("contest", config(tmp_path, **tables), "--out", run) == 0
    first = read_json(run / "contest.json")["loop"]
    assert 4 < first["simulations"] <= 4 * (4 + 1)  # proposals outside the prior cost nothing
    chain = np.loadtxt(run / "chains" / "loop.txt")
    assert call("contest", config(tmp_path, **tables), "--out", run) == 0
    assert read_json(run / "contest.json")["loop"]["simulations"] == first["simulations"]
    assert np.array_equal(np.loadtxt(run / "chains" / "loop.txt"), chain)
    tables["contest"] |= {"loop_steps": 7}
    assert call("contest", config(tmp_path, **tables), "--out", run) == 0
    more = read_json(run / "contest.json")
    assert first["simulations"] < more["loop"]["simulations"] <= 4 * (7 + 1)
    assert len(table_of(more, COSTS)["rows"]) == 2 + 2


def test_later_rounds_are_for_the_observation_alone(
    held: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(held / "run", tmp_path / "run")
    run, few = tmp_path / "run", {"methods": ["ps-full", "npe-power"]}
    tables = TABLES | {"contest": CONTEST | few, "inference": TABLES["inference"] | {"rounds": [120, 40]}}
    answered = {path: path.stat().st_mtime_ns for path in parts(run, "npe-power")}
    assert call("contest", config(tmp_path, **tables), "--out", run) == 0
    assert "after them 40 in 1 more round(s) for the run's observation" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in parts(run, "npe-power")} == answered
    content = read_json(run / "contest.json")
    assert content["simulations"] == 120
    assert content["sequential"]["simulations"] == 160
    assert [row[0] for row in table_of(content, "The observation of the run")["rows"]][2:] == [
        "sequential NPE, 2 rounds",
        "truth",
    ]
    assert table_of(content, COSTS)["rows"][-1][:2] == ["sequential NPE, 2 rounds, this observation alone", 160]
    assert len(Samples.read(run / "chains" / "npe")) == 300
