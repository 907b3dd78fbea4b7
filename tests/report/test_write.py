"""`eorinfer report` on a tiny run and on a contest, seen in a real browser."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eorinfer
from eorinfer.core.errors import InputError
from eorinfer.core.files import temporary_name
from eorinfer.core.revision import commit
from eorinfer.core.samples import Samples
from eorinfer.cubes.observation import Observation
from eorinfer.figures.style import subplots, write_figure
from eorinfer.report.page import Picture, Table, Text, render
from eorinfer.report.run_folder import RunFolder
from eorinfer.report.terminal import closing_lines, status_lines
from eorinfer.report.write import page_of, write_report
from tests.browser import Browser, browser, executable
from tests.runs import call, config, quick_emulator

ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(
    executable() is None, reason="there is no Chromium to look at the page with (apt-get install chromium)"
)

SECTIONS = ["posterior", "observation", "calibration", "check", "predictive", "training", "bank", "config", "versions"]
#: Would give the page another title, if anything in it ran.
EVIL = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
EVIL_NAME = "<img src=x onerror=document.title='owned'>"
CONTEST: dict[str, Any] = {
    "format": 1,
    "title": "Flows against chains",
    "tables": [
        {
            "title": "Scores",
            "caption": f"Over 1,000 truths. {EVIL}",
            "columns": ["method", "gain [nats]", "seconds", "calibrated"],
            "rows": [
                ["2D P(k), MCMC", "1.65 ± 0.09", 10, True],
                ["NPE, image", "12.4 ± 0.1", 9.5, True],
                ["1D P(k), MCMC", None, 100, False],
                [EVIL, "−0.4 ± 0.2", None, None],
            ],
        }
    ],
    "figures": [{"title": "Gain", "caption": "Image over power spectrum.", "file": "gain.png"}],
    "notes": ["Chains with fewer than 50 τ are left out.", EVIL],
    "config": {"truths": 1000, "why": EVIL},
}


@pytest.fixture(scope="module")
def run(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a run, validated, with HTML in its name and in its config."""
    folder = tmp_path_factory.mktemp("report")
    out = folder / EVIL_NAME
    shutil.copytree(whole, out)
    path = config(folder, validation={"truths": 40, "samples": 100, "references": 2})
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        assert call("validate", path, "--out", out) in (0, 1)
    assert 'id="calibration"' in (out / "report.html").read_text(), "validation writes it again"
    with (out / "config.toml").open("a") as file:
        file.write(f"# {EVIL}\n")
    assert call("report", out) == 0
    return out


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a contest and nothing else."""
    folder = tmp_path_factory.mktemp("contest")
    figure, axis = subplots(figsize=(6.4, 4.8))
    axis.plot([0, 1])
    write_figure(figure, folder / "gain.png")
    (folder / "contest.json").write_text(json.dumps(CONTEST))
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def column(tab: Browser, table: str, number: int) -> list[str]:
    """Texts of a column of the first table in an element."""
    return list(
        tab.value(
            f"[...document.querySelector('{table} table').tBodies[0].rows].map(r => r.cells[{number}].textContent)"
        )
    )


def test_a_run_leaves_its_page(whole: Path, run: Path) -> None:
    before, after = ((folder / "report.html").read_text() for folder in (whole, run))
    assert 'id="posterior"' in before
    assert 'id="calibration"' not in before
    assert f"Not validated: <code>eorinfer validate {whole}/config.toml --out {whole}</code>" in before
    assert "Not validated" not in after
    first = re.search(r"<li>not validated yet: (.*?)</li>", before)
    assert first is not None
    assert first[1] == f"eorinfer validate {whole}/config.toml --out {whole}"
    assert first.start() < before.index("<section id=")
    assert "not validated yet" not in after
    assert Observation.read_unchecked(whole / "observation.h5").digest in before
    assert f"eorinfer run {whole}/config.toml --out {whole}" in before
    assert f"<dd>{commit()}</dd>" in before if commit() else f"<dd>{eorinfer.__version__}</dd>" in before
    assert "of the noise" in before


def test_the_page_of_a_separator_names_its_command(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[separation]\nsteps = 10\n")
    page = write_report(tmp_path).read_text()
    assert f"eorinfer separate train {tmp_path}/config.toml --out {tmp_path}" in page
    assert "eorinfer run" not in page


def test_steps_that_have_not_been_are_named_with_their_commands(tmp_path: Path) -> None:
    assert call("observe", config(tmp_path), "--out", tmp_path / "a run") == 0
    assert call("report", tmp_path / "a run", "--out", tmp_path / "page.html") == 0
    page = unescape((tmp_path / "page.html").read_text())
    for step in ("infer", "mcmc", "validate"):
        assert f"<code>eorinfer {step} '{tmp_path}/a run/config.toml' --out '{tmp_path}/a run'</code>" in page
    assert re.findall(r'<section id="(.*?)"', page) == ["observation", "bank", "config", "versions", "missing"]
    assert not (tmp_path / "a run/report.html").exists()
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / temporary_name("probe").replace(f"-{os.getpid()}-", f"-{int(process.stdout)}-")
    left.touch()
    assert call("report", tmp_path / "a run", "--out", tmp_path / "page.html") == 0
    assert not left.exists(), "what a command that was killed left goes with the next page"


def test_a_posterior_that_was_used_again(whole: Path, tmp_path: Path) -> None:
    own = ("infer", "--posterior", whole / "posterior", "--observation", whole / "observation.h5", "--samples", 100)
    assert call(*own, "--out", tmp_path / "again") == 0
    page = write_report(tmp_path / "again").read_text()
    assert re.findall(r'<section id="(.*?)"', page) == ["posterior", "observation", "check", "versions"]
    assert "bias [σ]" in page


def test_a_page_of_earlier_results_is_said_to_be_one(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    write_report(out)
    assert not any("of earlier results" in line for line in status_lines(out))
    npe = Samples.read(out / "chains/npe")
    Samples.unweighted(npe.values + 0.1, npe.parameters, npe.label).write(out / "chains/npe")
    (done,) = [line for line in status_lines(out) if line.startswith("done:")]
    assert "report" not in done
    said = f"report.html is of earlier results: eorinfer report {out}"
    assert said in status_lines(out)
    assert said in closing_lines(out)
    write_report(out)
    assert said not in status_lines(out)
    # Pages of older versions do not say what they are of.
    file = out / "report.html"
    file.write_text(file.read_text().rpartition("<!-- of results")[0])
    Samples.unweighted(npe.values, npe.parameters, npe.label).write(out / "chains/npe")
    assert said not in status_lines(out)


def test_chains_that_somebody_put_there(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "chains", tmp_path / "chains")
    npe = Samples.read(whole / "chains/npe")
    npe.write(tmp_path / "chains/again")
    Samples.unweighted(npe.values[:, 1:], npe.parameters[1:], "of one parameter").write(tmp_path / "chains/slope.1")
    folder = RunFolder.read(tmp_path)
    assert list(folder.chains) == ["npe", "mcmc", "again", "slope.1"]
    (posterior,) = [section for section in page_of(folder).sections if section.id == "posterior"]
    everything, slope, wider, says, cost, trace = posterior.blocks
    assert isinstance(wider, Text)
    assert " times as wide as power-spectrum MCMC, though an image holds" in wider.text
    assert isinstance(everything, Picture)
    assert isinstance(slope, Picture)
    assert everything.alt.endswith("NPE on images, power-spectrum MCMC, NPE on images")
    assert slope.alt == "Corner plot of slope: of one parameter, " + everything.alt.partition(": ")[2]
    assert isinstance(says, Table)
    assert isinstance(cost, Table)
    assert isinstance(trace, Picture)
    assert trace.alt == "Trace and autocorrelation of the chain of power-spectrum MCMC, 80 steps of 8 walkers"
    assert [row[0].text for row in says.rows] == ["log_amplitude"] * 3 + ["slope"] * 4
    labels = ["NPE on images (npe)", "power-spectrum MCMC", "NPE on images (again)", "of one parameter"]
    assert [row[0].text for row in cost.rows] == labels


def test_warnings_come_first(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    for name, change in (
        ("chains/npe.json", {"misspecification": {"unlike": True, "line": "WARNING: the observation is unlike"}}),
        (
            "validation.json",
            {"calibrated": False, "verdict": "NOT calibrated: slope is too narrow", "posterior": "old"},
        ),
    ):
        content = json.loads((out / name).read_text())
        for key, value in change.items():
            content[key] = content[key] | value if isinstance(value, dict) else value
        (out / name).write_text(json.dumps(content))
    before, page = page_of(RunFolder.read(run)), page_of(RunFolder.read(out))
    assert any("The chain mcmc has not converged: 80 steps are" in line for line in before.warnings)
    for warning in (
        "the observation is unlike",
        "The posterior is NOT calibrated: slope is too narrow",
        "The posterior was trained again after its validation: calibration is that of the one before",
    ):
        assert warning in page.warnings
        assert warning not in before.warnings
    text = render(page)
    assert text.index("NOT calibrated") < text.index('id="posterior"')
    assert "not known since the posterior was trained again" in text
    assert "information gained" not in text[: text.index('id="posterior"')]
    lines = status_lines(out)
    assert lines[-1].startswith("not validated since the posterior was trained again: eorinfer validate ")
    assert not any(line.startswith("done: ") and "validate" in line for line in lines)
    assert status_lines(run)[-1].startswith(("calibrated", "NOT calibrated"))


def test_a_check_that_cannot_tell_is_said_first(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    chain = json.loads((out / "chains/npe.json").read_text())
    line = "CANNOT TELL whether the observation is like the simulations"
    chain["misspecification"] |= {"unlike": False, "weak": True, "line": line}
    (out / "chains/npe.json").write_text(json.dumps(chain))
    assert line in page_of(RunFolder.read(out)).warnings


def test_round_off_of_a_mean_is_no_number(run: Path) -> None:
    folder = RunFolder.read(run)
    assert folder.observation is not None
    cube = np.random.default_rng(1).normal(size=folder.observation.values.shape).astype(np.float32)
    folder = dataclasses.replace(folder, observation=dataclasses.replace(folder.observation, values=cube - cube.mean()))
    (observation,) = [section for section in page_of(folder).sections if section.id == "observation"]
    moments, power = (block for block in observation.blocks if isinstance(block, Table))
    assert [row[1].text for row in moments.rows] == ["0"] * len(cube)
    assert power.folded
    assert "<details>" in render(page_of(folder))


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_is_seen_whole(run: Path, tab: Browser, width: int, dark: bool) -> None:
    tab.open(run / "report.html", width, dark=dark)
    assert tab.value("[...document.querySelectorAll('main section[id]')].map(s => s.id)") == SECTIONS
    assert tab.value("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))") == SECTIONS
    assert tab.value("document.documentElement.scrollWidth") == width, "only boxes inside of it are scrolled"
    assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt.length > 20)")
    assert tab.value("document.querySelectorAll('main .side-by-side img').length") == 3, "one channel, two rounds"
    assert tab.value("document.images.length") == 3 + 5, "corner, trace, calibration, predictive"
    everything = tab.value("document.querySelectorAll('[id]').length")
    assert everything == tab.value("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
    paper, ink = (
        sum(map(int, re.findall(r"\d+", tab.value(f"getComputedStyle(document.body).{name}"))[:3])) / 765
        for name in ("backgroundColor", "color")
    )
    assert (paper < 0.2 < 0.8 < ink) if dark else (ink < 0.2 < 0.8 < paper)
    cards = tab.value("[...document.images].map(i => getComputedStyle(i.closest('.card')).backgroundColor)")
    assert {*cards} == {"rgb(255, 255, 255)"}, "pictures stand on white"


@needs_browser
def test_nothing_is_loaded_and_nothing_runs(run: Path, tab: Browser) -> None:
    tab.open(run / "report.html")
    assert tab.value("document.title") == f"Run “{EVIL_NAME}”"
    assert EVIL in tab.value("document.querySelector('#config code').textContent")
    addresses = [event["request"]["url"] for event in tab.reported("Network.requestWillBeSent")]
    assert addresses[0].endswith("/report.html")
    assert addresses[1:], "pictures, out of the page itself"
    assert all(address.startswith("data:image/png") for address in addresses[1:])
    assert not tab.reported("Log.entryAdded") + tab.reported("Runtime.exceptionThrown")
    # What would be so if something slipped through: the page's own policy stops it.
    tab.value(
        "document.body.append(Object.assign(document.createElement('script'), {text: \"document.title = 'owned'\"}));"
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/p.png>')"
    )
    deadline = time.monotonic() + 20
    while not tab.reported("Network.loadingFailed") and time.monotonic() < deadline:
        tab.value("0")
    assert [event["blockedReason"] for event in tab.reported("Network.loadingFailed")] == ["csp"]
    assert tab.value("document.title") == f"Run “{EVIL_NAME}”"


@needs_browser
def test_a_contest_by_itself(contest: Path, tab: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", contest) == 0
    assert capsys.readouterr().out.startswith(f"page: {contest}/report.html, 0.")
    tab.open(contest / "report.html", 390)
    assert tab.value("document.title") == "Flows against chains", "and nothing ran"
    assert tab.value("document.querySelector('h1').textContent") == "Flows against chains"
    assert tab.value("[...document.querySelectorAll('main section[id]')].map(s => s.id)") == ["scores", "versions"]
    assert tab.value("document.documentElement.scrollWidth") == 390
    assert tab.value("document.querySelector('#scores img').naturalWidth") > 100
    assert EVIL in tab.value("document.querySelector('#scores').textContent")

    def sorted_by(number: int) -> list[str]:
        tab.click(f"#scores th:nth-child({number}) button")
        return column(tab, "#scores", number - 1)

    assert sorted_by(2) == ["−0.4 ± 0.2", "1.65 ± 0.09", "12.4 ± 0.1", "–"], "as numbers, what has none last"
    assert tab.value("[...document.querySelectorAll('#scores th[aria-sort]')].map(h => h.textContent)") == [
        "gain [nats]"
    ]
    assert column(tab, "#scores", 0) == [EVIL, "2D P(k), MCMC", "NPE, image", "1D P(k), MCMC"], "whole rows move"
    assert sorted_by(2) == ["12.4 ± 0.1", "1.65 ± 0.09", "−0.4 ± 0.2", "–"]
    assert tab.value("document.querySelector('#scores th:nth-child(2)').ariaSort") == "descending"
    assert sorted_by(3) == ["9.5", "10", "100", "–"]
    assert sorted_by(1) == [EVIL, "1D P(k), MCMC", "2D P(k), MCMC", "NPE, image"], "as text"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"title": None}, "title: Input should be a valid string"),
        ({"tables": [{"title": "t", "columns": ["a", "b"], "rows": [["x"]]}]}, "row 0 has 1 cells for 2 columns"),
        ({"tables": [{"title": "t", "columns": ["a"], "rows": [[{}]]}]}, "tables.0.rows.0.0"),
        ({"figures": [{"title": "f", "file": "gone.png"}]}, "figure 'gone.png' is no .png file in "),
        ({"figures": [{"title": "f", "file": "../outside.png"}]}, "figure '../outside.png' is no .png file in "),
        ({"figures": [{"title": "f", "file": "contest.json"}]}, "figure 'contest.json' is no .png file in "),
    ],
)
def test_a_contest_that_is_misshapen(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "outside.png").write_bytes(b"secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/contest.json").write_text(json.dumps(CONTEST | {"figures": []} | change))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        write_report(tmp_path / "run")
    assert str(raised.value).startswith(f"{tmp_path / 'run/contest.json'}: ")
    assert not (tmp_path / "run/report.html").exists()


def test_a_contest_under_its_old_name(contest: Path, tmp_path: Path) -> None:
    shutil.copytree(contest, tmp_path / "run")
    (tmp_path / "run/contest.json").rename(tmp_path / "run/benchmark.json")
    assert "Flows against chains" in write_report(tmp_path / "run").read_text()
    # A contest that is held again in that folder is the one that counts.
    (tmp_path / "run/contest.json").write_text(json.dumps(CONTEST | {"title": "Held again"}))
    assert "<h1>Held again</h1>" in write_report(tmp_path / "run").read_text()


def test_what_cannot_be_shown(tmp_path: Path, contest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((tmp_path / "gone",), f"{tmp_path}/gone: no such folder"),
        ((tmp_path / "empty",), f"{tmp_path}/empty: holds no run and no contest: no config.toml, no chains"),
        ((contest, "--out", tmp_path / "empty"), f"{tmp_path}/empty: the page is a file; give --out with a name"),
        ((contest, "--out", tmp_path / "page.pdf"), f"{tmp_path}/page.pdf: the page is a file; give --out with"),
    ):
        assert call("report", *arguments) == 2
        assert capsys.readouterr().err.startswith(f"eorinfer: {message}")


def test_what_the_page_is_made_of_is_installed() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["eorinfer"]
    beside = {f"report/{f.name}" for f in (ROOT / "eorinfer/report").iterdir() if f.suffix in (".html", ".css", ".js")}
    assert beside == {name for name in content if name.startswith("report/")}
    assert len(beside) == 3


def test_what_was_made_of_earlier_posteriors_is_said(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    assert not RunFolder.read(out).summary_is_old
    npe = Samples.read(out / "chains/npe")
    dataclasses.replace(npe, values=npe.values + 0.01 * npe.std).write(out / "chains/npe")
    again = RunFolder.read(out)
    assert again.summary_is_old
    page = page_of(again)
    assert any("are of earlier posteriors" in line for line in page.warnings)
    assert "volume, NPE over MCMC" not in render(page)[: render(page).index('id="posterior"')]
    lines = status_lines(out)
    assert any(
        line.startswith("summary.json and the pictures are of earlier posteriors: eorinfer plot") for line in lines
    )
    assert not any(line.startswith("done: ") and " plot" in line for line in lines)
