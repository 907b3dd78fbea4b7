"""Bundles: whole or absent, read as they were written, and refused with the folder's name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eorinfer.bank.description import package_versions
from eorinfer.core.errors import InputError
from eorinfer.training.bundle import BundleKind

KIND = BundleKind("lens", "lens.json", 3)


def weights() -> dict[str, Tensor]:
    """Return two tensors, one of which is not contiguous."""
    return {"a": torch.arange(6.0).view(2, 3).T, "b.c": torch.tensor(2, dtype=torch.float64)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    KIND.write(tmp_path / "lens", {"size": 2}, weights(), extra={"x": torch.ones(1)}, absent=None)
    return tmp_path / "lens"


def test_what_was_written_is_read(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"lens.json", "weights.safetensors", "extra.safetensors"}
    content = json.loads((folder / "lens.json").read_text())
    assert content == {"format": 3, "size": 2, "packages": package_versions()}
    with KIND.reading(folder) as bundle:
        assert bundle["size"] == 2
        assert bundle.weights.keys() == weights().keys()
        for name, tensor in weights().items():
            assert torch.equal(bundle.weights[name], tensor)
            assert bundle.weights[name].dtype == tensor.dtype
        extra = bundle.tensors("extra")
        assert extra is not None
        assert extra["x"].tolist() == [1.0]
        assert bundle.tensors("absent") is None


def test_what_else_belongs_to_it_is_written_with_it_or_not_at_all(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileNotFoundError), KIND.writing(folder, {"size": 3}, weights()) as temporary:
        (temporary / "nowhere" / "beside").mkdir()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["lens"]
    with KIND.writing(folder, {"size": 3}, weights()) as temporary:
        (temporary / "beside").mkdir()
    assert {path.name for path in folder.iterdir()} == {"lens.json", "weights.safetensors", "beside"}
    assert [path.name for path in folder.parent.iterdir()] == ["lens"]


@pytest.mark.parametrize("meant", ["", ".", "lens.json"])
def test_the_folder_that_was_meant_is_named(folder: Path, meant: str) -> None:
    """Above the bundle, inside of it, and its description."""
    given = folder.parent if not meant else folder / meant
    if meant == ".":
        given = folder / "inner"
        given.mkdir()
    with pytest.raises(InputError, match=f"no lens here .*; there is one in {folder}$"), KIND.reading(given):
        pass


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "lens.json").unlink(), "no lens here (lens.json is missing)"),
        (lambda f: (f / "lens.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "lens.json").write_text('{"format": 4}'), "format 4, this version reads format 3"),
        (lambda f: (f / "lens.json").write_text('{"format": 3}'), "the lens cannot be read ('size')"),
        (lambda f: (f / "weights.safetensors").unlink(), "the lens cannot be read (No such file"),
        (lambda f: (f / "weights.safetensors").write_text("not weights"), "the lens cannot be read ("),
    ],
)
def test_a_damaged_bundle_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError) as caught, KIND.reading(folder) as bundle:
        bundle["size"], bundle.weights
    assert str(caught.value).startswith(str(folder))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
