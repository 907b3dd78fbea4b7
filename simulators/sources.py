"""Source files of a user's own module and of its neighbours: which they are, and a hash of what their code does.

A hash does not depend on how code is spelt: comments, blank lines, docstrings and the texts of labels and units are
left out. It is the same for every version of Python that reads the same syntax tree.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

#: Top-level names that are never a user's neighbours.
OTHERS = frozenset({*sys.stdlib_module_names, "simulators", "eorinfer"})
#: Texts among the positional arguments of these calls, and keywords that are texts alone: they change no number.
TEXTS = {"Parameter": (1, 5, 6), "Observable": (2,), "Field": ()}
TEXT_KEYWORDS = frozenset({"label", "unit", "description", "title"})
#: Fields of syntax trees that change nothing.
UNSAID = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
#: What `ast.parse` raises for text that is no Python, or too deep.
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def find_module(name: str, root: Path) -> Path | None:
    """Find the file of a dotted name under `root`, as Python would: a package, then a compiled or a source file."""
    place = root.joinpath(*name.split("."))
    files = [place / "__init__.py", *(place.with_name(place.name + end) for end in (*EXTENSION_SUFFIXES, ".py"))]
    return next((file for file in files if file.is_file()), None)


def sources(file: Path, name: str) -> dict[str, Path]:
    """List the file of a module and of all modules beside it that it imports, directly or through others.

    Parameters
    ----------
    file
        Source file of the module.
    name
        Its dotted name, which tells the folder that its imports start from.

    Returns
    -------
    dict
        Files by dotted name, sorted. Neighbours of an installed package are its own modules alone.
    """
    root, top, installed = root_of(file, name), name.partition(".")[0], is_installed(file)
    found, waiting = {name: file}, [(name, file)]
    while waiting:
        importer = waiting.pop()
        for wanted in _imports(*importer):
            first = wanted.partition(".")[0]
            if wanted in found or first in OTHERS or (installed and first != top):
                continue
            if (there := find_module(wanted, root)) is not None:
                found[wanted] = there
                waiting.append((wanted, there))
    return dict(sorted(found.items()))


def is_installed(file: Path) -> bool:
    """Tell whether a file belongs to an installed package."""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def root_of(file: Path, name: str) -> Path:
    """Return the folder in which the first part of a module's dotted name is looked for."""
    return file.parents[name.count(".") + (file.name == "__init__.py")]


def digests(files: dict[str, Path]) -> dict[str, str]:
    """Hash what the code of each file does."""
    return {name: code_digest(file) for name, file in files.items()}


def code_digest(file: Path) -> str:
    """Hash what the code of a file does, or its bytes where it is no readable Python; 16 characters."""
    content = file.read_bytes()
    if file.suffix == ".py":
        with suppress(*UNREADABLE):
            content = _meaning(ast.parse(content)).encode(errors="surrogatepass")
    return hashlib.sha256(content).hexdigest()[:16]


def text_digest(file: Path | None) -> str:
    """Hash the bytes of a file, as older versions did for whole modules."""
    return hashlib.sha256(file.read_bytes() if file else b"").hexdigest()


def _imports(name: str, file: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports anywhere, the packages around them included."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except UNREADABLE:
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".") if package else []
            start = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and _name_of(node.func) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for dotted in names:
            parts = dotted.split(".")
            if all(part.isidentifier() for part in parts):
                yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _meaning(node: object) -> str:
    """Write a syntax tree as text, without what changes nothing."""
    if isinstance(node, ast.Call):
        node = _without_texts(node)
    if isinstance(node, ast.AST):
        fields = [(name, getattr(node, name, None)) for name in node._fields if name not in UNSAID]
        return f"{type(node).__name__}({','.join(f'{k}={_meaning(v)}' for k, v in fields if v not in (None, []))})"
    if isinstance(node, list):
        return f"[{','.join(_meaning(item) for item in node if not _does_nothing(item))}]"
    return repr(node)


def _does_nothing(node: object) -> bool:
    """Tell whether a statement is a docstring, another bare constant or ``pass``."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _without_texts(call: ast.Call) -> ast.Call:
    """Leave the texts of labels, units and descriptions out of a parameter's or observable's declaration."""
    places = TEXTS.get(_name_of(call.func))
    if places is None:
        return call
    args = [ast.Constant("") if i in places and _is_text(arg) else arg for i, arg in enumerate(call.args)]
    keywords = [k for k in call.keywords if not (k.arg in TEXT_KEYWORDS and _is_text(k.value))]
    return ast.Call(call.func, args, keywords)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _name_of(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
