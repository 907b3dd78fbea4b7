"""The commit of a git checkout that this package is imported from, read without git."""

from pathlib import Path


def commit(root: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit that is checked out at `root`; None where the package was installed without its history."""
    try:
        git = root / ".git"
        if git.is_file():  # of a worktree: it says where the rest is
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head or None
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        whole = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
        for folder in (git, whole):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8").strip()
        packed = (whole / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None
