"""A module's test is found by its name."""

from pathlib import Path

import pytest

from tests.conftest import JOBS

TESTS = Path(__file__).parent
ROOT = TESTS.parent
#: Folders of tests that are about no single module: whole runs, laws of all parts of a kind, parts of a user's own.
OF_SEVERAL = {"jobs", "laws", "doors"}
#: Tests of one side of a module that has another test file, or of what several modules do.
SIDES = {
    "bank/test_hostile.py",
    "bank/test_surroundings.py",
    "bank/test_worlds.py",
    "cli/test_sole.py",
    "core/test_simulators_name.py",
    "likelihood/test_priors.py",
    "npe/test_worlds.py",
    "report/test_received.py",
    "run/test_old_names.py",
    "run/test_read_only.py",
    "separation/test_draws.py",
    "survey/test_ska_lightcone.py",
}
FILES = sorted(path.relative_to(TESTS) for path in TESTS.glob("*/**/test_*.py"))


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] not in OF_SEVERAL], ids=str)
def test_it_has_the_name_of_a_module(path: Path) -> None:
    module = path.with_name(path.name.removeprefix("test_"))
    known = (ROOT / "eorinfer" / module).exists() or (ROOT / module).exists() or path.as_posix() in SIDES
    assert known, f"there is no module {module}"


def test_lists_name_files_that_there_are() -> None:
    for place in (*JOBS, *SIDES):
        assert (TESTS / place).exists(), f"{place} has gone"
