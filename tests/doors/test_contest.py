"""A user's own contest method, and NPE on a user's own summaries, against one of the package's."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from eorinfer.settings.contest import METHODS, MethodRow
from tests.runs import call, config

pytestmark = pytest.mark.job

HERE = Path(__file__).parent
OWN = "mymethod:LinearRegression"
TABLES: dict[str, Any] = {
    "inference": {"rounds": [48], "samples": 100, "predictive": 0},
    "embedding": {"summaries": ["mysummary:SmoothedVariance"]},
}
CONTEST: dict[str, Any] = {"truths": 20, "sampled_truths": 20, "image_flow_truths": 20, "samples": 100}


def a_config(folder: Path, methods: list[str], **contest: Any) -> Path:
    for module in ("mymethod", "mysummary"):
        shutil.copy(HERE / f"{module}.py", folder)
    return config(folder, **TABLES, contest=CONTEST | {"methods": methods} | contest)


def test_it_takes_part_and_is_kept(tmp_path: Path) -> None:
    path, run = a_config(tmp_path, [OWN, "npe-summaries"], reference=OWN, baseline=OWN), tmp_path / "run"
    assert call("contest", path, "--out", run) == 0
    scored = read_json(run / "contest.json")["methods"]
    assert list(scored) == [OWN, "npe-summaries"]
    assert scored[OWN]["label"] == "linear regression on log P(k)"
    assert Samples.read(run / "chains/mymethod-LinearRegression").label == "linear regression on log P(k)"
    embedding = read_json(run / "contest/npe-summaries/posterior/posterior.json")["embedding"]
    assert not embedding["convolution"]
    assert embedding["summaries"] == ["mysummary:SmoothedVariance"]
    answers = run / "contest/mymethod-LinearRegression/answers/00000.h5"
    before = answers.stat().st_mtime_ns
    assert (run / "mymethod.py").exists()
    assert call("contest", run / "config.toml", "--out", run) == 0
    assert answers.stat().st_mtime_ns == before, "evaluated again"


def test_one_more_in_the_tree_is_a_file_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = MethodRow("npe-rough", "NPE, rough", "truths", "tests.doors.test_contest:rough_method")
    monkeypatch.setitem(METHODS, "npe-rough", row)
    path = a_config(tmp_path, ["npe-rough", OWN], reference=OWN, baseline=OWN)
    assert call("contest", path, "--out", tmp_path / "run") == 0
    assert read_json(tmp_path / "run" / "contest.json")["methods"]["npe-rough"]["label"] == "NPE, rough"


def rough_method(setup: Any, name: str) -> Any:
    """The user's method once more, as the function of a row."""
    from eorinfer.contest.method import Method
    from tests.doors.mymethod import LinearRegression

    return Method(name, setup.key_of(name), 0.0, LinearRegression(setup, name).evaluate)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("npe-everything", '"npe-everything" is not known: one of "ps-diagonal"'),
        ("nothere:Mine", "there is no nothere.py in"),
        ("wrong:Plain", '"wrong:Plain" is no method: derive it from eorinfer.contest.method.OwnMethod'),
        ("wrong:Half", '"wrong:Half" has no evaluate; eorinfer.contest.method.OwnMethod asks for it'),
    ],
)
def test_what_cannot_take_part_is_refused_before_simulating(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, message: str
) -> None:
    (tmp_path / "wrong.py").write_text(
        "from eorinfer.contest.method import OwnMethod\n"
        "class Plain: pass\n"
        "class Half(OwnMethod):\n    def __init__(self, setup, name): pass\n"
    )
    path = a_config(tmp_path, [method], reference=method, baseline=method)
    assert call("contest", path, "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("run/bank/shards/*"))
