"""Every public name has an example in its docstring, and it runs as it stands."""

import doctest
from pathlib import Path

import pytest

import eorinfer
from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import config

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = [name for name in eorinfer.__all__ if name != "__version__"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which examples/gaussian.toml was run, as small as can be, with an image flow."""
    place = tmp_path_factory.mktemp("examples")
    tables = {"inference": {"rounds": [48]}, "image_flow": {"steps": 4, "convolutions": 1, "hidden": [8]}}
    path = config(place / "examples", "gaussian.toml", **tables)
    run = Run(load_config(path), place / "runs" / "gaussian")
    run.infer()
    run.image_flow()
    return place


@pytest.mark.job
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    documented = getattr(eorinfer, name)
    tests = [test for test in doctest.DocTestFinder(recurse=False).find(documented, name, globs={}) if test.examples]
    assert tests, f"{name} has no example in its docstring"
    for test in tests:
        said: list[str] = []
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
        assert not said, "".join(said)
