"""What counts in the hash of a user's own module: what its code and its neighbours' does, and not how it is spelt."""

from pathlib import Path

import pytest

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from simulators import UnknownSimulator, build, fingerprint
from simulators.parts import copy_sources
from simulators.registry import earlier_fingerprints, own_sources
from simulators.sources import code_digest, sources

MINE = """
from simulators import GaussianField, Parameter
import near
from pack import deep


class Mine(GaussianField):
    @property
    def parameters(self):
        return (Parameter("a", "A", 0.0, 1.0, 0.5, "mK"), Parameter("b", "B", low=0.0, high=1.0, fiducial=0.5))

    def simulate(self, theta, seed):
        import late

        return {"field": late.one * near.gain() * deep.two * super().simulate(theta, seed)["field"]}
"""
FILES = {
    "mine.py": MINE,
    "near.py": "def gain():\n    return 1.0\n",
    "late.py": "one = 1.0\n",
    "pack/__init__.py": "from .inner import three\n",
    "pack/inner.py": "three = 3.0\n",
    "pack/deep.py": "from . import inner\nfrom os import path\ntwo = 2.0\n",
    "unused.py": "nobody = 'imports this'\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def of(folder: Path) -> str:
    return fingerprint(build({"kind": "mine:Mine", "cells": 8}, folder))


def test_neighbours_are_found_through_others(folder: Path) -> None:
    found = sources(folder / "mine.py", "mine")
    assert sorted(found) == ["late", "mine", "near", "pack", "pack.deep", "pack.inner"]
    assert own_sources(build({"kind": "mine:Mine"}, folder)) == found


@pytest.mark.parametrize("name", [name for name in FILES if name != "unused.py"])
def test_an_edit_of_any_of_them_counts_and_is_named(folder: Path, name: str) -> None:
    bank = Bank.create(folder / "bank", build({"kind": "mine:Mine", "cells": 8}, folder))
    before = of(folder)
    (folder / name).write_text(FILES[name] + "\nmore = 1\n")
    assert of(folder) != before
    with pytest.raises(InputError, match=rf"{name} has been edited"):
        Bank.create(bank.path, build({"kind": "mine:Mine", "cells": 8}, folder))
    (folder / name).write_text(FILES[name])
    assert of(folder) == before


def test_an_edit_reaches_a_process_that_has_imported_the_module(folder: Path) -> None:
    theta, mine = [0.5, 0.5], {"kind": "mine:Mine", "cells": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        one = build(mine, folder).simulate(theta, 1)["field"]
        (folder / "near.py").write_text("def gain():\n    return 10.0\n")
        assert build(mine, folder).simulate(theta, 1)["field"] == pytest.approx(10 * one, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("near.py", "    return", '    """What it gives."""\n\n    # a comment\n    return'),
        ("near.py", "return 1.0", "return (1.0)  # in brackets"),
        ("near.py", "return 1.0", "pass; return 1.0"),
        ("mine.py", "\n\n\nclass", "\n\n\n\n\nclass"),
        ("mine.py", "import near", "'''A docstring.'''\nimport near"),
        ("mine.py", '"a", "A", 0.0, 1.0, 0.5, "mK"', '"a", r"\\alpha", 0.0, 1.0, 0.5, "K"'),
        ("mine.py", "high=1.0,", "high=1.0, label='B', description='the second',"),
    ],
)
def test_how_it_is_spelt_costs_no_bank(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text().replace('"B", low', "low")
    (folder / name).write_text(text)
    before = code_digest(folder / name)
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    assert code_digest(folder / name) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a = 1", "a = 1.0"),
        ("a = 'x'", "a = b'x'"),
        ("a = [1, 2]", "a = [2, 1]"),
        ("a = nn.Parameter(x, True)", "a = nn.Parameter(x, False)"),
        ("a = Parameter('a', 'A', 0.0)", "a = Parameter('b', 'A', 0.0)"),
        ("a = Parameter('a', 'A', 0.0)", "a = Parameter('a', 'A', 1.0)"),
        ("def f(x, y=1): return x", "def f(x, y=2): return x"),
        ("from a import b", "from a import c"),
        ("from . import b", "from .. import b"),
        ("x: int = 1", "x: float = 1"),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
        ("not python at all (", "not python at all  ("),
    ],
)
def test_what_may_change_a_number_counts(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "one.py").write_text(one)
    (tmp_path / "other.py").write_text(other)
    assert code_digest(tmp_path / "one.py") != code_digest(tmp_path / "other.py")


def test_a_bank_with_the_hash_of_the_text_still_opens(folder: Path) -> None:
    simulator = build({"kind": "mine:Mine", "cells": 8}, folder)
    bank = Bank.create(folder / "bank", simulator)
    (earlier,) = earlier_fingerprints(simulator)
    file = bank.path / "bank.json"
    file.write_text(file.read_text().replace(bank.fingerprint, earlier))
    assert Bank.create(bank.path, simulator).fingerprint == earlier
    (folder / "mine.py").write_text(MINE + "\n")
    with pytest.raises(InputError, match="another simulator"):
        Bank.create(bank.path, build({"kind": "mine:Mine", "cells": 8}, folder))


def test_a_copy_has_all_of_them(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    into = tmp_path_factory.mktemp("run")
    copy_sources(own_sources(build({"kind": "mine:Mine"}, folder)), folder, into)
    copied = sorted(str(file.relative_to(into)) for file in into.rglob("*.py"))
    assert copied == sorted(name for name in FILES if name != "unused.py")
    assert of(into) == of(folder)


def test_a_module_inside_a_package_imports_relatively(folder: Path) -> None:
    imports = "from simulators import GaussianField\nfrom .inner import three\n"
    (folder / "pack/sim.py").write_text(imports + "class Sim(GaussianField):\n    gain: float = three\n")
    simulator = build({"kind": "pack.sim:Sim", "cells": 8}, folder)
    assert simulator.gain == 3.0
    assert sorted(own_sources(simulator)) == ["pack", "pack.inner", "pack.sim"]


def test_a_name_that_is_taken_is_refused(folder: Path) -> None:
    (folder / "mine.py").write_text("import pytest\n" + MINE)
    (folder / "pytest.py").write_text("")
    with pytest.raises(UnknownSimulator, match=r'"pytest" is .*pytest\.py here, but .* has that name already'):
        build({"kind": "mine:Mine", "cells": 8}, folder)
