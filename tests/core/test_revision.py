"""The commit of a checkout is read from its files."""

from pathlib import Path

from eorinfer.core.revision import commit

HASH = "0123456789abcdef0123456789abcdef01234567"


def _written(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_branches_worktrees_packed_and_none(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    git = tmp_path / ".git"
    _written(git / "HEAD", "ref: refs/heads/main\n")
    assert commit(tmp_path) is None
    _written(git / "packed-refs", f"# pack-refs\n{HASH} refs/heads/main\n")
    assert commit(tmp_path) == HASH
    _written(git / "refs/heads/main", HASH[::-1] + "\n")
    assert commit(tmp_path) == HASH[::-1]
    tree, place = tmp_path / "tree", git / "worktrees/tree"
    _written(tree / ".git", f"gitdir: {place}\n")
    _written(place / "HEAD", "ref: refs/heads/main\n")
    _written(place / "commondir", "../..\n")
    assert commit(tree) == HASH[::-1]
    _written(place / "HEAD", HASH + "\n")
    assert commit(tree) == HASH
