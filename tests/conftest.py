"""What several files of tests look at, and the tests that `pytest --quick` leaves out."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
#: Files whose tests start processes, simulate with 21cmFAST, train for long, or do whole runs.
#: In other files the marker `job` says it.
JOBS = {
    *(f"run/test_{name}.py" for name in ("image_flow", "line_separation", "rounds", "run", "subjects", "validation")),
    *(f"simulators/reionization/test_{name}.py" for name in ("coeval", "galaxies", "lightcone", "versions")),
    *(f"campaign/test_{name}.py" for name in ("executors", "fill")),
    *("cli/test_app.py", "contest/test_contest.py", "report/test_write.py"),
    *(
        "imageflow/test_diffusion.py",
        "imageflow/test_model.py",
        "likelihood/test_emulator.py",
        "likelihood/test_neural.py",
    ),
    *("separation/test_training.py", "training/test_fit.py"),
}
#: Steps of training that a quick test may take.
STEPS = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make quick`."""
    parser.addoption("--quick", action="store_true", help="unit tests alone: no process, no 21cmFAST, no long training")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files of jobs unread, since importing what they need takes seconds."""
    if not config.getoption("--quick") or not collection_path.is_relative_to(TESTS):
        return None
    return _is_job(collection_path) or None


def _is_job(path: Path) -> bool:
    """Tell whether all tests of a file or folder are jobs."""
    place = path.relative_to(TESTS)
    return place.parts[:1] == ("jobs",) or place.as_posix() in JOBS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out single tests that are jobs; mark those of whole files."""
    for item in items:
        if item.path.is_relative_to(TESTS) and _is_job(item.path):
            item.add_marker(pytest.mark.job)
    if config.getoption("--quick"):
        jobs = [item for item in items if item.get_closest_marker("job")]
        config.hook.pytest_deselected(items=jobs)
        items[:] = [item for item in items if not item.get_closest_marker("job")]


def pytest_collection_finish() -> None:
    """Check the shapes that docstrings state; what has loaded no torch by now has none."""
    if "torch" in sys.modules:
        from tests.shapes import check_shapes

        check_shapes()


@pytest.fixture(autouse=True)
def _quick_is_quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test of `make quick` that starts a process, trains for long or simulates with 21cmFAST."""
    if not request.config.getoption("--quick"):
        yield
        return

    def refused(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"a quick test starts a process: {arguments[1:2]}; mark it with pytest.mark.job")

    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    monkeypatch.setattr(subprocess.Popen, "__init__", refused)
    if "torch" in sys.modules:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        hook = register_optimizer_step_post_hook(count)
        yield
        hook.remove()
    else:
        yield
    assert steps <= STEPS, f"a quick test trains for {steps} steps; mark it with pytest.mark.job"
    assert "py21cmfast" not in sys.modules, "a quick test imports 21cmFAST; mark it with pytest.mark.job"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through at once; what is to be changed is done to a copy."""
    from tests.runs import call, config, quick_emulator

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        assert call("run", config(folder), "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture
def quick_diffusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start diffusions by short fits of their Gaussian field, whose quality the test does not ask for."""
    monkeypatch.setattr("eorinfer.imageflow.gaussian_part.STEPS", 100)
    monkeypatch.setattr("eorinfer.imageflow.diffusion.FIT_STEPS", 50)
