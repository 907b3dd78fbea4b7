"""Export and picture of a bank."""

import json
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from eorinfer.bank.export import export_rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError, WorkError
from simulators import GaussianField
from tests.banks import a_bank
from tests.runs import call


def test_another_tool_reads_the_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    assert call("bank", "export", bank.path, tmp_path / "new" / "all.h5", "--all") == 0
    assert "all.h5: 5 rows" in capsys.readouterr().out
    assert call("bank", "export", bank.path, tmp_path / "ok.h5") == 0
    with h5py.File(tmp_path / "new/all.h5") as everything, h5py.File(tmp_path / "ok.h5") as good:
        assert everything["theta"][:].tobytes() == plan.theta.tobytes()
        assert everything["seed"][:].tolist() == [0, 1, 2, 3, 4]
        assert everything["status"][:].tolist() == [b"ok", b"failed", b"ok", b"ok", b"ok"]
        assert everything["message"][1].decode() == "keine Quellen: θ"
        assert list(everything["theta"].attrs["names"]) == ["log_amplitude", "slope"]
        assert json.loads(everything.attrs["simulator"])["kind"] == "gaussian-field"
        field = everything["field"]
        assert field.chunks is None, "any tool may map it into memory"
        assert list(field.attrs["axes"]) == ["row", "channel", "x", "y"]
        np.testing.assert_array_equal(field[:], bank.read("field", bank.rows()))
        assert good["seed"][:].tolist() == [0, 2, 3, 4]
        np.testing.assert_array_equal(good["field"][:], field[[0, 2, 3, 4]])
        mapped = np.memmap(tmp_path / "ok.h5", np.float32, "r", good["field"].id.get_offset(), good["field"].shape)
        np.testing.assert_array_equal(mapped, good["field"][:])


def test_exports_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    (tmp_path / "there.h5").write_text("mine")
    assert call("bank", "export", bank.path, tmp_path / "there.h5") == 2
    assert "there.h5: exists already; give another name" in capsys.readouterr().err
    assert (tmp_path / "there.h5").read_text() == "mine"
    assert call("bank", "export", bank.path, tmp_path / "new.fits") == 2
    assert "new.fits: an export is HDF5; give it a name that ends in .h5" in capsys.readouterr().err
    empty = Bank.create(tmp_path / "empty", GaussianField(cells=8))
    assert call("bank", "export", empty.path, tmp_path / "new.h5") == 2
    assert "has no rows to export that are ok" in capsys.readouterr().err
    bank.shard_path(plan, 1).write_bytes(b"")
    assert call("bank", "export", bank.path, tmp_path / "new.h5") == 2
    assert "01-abc-00001.h5: not a whole shard" in capsys.readouterr().err
    assert not list(tmp_path.glob("*new.h5"))


def test_an_export_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"takes 0\.00 GB, and its disk has 0\.00 GB left"):
        export_rows(bank, tmp_path / "new.h5")


def test_an_export_that_cannot_be_written(tmp_path: Path) -> None:
    """HDF5 has errors of its own, which named no file."""
    bank, _ = a_bank(tmp_path / "bank")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, unlimited[1]))
    try:
        with pytest.raises(WorkError, match=r"new\.h5: cannot be written \(File too large\)"):
            export_rows(bank, tmp_path / "new.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
@pytest.mark.job
def test_a_picture(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    file = tmp_path / f"picture{suffix}"
    assert call("bank", "info", bank.path, "--plot", file) == 0
    assert f"picture: {file}" in capsys.readouterr().out
    assert file.read_bytes()[:4] in (b"\x89PNG", b"%PDF")
    assert call("bank", "info", bank.path, "--plot", tmp_path / "picture.txt") == 2
    assert "picture.txt: pictures are .png or .pdf files" in capsys.readouterr().err
    empty = Bank.create(tmp_path / "empty", GaussianField(cells=8, dimension=3))
    assert call("bank", "info", empty.path, "--plot", tmp_path / "empty.png") == 0
