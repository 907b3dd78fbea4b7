"""Folders that cannot be made say why."""

from pathlib import Path

import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("scratch")
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(InputError, match="cannot be written .*/link is a link to scratch, which is not there"):
            make_folder(folder)
    (tmp_path / "scratch").mkdir()
    assert make_folder(tmp_path / "link" / "run").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        make_folder(tmp_path / "file" / "run")
