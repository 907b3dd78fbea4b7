"""Functions of a notebook or a script as modules: other processes can import them, and run folders can keep them."""

import ast
import atexit
import dis
import hashlib
import importlib
import inspect
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

#: How names of such modules begin.
PREFIX = "notebook_"
#: Numbers of an array that are written out at most.
MOST_NUMBERS = 10_000


@cache
def folder() -> Path:
    """Folder of the modules that were written from notebooks: on ``sys.path``, gone when this process ends."""
    made = Path(tempfile.mkdtemp(prefix="eorinfer-functions-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    sys.path.append(str(made))
    return made


def folders() -> tuple[Path, ...]:
    """Folder of the modules that this process has written; empty before the first."""
    return (folder(),) if folder.cache_info().currsize else ()


def shown_kind(kind: str) -> str:
    """Name a kind of simulator for readers: of a function from a notebook or script, the function alone."""
    return f"the function {kind.partition(':')[2]}" if kind.startswith(PREFIX) else kind


def kind_of(function: Callable[..., Any]) -> str:
    """Name a function as ``"module:function"``, where any process of this machine can import it.

    A function of an imported module is named as it is. One of a notebook or of the script that runs is written to a
    module, with the imports, functions and constants that it uses.

    Raises
    ------
    ValueError
        If it is no named function, or uses something that cannot be written; the message says what would be right.
    """
    if not isinstance(function, FunctionType) or not function.__name__.isidentifier():
        raise ValueError(f"{function!r}: must be a function that `def` made, with a name")
    module = sys.modules.get(function.__module__)
    if function.__module__ != "__main__" and getattr(module, function.__name__, None) is function:
        return f"{function.__module__}:{function.__name__}"
    text = module_text(function)
    name = f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    path = folder() / f"{name}.py"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
    return f"{name}:{function.__name__}"


def module_text(function: FunctionType) -> str:
    """Write a function, and what it uses of the notebook around it, as the text of a module.

    Raises
    ------
    ValueError
        See `kind_of`.
    """
    imports: set[str] = set()
    constants: dict[str, str] = {}
    definitions: dict[str, str] = {}
    waiting: list[Any] = [function]
    while waiting:
        one = waiting.pop()
        if one.__name__ in definitions:
            continue
        if isinstance(one, FunctionType) and one.__closure__:
            names = ", ".join(one.__code__.co_freevars)
            raise ValueError(f"{one.__name__} uses {names} of the function around it; make that a constant")
        definitions[one.__name__] = source = _source(one)
        names_around = one.__globals__ if isinstance(one, FunctionType) else vars(sys.modules["__main__"])
        for name in sorted(_names(one, source) & names_around.keys()):
            value = names_around[name]
            if isinstance(value, ModuleType):
                imports.add(f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}")
            elif (home := _home(value)) is not None:
                alias = "" if value.__qualname__ == name else f" as {name}"
                imports.add(f"from {home} import {value.__qualname__}{alias}")
            elif isinstance(value, FunctionType | type) and value.__name__ == name:
                waiting.append(value)
            else:
                constants[name] = _written(value, name, one.__name__)
                imports |= {"import numpy"} if isinstance(value, np.ndarray) else set()
    blocks = ["\n".join(sorted(imports)), "\n".join(f"{name} = {text}" for name, text in sorted(constants.items()))]
    blocks += list(definitions.values())[::-1]
    head = '"""Written by eorinfer from a notebook or a script."""'
    return "\n\n".join(block for block in (head, *blocks) if block) + "\n"


def _source(thing: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError) as error:
        raise ValueError(f"{thing.__name__}: its text is not known here ({error}); put it into a file") from error


def _names(thing: Any, source: str) -> set[str]:
    """Names that a function or a class takes from around it."""
    if isinstance(thing, FunctionType):
        around = ast.parse(source).body[0]
        assert isinstance(around, ast.FunctionDef | ast.AsyncFunctionDef)
        outside = [*around.decorator_list, *around.args.defaults, *(d for d in around.args.kw_defaults if d)]
        outside += [a.annotation for a in ast.walk(around.args) if isinstance(a, ast.arg) and a.annotation]
        outside += [around.returns] if around.returns else []
        names = {node.id for part in outside for node in ast.walk(part) if isinstance(node, ast.Name)}
        return names | set(_global_names(thing.__code__))
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)} - {thing.__name__}


def _global_names(code: CodeType) -> Iterator[str]:
    """Names that code, and the functions inside it, look up outside of them."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _home(value: Any) -> str | None:
    """Return the module from which a function or class can be imported under its own name; None if it is none."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in (None, "__main__") or name is None or "." in name:
        return None
    return module if getattr(sys.modules.get(module), name, None) is value else None


def _written(value: Any, name: str, user: str) -> str:
    """Write a constant as Python, or say why that cannot be done."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if value.size > MOST_NUMBERS:
            raise ValueError(f"{user} uses {name}, an array of {value.size} numbers; read it from a file inside {user}")
        return f'numpy.array({value.tolist()!r}, dtype="{value.dtype}").reshape({value.shape!r})'
    if isinstance(value, np.generic):
        value = value.item()
    try:
        if ast.literal_eval(repr(value)) == value:
            return repr(value)
    except (ValueError, SyntaxError, TypeError):
        pass
    raise ValueError(
        f"{user} uses {name}, a {type(value).__name__}, which cannot be written to a file; make it inside {user}, "
        "or put both into a module"
    )
