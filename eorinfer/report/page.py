"""One HTML page that needs nothing beside it: sections of text, tables and figures, and the template that sets them."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eorinfer.report.cells import Cell, Shown, is_numeric, shown

HERE = Path(__file__).parent
#: Pixels across from which a picture has panels that a narrow screen must not shrink.
WIDE = 1500


@dataclass(frozen=True)
class Table:
    """A table; the page lets its readers sort it by any column.

    Attributes
    ----------
    columns
        Their heads.
    rows
        Each as long as `columns`; the first cell names the row.
    title, caption
        Above it; may be empty.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    caption: str = ""

    @property
    def cells(self) -> list[list[Shown]]:
        """What is shown."""
        return [[shown(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """For each column whether it is sorted by numbers."""
        cells = self.cells
        return [is_numeric([row[i] for row in cells]) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Facts:
    """Names and values, without a table's grid."""

    kind: ClassVar[str] = "facts"
    entries: Mapping[str, Cell]

    @property
    def shown(self) -> dict[str, Shown]:
        """What is shown."""
        return {name: shown(value) for name, value in self.entries.items()}


@dataclass(frozen=True)
class Picture:
    """A picture of pixels, on a white card in both colour schemes.

    Attributes
    ----------
    source
        ``data:`` URI.
    alt
        For those who do not see it.
    title, caption
        Above and below it; may be empty.
    wide
        Whether it has panels side by side, which a narrow screen scrolls instead of shrinking them.
    """

    kind: ClassVar[str] = "picture"
    source: str
    alt: str
    title: str = ""
    caption: str = ""
    wide: bool = False

    @classmethod
    def of(cls, png: bytes, alt: str, title: str = "", caption: str = "") -> "Picture":
        """From the content of a PNG file."""
        width = int.from_bytes(png[16:20], "big")  # of its header
        source = "data:image/png;base64," + base64.b64encode(png).decode()
        return cls(source, alt, title, caption, wide=width > WIDE)


@dataclass(frozen=True)
class Drawing:
    """An SVG of `eorinfer.report.drawings`, drawn in the page's own colours."""

    kind: ClassVar[str] = "drawing"
    svg: Markup
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Drawings:
    """Drawings side by side, as many as there is room for."""

    kind: ClassVar[str] = "drawings"
    each: Sequence[Drawing]
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A file as it is, in its own scrolling box."""

    kind: ClassVar[str] = "code"
    text: str
    label: str


Block = Table | Facts | Picture | Drawing | Drawings | Text | Notes | Code


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class MissingStep:
    """Something that a run may have and this one has not, and the command that adds it."""

    what: str
    command: str


@dataclass(frozen=True)
class Page:
    """All that is on the page.

    Attributes
    ----------
    title, subtitle
        What it is about.
    facts
        At a glance, below the title.
    warnings
        What a reader must know before trusting the rest.
    sections
        In order.
    lacking
        What is not there.
    written
        When and by which version.
    """

    title: str
    subtitle: str
    facts: Facts
    sections: Sequence[Section]
    warnings: Sequence[str] = field(default=())
    lacking: Sequence[MissingStep] = field(default=())
    written: str = ""


def render(page: Page) -> str:
    """The page as HTML. All text is escaped, and of scripts only the page's own may run.

    What a browser may load is settled by a Content-Security-Policy: pictures out of the page itself, and no address.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=(
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )
