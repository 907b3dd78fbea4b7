"""One HTML page that needs nothing beside it: sections of text, tables and pictures, and how they are set."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eorinfer.core.errors import InputError
from eorinfer.core.reading import ForeignFileError, refuse_foreign
from eorinfer.figures.style import DOTS_PER_INCH
from eorinfer.report.cells import Cell, is_numeric

HERE = Path(__file__).parent
#: Pixels across from which a picture has panels that a narrow screen must not shrink.
WIDE = 1500
#: How a PNG file begins, and bytes that one on a page may have.
PNG, MOST_BYTES = b"\x89PNG\r\n\x1a\n", 64e6
#: Pixels of a page in an inch.
PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Table:
    """A table; the page lets its readers sort it by any column.

    Attributes
    ----------
    columns
        Heads of the columns.
    rows
        Cells, each row as long as `columns`; the first cell names the row.
    title, caption
        Lines above it; may be empty.
    folded
        Whether only the title is seen until a reader opens it: for tables that are long and seldom read.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    caption: str = ""
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether each column is sorted by numbers."""
        return [is_numeric([row[i] for row in self.rows]) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Facts:
    """Names and values, without a table's grid."""

    kind: ClassVar[str] = "facts"
    entries: Mapping[str, Cell]


@dataclass(frozen=True)
class Picture:
    """A picture of pixels, on a white card in both colour schemes.

    Attributes
    ----------
    source
        ``data:`` URI.
    alt
        Text for those who do not see it.
    title, caption
        Lines above and below it; may be empty.
    width
        Pixels of the page at the size that it was drawn for; 0 if unknown.
    wide
        Whether it has panels side by side, which a narrow screen scrolls instead of shrinking them.
    """

    kind: ClassVar[str] = "picture"
    source: str
    alt: str
    title: str = ""
    caption: str = ""
    width: int = 0
    wide: bool = False

    @classmethod
    def from_file(cls, file: Path, alt: str) -> "Picture":
        """Embed a PNG file.

        Raises
        ------
        InputError
            If it is none, or a link: a page may be sent to others, and must not hold what it was not meant to.
        """
        return cls.from_png(read_png(file), alt)

    @classmethod
    def from_png(cls, png: bytes, alt: str, title: str = "", caption: str = "", wide: bool | None = None) -> "Picture":
        """Embed the content of a PNG file; `wide` is by default told from its pixels."""
        across = int.from_bytes(png[16:20], "big")  # of its header
        source = "data:image/png;base64," + base64.b64encode(png).decode()
        width = round(across * PIXELS_PER_INCH / DOTS_PER_INCH)
        return cls(source, alt, title, caption, width, across > WIDE if wide is None else wide)


def read_png(file: Path) -> bytes:
    """Read a PNG file; errors as in `Picture.from_file`."""
    try:
        refuse_foreign(file)
        with file.open("rb") as opened:
            content = opened.read(int(MOST_BYTES) + 1)
    except ForeignFileError as error:
        raise InputError(f"{file}: {error}") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if not content.startswith(PNG) or len(content) > MOST_BYTES:
        raise InputError(f"{file}: is no PNG file of less than {MOST_BYTES / 1e6:.0f} MB")
    return content


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, as many as there is room for."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
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


Block = Table | Facts | Picture | Pictures | Text | Notes | Code


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
        Heading, and a line on what was simulated and observed.
    facts
        Results at a glance, below the title.
    sections
        Sections in order.
    warnings
        Sentences that a reader must know before trusting the rest.
    missing
        Steps that were not done, with their commands.
    written
        Time of writing, and version.
    """

    title: str
    subtitle: str
    facts: Facts
    sections: Sequence[Section]
    warnings: Sequence[str] = field(default=())
    missing: Sequence[MissingStep] = field(default=())
    written: str = ""


def render(page: Page) -> str:
    """Write the page as HTML. All text is escaped, and of scripts only the page's own may run.

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
