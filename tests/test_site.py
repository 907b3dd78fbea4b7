"""The documentation is built strictly, and its links lead somewhere."""

import logging
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The module that makes pages of the package."""
    spec = spec_from_file_location("made", ROOT / "docs" / "made.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_is_described_and_every_table_shown(made: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    for table, cls in made.settings_classes().items():
        texts = made.meanings(cls)
        for name, field in cls.model_fields.items():
            key = field.alias or name
            assert key == "kind" or texts.get(key, texts.get(name)), (
                f"[{table}] {key}: {cls.__name__} says nothing of it"
            )
        alone = {"survey:none", "simulator:lognormal-field"}  # without keys, and with those of another
        assert table in alone or f"<!-- made: keys {table} -->" in page, f"[{table}] is not in reference/config.md"


def test_a_table_of_keys_says_default_limits_and_meaning(made: ModuleType) -> None:
    rows = made.keys("training").splitlines()
    (row,) = [row for row in rows if row.startswith("| `validation_fraction`")]
    assert "`0.1`" in row
    assert "above 0, below 0.9" in row
    assert "realisations" in row


def test_the_site_has_the_command_line_the_keys_and_the_results(site: Path) -> None:
    assert "eorinfer image-flow beyond-power" in (site / "reference/commands/index.html").read_text(encoding="utf-8")
    config = (site / "reference/config/index.html").read_text(encoding="utf-8")
    assert "<code>validation_fraction</code>" in config
    assert "made: " not in config
    overview = (site / "results/overview/index.html").read_text(encoding="utf-8")
    assert all(f"<code>{path.stem}</code>" in overview for path in (ROOT / "benchmarks/results").glob("*.json"))
    assert "Return the ends" in (site / "reference/python/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_a_page_can_be_read(path: Path) -> None:
    """Tables have at most six columns, and lines of prose at most 120 characters."""
    code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        code ^= line.lstrip().startswith("```")
        if line.startswith("|"):
            assert line.replace(r"\|", "").count("|") <= 7, f"line {number}: a table of more than six columns"
        elif not code and not line.startswith("    "):
            assert len(line) <= 120, f"line {number}: {len(line)} characters"
