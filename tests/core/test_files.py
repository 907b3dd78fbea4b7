"""Names of files and folders: long ones, and folders that cannot be made, which say why."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import LONGEST_NAME, make_folder, remove_leftovers, temporary_name, whole_file, whole_folder


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("scratch")
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(InputError, match=r"cannot be written .*/link is a link to scratch, which is not there"):
            make_folder(folder)
    (tmp_path / "scratch").mkdir()
    assert make_folder(tmp_path / "link" / "run").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(.*file is a file\)"):
        make_folder(tmp_path / "file" / "run")


@pytest.mark.job
def test_what_killed_processes_left_goes_with_the_next(tmp_path: Path) -> None:
    """Each kill left a folder of fonts for good, and half an export beside the whole one."""
    script = (
        "import os, pathlib, signal, sys\n"
        "from eorinfer.core.files import make_folder, scratch_folder, whole_file\n"
        "(scratch_folder() / 'fonts').write_text('x')\n"
        "with whole_file(make_folder(pathlib.Path('out')) / 'bank.h5') as file:\n"
        "    file.write_text('x')\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = {"cwd": tmp_path, "env": os.environ | {"TMPDIR": str(tmp_path)}}
    killed = subprocess.run([sys.executable, "-c", script, "kill"], **place)
    assert killed.returncode == -signal.SIGKILL
    left = [*tmp_path.glob(".tmp-*"), *(tmp_path / "out").iterdir()]
    assert len(left) == 2, left
    subprocess.run([sys.executable, "-c", script], **place, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank.h5"]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "ß" * 126 + ".h5", "short.png"])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path: Path, name: str) -> None:
    with whole_file(tmp_path / name) as temporary:
        assert temporary.suffix == Path(name).suffix
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"
    for content in ("old", "new"):
        with whole_folder(tmp_path / "in" / name) as folder:
            (folder / content).touch()
    assert [path.name for path in (tmp_path / "in" / name).iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]


def test_a_longer_name_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / ("x" * LONGEST_NAME + ".png")
    with (
        pytest.raises(WorkError, match=r"x\.png: cannot be written \(File name too long\)"),
        whole_file(path) as temporary,
    ):
        temporary.touch()
    assert list(tmp_path.iterdir()) == []


def test_what_a_long_name_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / temporary_name("x" * 300).replace(f"-{os.getpid()}-", "-999999999-")
    left.with_name(left.name[:LONGEST_NAME]).touch()
    assert remove_leftovers(tmp_path) == 1


def test_a_limit_on_the_size_of_a_file_is_named(tmp_path: Path) -> None:
    path, limits = tmp_path / "large.h5", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WorkError) as caught, whole_file(path) as temporary:
            temporary.write_bytes(bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"{path}: cannot be written (File too large)")
    assert "ulimit -f" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
