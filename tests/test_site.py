"""The documentation is built strictly, and its links lead somewhere."""

import logging
import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: What names pages without being one: text of the package and of its examples.
NAMES_PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *(ROOT / "examples").glob("*.*"),
    *(path for path in (ROOT / "eorinfer").rglob("*.*") if path.suffix in {".py", ".toml", ".html"}),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly: a link that leads nowhere, or a page that is in no menu, is an error."""
    folder = tmp_path_factory.mktemp("site")
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    finally:
        logger.removeHandler(handler)
    assert not said, "\n".join(said)
    return folder


def test_the_site_is_built_without_a_warning(site: Path) -> None:
    assert (site / "index.html").exists()
    assert len(list(site.rglob("index.html"))) >= len(PAGES)


@pytest.mark.parametrize("path", NAMES_PAGES, ids=lambda path: path.name)
def test_pages_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"docs/[\w/]+\.(?:md|png)", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"there is no {name}"
