"""A user's own part, named ``"module:name"``: its file stands beside the config, its source counts in fingerprints."""

import hashlib
import importlib
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard


class UnknownPart(ValueError):
    """``"module:name"`` names nothing that can be imported; the message says why, in one line."""


@dataclass(frozen=True)
class Part:
    """Part of a user's own, named ``"module:name"``.

    Attributes
    ----------
    name
        Name in the config.
    value
        The class or function.
    file
        Source file of the module; None for a module without one.
    """

    name: str
    value: Any
    file: Path | None

    @property
    def digest(self) -> str:
        """Hash of the module's source text, for keys of what is made with the part."""
        return hashlib.sha256(self.file.read_bytes() if self.file else b"").hexdigest()[:16]


def is_own(name: object) -> TypeGuard[str]:
    """Tell whether a name in a config is ``"module:name"``, and not one of this package's."""
    return isinstance(name, str) and ":" in name


def module_file(name: str) -> Path:
    """Relative path of the module of ``"module:name"``: ``package/module.py`` for ``package.module``."""
    return Path(*name.partition(":")[0].split(".")).with_suffix(".py")


def load_part(name: str, beside: Path | None = None) -> Part:
    """Import a user's part.

    Parameters
    ----------
    name
        ``"module:name"``.
    beside
        Folder in which the module is looked for first, before ``sys.path``.

    Raises
    ------
    UnknownPart
        If there is no such module, it cannot be imported, or has no such name.
    """
    module_name, _, member = name.partition(":")
    if not all(word.isidentifier() for word in (*module_name.split("."), member)):
        raise UnknownPart(f'"{name}": must be "module:name", names of Python and dots alone')
    try:
        module = _load_beside(module_name, beside) or importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise UnknownPart(f'"{name}": importing "{module_name}" failed: {error}') from error
        where = f"in {beside} or " if beside else ""
        raise UnknownPart(f'"{name}": there is no {module_name}.py {where}on the path') from error
    except Exception as error:  # a user's module may do anything
        text = " ".join(str(error).split())
        raise UnknownPart(f'"{name}": importing "{module_name}" failed: {type(error).__name__}: {text}') from error
    if not hasattr(module, member):
        raise UnknownPart(f'"{name}": {module.__file__} has no class or function "{member}"')
    return Part(name, getattr(module, member), Path(module.__file__) if module.__file__ else None)


def copy_source(name: str, source: Path | None, folder: Path, into: Path) -> None:
    """Copy a part's module into another folder, so that a config there finds it again.

    Parameters
    ----------
    name
        ``"module:name"``.
    source
        File of the part; it is copied only if it stands beside the config.
    folder, into
        Folder of the config, and of its copy.
    """
    copy = into / module_file(name)
    if source is None or source != folder / module_file(name) or source == copy:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    temporary = copy.with_name(f"{copy.name}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(copy)


def _load_beside(module_name: str, folder: Path | None) -> ModuleType | None:
    """Import FOLDER/module.py under a name of its own, so that it hides no other module."""
    if folder is None:
        return None
    path = folder / module_file(module_name)
    if not path.is_file():
        return None
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"_own_{digest}_{module_name}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # A user's module may import its neighbours.
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(folder))
    return module
