"""Errors of a config in the words of the file instead of pydantic's."""

import difflib
import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eorinfer.settings.prior import FORMS
from eorinfer.settings.survey import KINDS, NoSurvey, SkaLow, SphereX, WhiteNoise
from eorinfer.settings.tables import Tables

_SURVEYS: dict[str, type[BaseModel]] = {
    "none": NoSurvey,
    "white-noise": WhiteNoise,
    "ska-low": SkaLow,
    "spherex": SphereX,
}
#: What pydantic puts before the keys of a table of that kind.
_TAGS = (*_SURVEYS, "own")

#: pydantic's kinds of error in the words of this file.
_TEXTS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "path_type": "must be a path in quotes",
    "string_type": "must be text in quotes",
    "too_short": "must hold at least {min_length}",
    "tuple_type": "must be a list",
}
_HINTS = {
    "simulator": 'kind = "21cmfast-coeval" with redshifts, cells and box_length',
    "simulator.ranges": "ranges = { A = [0.5, 2.0], B = [8.0, 10.0] }, the ends of each parameter's flat prior",
    "simulator.redshifts": "redshifts = [7.0, 8.0, 9.0]",
    "simulator.cells": "cells = 32",
    "simulator.box_length": "box_length = 128.0, in comoving Mpc",
    "survey.sigma": "sigma = 1.0, the noise of a cell in the unit of the image",
    "observation": 'theta = { NAME = value, ... } for a mock, or file = "observed.h5"',
    "preprocessing.model": 'model = "separation/separator", the folder of a separator',
    "inference": "rounds = [600, 300], the simulations of each round",
    "inference.rounds": "rounds = [600, 300], the simulations of each round",
}
_UNION_MEMBER = re.compile(r"\[|^constrained-|^function-|^(float|int|str|bool)$")


def explained(path: Path, error: ValidationError, table: str = "", cls: type[BaseModel] | None = None) -> str:
    """Return one line for each wrong key, three at most.

    Parameters
    ----------
    path
        File of the config.
    error
        Error that pydantic raised.
    table
        Name of the checked table; empty if the whole file was checked.
    cls
        Class of that table.
    """
    lines: dict[str, str] = {}
    suggested = set()
    problems = error.errors(include_url=False)
    # Misspelt keys first: each explains a missing one.
    for problem in sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden"):
        where = [table] * bool(table) + [part for part in problem["loc"] if isinstance(part, str)]
        tags = [where.pop(1)] if where[0] == "survey" and where[1:2] and where[1] in _TAGS else []
        # pydantic names the member of a union that it tried; that is no key of the file
        where = [part for part in where if not _UNION_MEMBER.search(part)]
        if problem["type"] == "missing" and tuple(where) in suggested:
            continue
        if problem["type"] == "extra_forbidden":
            valid = _keys_beside(where, tags, cls)
            suggested |= {(*where[:-1], near) for near in _near(where[-1], valid)}
            text = instead(where[-1], valid, "key" if table or not _is_table(where, problem) else "table")
        else:
            text = _text(where, problem)
        head = f"[{where[0]}] {'.'.join(where[1:])}".strip()
        if len(where) == 1 and not _is_table(where, problem):
            head = where[0]
        lines.setdefault(head, f"{path}: {head}{'' if text.startswith('kind ') else ':'} {text}")
    shown = list(lines.values())[:3]
    if len(lines) > 3:
        shown.append(f"{path}: and {len(lines) - 3} more")
    return "\n".join(shown)


def _text(where: list[str], problem: ErrorDetails) -> str:
    """Return what is wrong and what would be right, in the words of the file."""
    kind, context = problem["type"], problem.get("ctx", {})
    if where[0] == "prior" and where[1:] not in ([], ["table"]):
        return FORMS
    if kind == "missing":
        hint = _HINTS.get(".".join(where))
        return f"is missing; for example {hint}" if hint else "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind.startswith("union_tag"):
        given = f'= "{context["tag"]}" is not known' if "tag" in context else "is missing"
        return f'kind {given}: one of {", ".join(map(_quoted, [*_SURVEYS, *KINDS]))}, or "module:Class" for your own'
    text = problem["msg"].replace("Input should", "must")
    if kind in _TEXTS:
        text = _TEXTS[kind].format(**context)
    given = problem["input"]
    if kind == "literal_error" and isinstance(given, str) and (near := _near(given, re.findall(r"'(.*?)'", text))):
        return f'{given!r} is not known, did you mean "{near[0]}"?'
    return f"{text} (given: {given!r})" if isinstance(given, str | int | float | list) else text


def _is_table(where: list[str], problem: ErrorDetails) -> bool:
    """Return whether this key at the top of the file is, or should be, a table."""
    if len(where) > 1:
        return False
    return where[0] != "seed" if where[0] in Tables.model_fields else isinstance(problem["input"], dict)


def _keys_beside(where: list[str], tags: list[str], cls: type[BaseModel] | None) -> list[str]:
    """Return the valid keys of the table in which `where` is."""
    if len(where) == 1:
        return list(Tables.model_fields)
    annotation = Tables.model_fields[where[0]].annotation
    # A table that may be left out is a union with None.
    models = [cls, annotation, *get_args(annotation)] + [_SURVEYS[tag] for tag in tags if tag in _SURVEYS]
    for name in where[1:-1]:  # tables in the table
        inner = [fields[name].annotation for model in models if name in (fields := getattr(model, "model_fields", {}))]
        models = [model for annotation in inner for model in (annotation, *get_args(annotation))]
    return [field.alias or name for model in models for name, field in getattr(model, "model_fields", {}).items()]


def _near(name: str, valid: list[str]) -> list[str]:
    return difflib.get_close_matches(name, valid, n=1)


def instead(name: str, valid: list[str], what: str = "key") -> str:
    """Return what is wrong with an unknown name, and the valid name nearest to it."""
    if near := _near(name, valid):
        return f'unknown {what}, did you mean "{near[0]}"?'
    return f"unknown {what}" + (f"; there are {', '.join(valid)}" if valid else "")


def _quoted(text: str) -> str:
    return f'"{text}"'
