"""Own parts of a bundle from somebody else: imported only from the folder that the reader names."""

from pathlib import Path

import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.own import check_recorded, own_digests
from simulators.parts import UnknownPart, load_part

TABLES = {"embedding": {"summaries": ["power", "mine:f"]}, "flow": {"kind": "zuko_nsf"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("def f(cubes): return cubes\n")
    return tmp_path


def test_the_module_that_it_was_made_with(folder: Path) -> None:
    recorded = TABLES | {"own": own_digests(TABLES, folder, ("embedding",))}
    check_recorded(recorded, folder, folder)
    with pytest.raises(InputError, match="--modules FOLDER"):
        check_recorded(recorded, folder, None)
    (folder / "mine.py").write_text("def f(cubes): return 2 * cubes\n")
    with pytest.raises(InputError, match="another version"):
        check_recorded(TABLES | {"own": {"mine:f": "0" * 16}}, folder, folder)


@pytest.mark.parametrize("own", [None, {}, [], {"other:f": "0" * 16}])
def test_a_name_that_is_not_recorded(folder: Path, own: object) -> None:
    """Such a description was edited: it would have imported from Python's path."""
    with pytest.raises(InputError, match='names "mine:f" and does not say'):
        check_recorded(TABLES | {"own": own}, folder, folder)


def test_a_module_of_python_s_path_is_not_the_reader_s_own(folder: Path) -> None:
    name = "subprocess:Popen"
    tables = {"embedding": {}, "flow": {"kind": name}, "own": own_digests({"flow": {"kind": name}}, None, ("flow",))}
    with pytest.raises(InputError, match=r"there is no subprocess\.py in"):
        check_recorded(tables, folder, folder)
    check_recorded(tables, folder, folder, named=[name])  # as the reader's own config names it


@pytest.mark.parametrize("name", ["../evil:f", "/tmp/evil:f", "..evil:f", "mine:", ":f", "mine:f.g", "mi ne:f"])
def test_names_lead_out_of_no_folder(folder: Path, name: str) -> None:
    with pytest.raises(UnknownPart, match='must be "module:name"'):
        load_part(name, folder)
