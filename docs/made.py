"""Pages of the site that are made of the package: keys of a config, the command line, and the Python API.

MkDocs calls `on_page_markdown` (`hooks` in mkdocs.yml). In a page, a line ``<!-- made: keys embedding -->`` becomes the
table of that settings class, ``<!-- made: commands -->`` the command line, ``<!-- made: api Run corner -->`` the
reference of those names of `eorinfer`, and ``<!-- made: results -->`` the list of the files of results.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MARK = re.compile(r"^<!-- made: (\w+) ?(.*) -->$", re.MULTILINE)
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", dict: "table"}


def settings_classes() -> dict[str, type[BaseModel]]:
    """Every class of settings by its table: ``training``, ``survey:KIND``; ``survey:KIND.TABLE`` for a table in it."""
    from eorinfer.settings import survey
    from eorinfer.settings.explain import _SURVEYS
    from eorinfer.settings.tables import Tables
    from simulators.registry import KINDS

    shown = {
        **{
            n: _class_in(f.annotation)
            for n, f in Tables.model_fields.items()
            if n not in ("simulator", "prior", "survey")
        },
        **{f"simulator:{kind}": _named(place) for kind, place in KINDS.items()},
        **{f"survey:{kind}": cls for kind, cls in _SURVEYS.items()},
        **{f"survey:{kind}": _named(place) for kind, place in survey.KINDS.items()},
    }
    classes = {name: cls for name, cls in shown.items() if cls is not None}
    inner = {
        f"{table}.{name}": within
        for table, cls in classes.items()
        for name, field in cls.model_fields.items()
        if (within := _class_in(field.annotation)) is not None
    }
    return classes | inner


def keys(table: str) -> str:
    """Table of the keys of a settings class: default, values that are allowed, meaning.

    Keys that a docstring describes together share a row.
    """
    cls = settings_classes()[table]
    texts = meanings(cls)
    rows: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for name, field in cls.model_fields.items():
        key = field.alias or name
        if key != "kind" or ":" not in table or "." in table:
            text = texts.get(key, texts.get(name, ""))
            # A text that only points elsewhere stands once for each key.
            shared = (text, key if text.startswith("As for") else "")
            rows.setdefault(shared, []).append((f"`{key}`", _default(field), _values(field.annotation, field)))
    if not rows:
        return "No keys."
    lines = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for (text, _), same in rows.items():
        names, defaults, values = zip(*same, strict=True)
        shown = ", ".join(default or "–" for default in defaults) if any(defaults) else ""
        lines.append(f"| {', '.join(names)} | {shown} | {'; '.join(dict.fromkeys(values))} | {text} |")
    return "\n".join(lines)


def meanings(cls: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a class and its bases, or its fields, say of each key."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= dict(_parameters(inspect.cleandoc(base.__doc__ or "")))
    for name, field in cls.model_fields.items():
        if field.description:
            texts[field.alias or name] = field.description
    return {name: _markdown(text) for name, text in texts.items()}


def commands(_: str = "") -> str:
    """The command line, as cyclopts describes it."""
    from eorinfer.cli.app import app

    text = app.generate_docs(output_format="markdown", recursive=True)
    text = text[text.index("## Table of Contents") :]
    text = re.sub(r"^\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(## Table of Contents)$", "## All commands", text, flags=re.MULTILINE)
    return re.sub(r"(?<!`)\[(\w+)\](?= )", r"`[\1]`", text)  # tables of a config, not links


def api(names: str) -> str:
    """Reference of names of `eorinfer`, by mkdocstrings."""
    where = import_module("eorinfer")._WHERE
    return "\n\n".join(f"::: {where[name]}.{name}" for name in names.split())


def results(_: str = "") -> str:
    """Every file of results: when, at which commit and by which command it was measured, and how long that took."""
    lines = ["| file | date | commit | seconds | command |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        seconds = f"{kept['seconds']:,}" if "seconds" in kept else "–"  # older than these files
        lines.append(f"| `{path.stem}` | {kept['date']} | {kept['commit'][:7]} | {seconds} | `{kept['command']}` |")
    return "\n".join(lines)


MADE: dict[str, Callable[[str], str]] = {"keys": keys, "commands": commands, "api": api, "results": results}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by what they stand for."""
    return MARK.sub(lambda mark: MADE[mark[1]](mark[2]), markdown)


def _parameters(doc: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the section Parameters of a docstring in NumPy's style."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", doc + "\n", re.DOTALL | re.MULTILINE)
    for entry in re.finditer(r"^(\S.*)\n((?:[ \t]+.*\n|\n)*)", section[1] if section else "", re.MULTILINE):
        for name in entry[1].split(", "):
            yield name, " ".join(entry[2].split())


def _markdown(text: str) -> str:
    """Docstring text as a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    default = None if field.default_factory else field.default
    if default is PydanticUndefined:
        return "required"
    if default is None or isinstance(default, BaseModel) or is_dataclass(default):
        return ""
    return f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {_toml(v)}' for k, v in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) and value != int(value) else str(value)


def _values(annotation: Any, field: FieldInfo | None = None) -> str:
    """Say in words what a key may be."""
    said = list(dict.fromkeys(text for text in _options(annotation) if text))
    metadata = field.metadata if field else []
    limits = [
        f"{word} {getattr(limit, name):g}"
        for limit in metadata
        for name, word in _LIMITS.items()
        if isinstance(getattr(limit, name, None), int | float)
    ]
    return ", ".join([" or ".join(said), *limits]) if said else ", ".join(limits)


def _options(annotation: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType or annotation is Any:
        return
    if hasattr(annotation, "__metadata__"):  # Annotated: the type, with limits of its own
        inner, *metadata = annotation.__origin__, *annotation.__metadata__
        yield _values(inner, FieldInfo(annotation=inner) if not metadata else FieldInfo.from_annotation(annotation))
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _options(argument)
    elif origin is Literal:
        for argument in arguments:
            yield f"`{_toml(argument)}`"
    elif origin in (tuple, list):
        inner = [" or ".join(_options(a)) for a in arguments if a is not Ellipsis]
        yield f"list of {inner[0]}" if len(set(inner)) == 1 else "list"
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield "table"
    else:
        yield _TYPES.get(annotation, "")


def _class_in(annotation: Any) -> type[BaseModel] | None:
    """Return the class of a table, also of one that may be left out; none for a list or dict of tables."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
