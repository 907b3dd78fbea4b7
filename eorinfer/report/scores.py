"""Contest between methods on the page, read from ``contest.json``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json
from eorinfer.report.cells import Plain, cell_from_plain
from eorinfer.report.page import Block, Code, Notes, Picture, Table, Text

#: Name of the file, and the name that older versions gave it.
FILE, OLD_FILE = "contest.json", "benchmark.json"


def contest_file(out: Path) -> Path | None:
    """Find the file of a folder's contest; None if it has none."""
    return next((out / name for name in (FILE, OLD_FILE) if (out / name).exists()), None)


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ContestTable(_Content):
    """A score table; a text may say a number with its error, ``"1.65 ± 0.09"``."""

    title: str
    caption: str = ""
    columns: list[str]
    rows: list[list[Plain]]

    @model_validator(mode="after")
    def _rows_are_whole(self) -> "ContestTable":
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {i} has {len(row)} cells for {len(self.columns)} columns")
        return self


class ContestFigure(_Content):
    """A PNG file in the folder of the contest."""

    title: str
    caption: str = ""
    file: str


class Contest(_Content):
    """A contest as the page shows it; further keys of the file are the contest's own.

    Attributes
    ----------
    title
        Heading of the page.
    tables, figures, notes
        Score tables, pictures and sentences, in order.
    command
        Command that made it.
    config
        Config as it was run: text, or a table.
    """

    format: Literal[1]
    title: str
    tables: list[ContestTable]
    figures: list[ContestFigure] = []
    notes: list[str] = []
    command: str = ""
    config: Any = None

    @classmethod
    def read(cls, file: Path) -> "Contest":
        """Read a file that `contest_file` has found.

        Raises
        ------
        InputError
            If it cannot be read, or something is missing or misshapen in it.
        """
        content: dict[str, Any] = read_json(file)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "as a whole"
            raise InputError(f"{file}: {where}: {first['msg']}") from error

    def blocks(self, file: Path) -> Iterator[Block]:
        """Make the tables, notes and pictures of the page.

        Raises
        ------
        InputError
            If a figure is no PNG file in the folder.
        """
        for table in self.tables:
            rows = [[cell_from_plain(value) for value in row] for row in table.rows]
            yield Table(table.columns, rows, table.title, table.caption)
        if self.notes:
            yield Notes(self.notes)
        for figure in self.figures:
            out, png = file.parent, file.parent / figure.file
            if png.suffix != ".png" or not png.is_file() or not png.resolve().is_relative_to(out.resolve()):
                raise InputError(f"{file}: figure {figure.file!r} is no .png file in {out}")
            alt = f"{figure.title}. {figure.caption}"
            yield Picture.from_png(png.read_bytes(), alt, figure.title, figure.caption)
        if self.command:
            yield Text(f"Made by: {self.command}")
        if self.config:
            text = self.config if isinstance(self.config, str) else json.dumps(self.config, indent=2)
            yield Code(text, "config of the contest")
