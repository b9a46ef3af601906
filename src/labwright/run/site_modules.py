"""How a site's own modules are found, imported and searched; what is wrong becomes a finding, never an exception."""

from __future__ import annotations

import ast
import hashlib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

FRAMES = 3
"""How many of the last frames of a traceback a finding shows."""

SKIPPED = ("tests", "__main__", "conftest", "setup")


@dataclass(frozen=True)
class Definition:
    """Something that stands at the top of a module of the site."""

    place: str
    value: object


@dataclass(frozen=True)
class Imported:
    """The modules of a package that could be imported, and what is wrong with the others."""

    modules: tuple[ModuleType, ...] = ()
    findings: tuple[str, ...] = ()

    def definitions(self) -> Iterator[Definition]:
        """Give everything that stands at the top of the modules, each object once, where it was first seen."""
        seen: set[int] = set()
        for module in self.modules:
            for name, value in list(vars(module).items()):
                if id(value) not in seen and not isinstance(value, type | ModuleType):
                    seen.add(id(value))
                    yield Definition(f"{module.__name__}.{name}", value)

    def files(self) -> tuple[Path, ...]:
        """Give the source files of the package, whether or not they hold modules that are searched."""
        roots = {Path(path) for module in self.modules for path in getattr(module, "__path__", ())}
        named = {Path(module.__file__) for module in self.modules if module.__file__}
        return tuple(sorted(named | {path for root in roots for path in root.rglob("*.py")}))


@dataclass
class _Walk:
    """One walk over a package, depth first, in the order of names."""

    modules: list[ModuleType] = field(default_factory=list[ModuleType])
    findings: list[str] = field(default_factory=list[str])

    def visit(self, name: str) -> None:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a site's module may raise anything, also by sys.exit()
            self.findings.append(explain_import(name, error))
            return
        self.modules.append(module)
        self.findings += _defined_twice(module)
        for child in sorted(set(_children(module))):
            self.visit(f"{name}.{child}")


def import_package(name: str, folder: Path) -> Imported:
    """Import a package and all its modules but its tests; the folder goes first on `sys.path`.

    No bytecode is written on the way: Python takes a file that changed twice within one second, at the same length, for
    unchanged, and a reload must load what is there.
    """
    put_first(folder)
    _forget_other(name)
    walk = _Walk()
    with _without_bytecode():
        walk.visit(name)
    return Imported(tuple(walk.modules), tuple(walk.findings))


def put_first(folder: Path) -> None:
    """Put a folder first on `sys.path`."""
    text = str(folder)
    if sys.path[:1] != [text]:
        sys.path[:] = [text, *(path for path in sys.path if path != text)]
    importlib.invalidate_caches()


def revision_of(files: Iterable[Path]) -> str:
    """Hash the names and contents of files, to tell one state of a site from another."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def explain_import(name: str, error: BaseException) -> str:
    """Say why a module cannot be imported, with the last lines of the site's code on the way there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_site(frame.filename)]
    lines = [f"{name} cannot be imported: {''.join(traceback.format_exception_only(error)).strip()}"]
    lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}" for frame in frames[-FRAMES:]]
    return "\n".join(lines)


def _is_of_site(filename: str) -> bool:
    return not filename.startswith("<frozen") and filename not in {__file__, importlib.__file__}


def _children(module: ModuleType) -> Iterator[str]:
    """Name the modules and packages in a package, also in folders without an `__init__.py`."""
    paths: Sequence[str] = list(getattr(module, "__path__", ()))
    names = [info.name for info in pkgutil.iter_modules(paths)]
    for path in paths:
        folders = [folder for folder in Path(path).iterdir() if folder.is_dir()] if Path(path).is_dir() else []
        names += [folder.name for folder in folders if folder.name.isidentifier() and any(folder.rglob("*.py"))]
    yield from (name for name in names if name not in SKIPPED and not name.startswith("test_"))


def _defined_twice(module: ModuleType) -> Iterator[str]:
    """Find decorated functions whose name a later one in the same file takes: the first would silently be lost."""
    path = Path(module.__file__ or "")
    if path.suffix != ".py":
        return
    first: dict[str, int] = {}
    try:
        nodes = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError):  # the file has changed since it was imported
        return
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list:
            if node.name in first and not _is_overload(node):
                yield f"{path}: {node.name} is defined in line {first[node.name]} and again in line {node.lineno}"
            first[node.name] = node.lineno


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a decorator speaks of the earlier function: `@overload`, `@name.register`, `@name.setter`."""
    return any(not isinstance(decorator, ast.Call | ast.Name) for decorator in node.decorator_list)


def _forget_other(name: str) -> None:
    """Drop a package of that name that was imported from another folder, as several sites in one process need."""
    loaded = sys.modules.get(name)
    if loaded is None:
        return
    here = PathFinder.find_spec(name)
    if here is None or loaded.__spec__ is None or here.origin != loaded.__spec__.origin or here.origin is None:
        for other in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
            del sys.modules[other]


@contextmanager
def _without_bytecode() -> Generator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
