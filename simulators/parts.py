"""A user's own part, named ``"module:name"``: its file stands beside the config.

What its code does counts in fingerprints, and so does the code of all modules beside it that it imports.
"""

import hashlib
import importlib
import importlib.util
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from simulators.sources import code_digest, digests, find_module, sources, text_digest

#: Neighbours of users' modules that this process has imported: file and hash, by the name in `sys.modules`.
_neighbours: dict[str, tuple[Path, str]] = {}
#: Folders that users' modules were imported from.
_folders: set[Path] = set()


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
    def sources(self) -> dict[str, Path]:
        """Files of the module and of its neighbours, by dotted name."""
        return sources(self.file, self.name.partition(":")[0]) if self.file else {}

    @property
    def digest(self) -> str:
        """Hash of what the code of the module and of its neighbours does, for keys of what is made with the part."""
        content = repr(sorted(digests(self.sources).items()))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def earlier_digest(self) -> str:
        """Hash of the module's own text, in bundles of older versions."""
        return text_digest(self.file)[:16]


def is_own(name: object) -> TypeGuard[str]:
    """Tell whether a name in a config is ``"module:name"``, and not one of this package's."""
    return isinstance(name, str) and ":" in name


def module_file(name: str) -> Path:
    """Relative path of the module of ``"module:name"``: ``package/module.py`` for ``package.module``."""
    return Path(*name.partition(":")[0].split(".")).with_suffix(".py")


def own_module_name(name: str) -> str:
    """Return the name of a module in its folder, whose name in `sys.modules` may be one of its own."""
    return re.sub(r"^_own_[0-9a-f]{8}_", "", name)


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


def copy_sources(files: dict[str, Path], folder: Path, into: Path) -> set[str]:
    """Copy modules into another folder, so that a config there finds them again.

    Parameters
    ----------
    files
        Files by dotted name, see `Part.sources`; those that do not stand under `folder` are left where they are.
    folder, into
        Folder of the config, and of its copy.

    Returns
    -------
    set
        Dotted names of those that stand under `folder`.
    """
    below = {name: file for name, file in files.items() if file.is_relative_to(folder)}
    for file in below.values() if folder.resolve() != into.resolve() else ():
        copy = into / file.relative_to(folder)
        if copy.is_file() and copy.read_bytes() == file.read_bytes():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = copy.with_name(f"{copy.name}.tmp")
        shutil.copyfile(file, temporary)
        temporary.replace(copy)
    return set(below)


def _load_beside(module_name: str, folder: Path | None) -> ModuleType | None:
    """Import FOLDER/module.py under a name of its own, so that it hides no other module."""
    if folder is None:
        return None
    path = find_module(module_name, folder)
    if path is None:
        return None
    files = sources(path, module_name)
    # Another content is another module: a process that lives on, such as a notebook's, sees an edit.
    content = f"{path.resolve()} {sorted(digests(files).items())}"
    prefix = f"_own_{hashlib.sha256(content.encode()).hexdigest()[:8]}_"
    name = prefix + module_name
    if name in sys.modules:
        return sys.modules[name]
    _forget_other_neighbours(files)
    _folders.add(folder.resolve())
    known, no_bytecode = set(sys.modules), sys.dont_write_bytecode
    # A user's module may import its neighbours. Bytecode can be older than a source that was changed within a second.
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        for package in _packages(module_name):
            _execute(prefix + package, find_module(package, folder), folder.joinpath(*package.split(".")))
        module = _execute(name, path, path.parent if path.name == "__init__.py" else None)
        _note_neighbours(module_name, files)
    except BaseException:
        for new in [key for key in sys.modules if key.startswith(prefix) and key not in known]:
            del sys.modules[new]
        raise
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = no_bytecode
    return module


def _packages(module_name: str) -> list[str]:
    """Return the packages around a dotted name, from the outermost one."""
    parts = module_name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _execute(name: str, file: Path | None, package: Path | None) -> ModuleType:
    """Run a file as the module `name`; `package` is the folder of its submodules, and a package may have no file."""
    if name in sys.modules:
        return sys.modules[name]
    if file is None:
        module = ModuleType(name)
        module.__path__ = [str(package)]
        sys.modules[name] = module
        return module
    places = None if package is None else [str(package)]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _forget_other_neighbours(files: dict[str, Path]) -> None:
    """Take neighbours out of `sys.modules` that came from other files, or have been edited since."""
    for name, file in files.items():
        there = getattr(sys.modules.get(name), "__file__", None)
        if there is None:
            continue
        elsewhere = Path(there).resolve()
        ours = elsewhere != file.resolve() and any(elsewhere.is_relative_to(folder) for folder in _folders)
        if ours or _neighbours.get(name, (elsewhere, "")) not in ((elsewhere, ""), (file.resolve(), code_digest(file))):
            _neighbours.pop(name, None)
            del sys.modules[name]


def _note_neighbours(module_name: str, files: dict[str, Path]) -> None:
    """Note which neighbours were imported, and refuse a name that means another module in this process.

    Raises
    ------
    ImportError
        If it does: another file would run than the one that counts in fingerprints.
    """
    for name, file in files.items():
        there = getattr(sys.modules.get(name), "__file__", None)
        if name == module_name or there is None:
            continue
        if Path(there).resolve() != file.resolve():
            raise ImportError(f'"{name}" is {file} here, but {there} has that name already; rename yours')
        _neighbours[name] = file.resolve(), code_digest(file)
