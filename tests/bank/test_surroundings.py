"""A bank on a file system that refuses: what could not be read is not damaged, and what is no file is named."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eorinfer.bank.store import Bank
from eorinfer.bank.verify import verify
from eorinfer.core.errors import InputError, WorkError
from tests.banks import a_bank

#: Refuses to open files of the folder shards/, and to lock any.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
int flock(int fd, int operation) { errno = ENOLCK; return -1; }
static int refused(const char *path) {
    const char *number = getenv("REFUSE");
    if (!number || !path || !strstr(path, "/shards/01-")) return 0;
    errno = atoi(number);
    return 1;
}
#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (refused(path)) return -1; \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        return real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
"""
VERIFIES = """
import sys
from pathlib import Path
from eorinfer.bank.verify import verify
for problem in verify(Path(sys.argv[1]), repair=True):
    print(problem, problem.unread)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


def verified(bank: Path, shim: Path, **environment: str) -> list[str]:
    command = [sys.executable, "-c", VERIFIES, str(bank)]
    run = subprocess.run(
        command, env=os.environ | {"LD_PRELOAD": str(shim)} | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()


@pytest.mark.job
def test_a_file_system_without_locks_reads_as_any_other(tmp_path: Path, shim: Path) -> None:
    a_bank(tmp_path / "bank")
    assert verified(tmp_path / "bank", shim) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO, errno.EAGAIN, errno.ENOLCK])
@pytest.mark.job
def test_what_could_not_be_opened_is_named_and_stays(tmp_path: Path, shim: Path, number: int) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    said = verified(bank.path, shim, REFUSE=str(number))
    assert len(said) == plan.shards
    for line in said:
        assert f"cannot be read now ({errno.errorcode[number]}: {os.strerror(number)}); the file may be whole" in line
        assert line.endswith("True")
    assert not (bank.path / "set-aside").exists()
    assert verify(bank.path) == []


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    bank, _ = a_bank(tmp_path / "bank")
    rows = bank.rows()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = os.open("/dev/null", os.O_RDONLY)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 1, hard))
        with pytest.raises(WorkError, match="EMFILE: Too many open files"):
            Bank.open(bank.path).read("field", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(opened)


@pytest.mark.parametrize("kind", ["dangling", "linked", "pipe", "folder"])
def test_what_is_no_file_is_named_and_set_aside(tmp_path: Path, kind: str) -> None:
    bank, plan = a_bank(tmp_path / "bank")
    shard = bank.shard_path(plan, 1)
    shutil.move(shard, tmp_path / "elsewhere.h5")
    if kind == "pipe":
        os.mkfifo(shard)
    elif kind == "folder":
        shard.mkdir()
    else:
        shard.symlink_to(tmp_path / ("elsewhere.h5" if kind == "linked" else "nowhere"))
    what = {"pipe": "is a named pipe", "folder": "is a folder"}.get(kind, "is a symbolic link")
    with pytest.raises(InputError, match=what):
        Bank.open(bank.path).rows()
    assert [(problem.name, problem.unread) for problem in verify(bank.path)] == [(f"shards/{shard.name}", False)]
    verify(bank.path, repair=True)
    assert os.path.lexists(bank.path / "set-aside" / shard.name)
    assert Bank.open(bank.path).missing(plan) == [1]
