"""Find the packages that code imports and does not declare."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.request.import_names import COMMON_NAMES, NAMESPACES, PACKAGES, STANDARD_ELSEWHERE

if TYPE_CHECKING:
    from stoke.request.spec import JobSpec

MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
MOST_CODE = 1 << 20
"""Characters: longer code is data for the most part, and takes seconds to parse."""
_MOST_PARENTS = 12
_ROOT_MARKERS = (".git", "pyproject.toml", "stoke.toml")
_STANDARD = sys.stdlib_module_names | STANDARD_ELSEWHERE
_GUARDS = frozenset(("ImportError", "ModuleNotFoundError", "Exception", "BaseException"))


@dataclass(frozen=True)
class Package:
    """A package that has a module. `guessed`: the name is only the module's own."""

    name: str
    module: str
    guessed: bool

    @property
    def doubt(self) -> str:
        """What to add to its name for people."""
        return " (PyPI name guessed from the import)" if self.guessed else ""


def package_of(module: str) -> Package | None:
    """Return the package that has a module; None for modules of Python, and where it is unclear."""
    if not MODULE.fullmatch(module) or len(module) > 100:
        return None
    root = module.partition(".")[0]
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        prefix = ".".join(parts[:count])
        if prefix in PACKAGES:
            return Package(PACKAGES[prefix], root, guessed=False)
    if root in _STANDARD or root in NAMESPACES or root.lower() in COMMON_NAMES:
        return None
    if root.startswith("_") or root.endswith("_") or len(root) < 3:
        return None
    return Package(root.replace("_", "-"), root, guessed=True)


def undeclared(spec: JobSpec, folder: Path) -> list[Package]:
    """Return the packages that the code of a request imports, if the request declares none.

    An image that the request names may have them. `folder` is that of the script.
    """
    if spec.has_packages or spec.locked or spec.image is not None:
        return []
    return undeclared_packages(spec.code, folder)


def undeclared_packages(code: str, folder: Path) -> list[Package]:
    """Return the packages that code with no declared packages needs, each once and in their order.

    `folder` is the script's: modules beside it, and in the project around it, are its own.
    """
    modules = [name for name in imported_modules(code) if name.partition(".")[0] not in _STANDARD]
    if not modules:
        return []
    folders = _own_folders(folder)
    found: dict[str, Package] = {}
    for module in modules:
        package = package_of(module)
        if package is not None and not _is_in(package.module, folders):
            found.setdefault(package.name, package)
    return list(found.values())


def missing_package(code: str, module: str, folder: Path) -> Package | None:
    """Return the package to add after "No module named MODULE". None where that is unclear.

    `module` comes from inside the job. A name that is not in the table counts only if the code imports
    it, and it is no module of the user's own.
    """
    root, dot, _ = module.partition(".")
    imported = [name for name in imported_modules(code) if name.partition(".")[0] == root]
    # Without any package of a namespace, Python names the namespace only.
    for name in (module, *imported):
        package = package_of(name)
        if package is None or (dot and root not in NAMESPACES):
            continue  # Behind a dot: the package is there, and has no such module.
        if package.guessed and not imported:
            continue
        if _is_in(root, _own_folders(folder)):
            continue
        return package
    return None


def imported_modules(code: str) -> list[str]:
    """Return the modules that code imports unconditionally, in their order and each once.

    Left out are relative imports, those for type checkers only, and those whose failure the code
    handles. Code that this Python cannot parse imports nothing.
    """
    if "import" not in code or len(code) > MOST_CODE:
        return []
    import warnings

    finder = _Finder()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows the code's own warnings in the job.
            finder.visit(ast.parse(code.removeprefix("\ufeff")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return list(finder.modules)


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.modules: dict[str, None] = {}

    def visit_Import(self, node: ast.Import) -> None:
        self.modules |= dict.fromkeys(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or node.module is None:
            return
        names = [node.module]
        if node.module.partition(".")[0] in NAMESPACES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        self.modules |= dict.fromkeys(names)

    def visit_Try(self, node: ast.Try) -> None:
        if any(
            _names_in(handler.type) & _GUARDS for handler in node.handlers if handler.type
        ) or any(handler.type is None for handler in node.handlers):
            self._visit_all(node.orelse)
            self._visit_all(node.finalbody)
        else:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in _names_in(node.test):
            self._visit_all(node.orelse)
        else:
            self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        used = set().union(*(_names_in(item.context_expr) for item in node.items))
        if not ("suppress" in used and used & _GUARDS):
            self.generic_visit(node)

    def _visit_all(self, nodes: Sequence[ast.stmt]) -> None:
        for node in nodes:
            self.visit(node)


def _names_in(node: ast.AST) -> set[str]:
    return {
        name
        for one in ast.walk(node)
        if (name := getattr(one, "id", None) or getattr(one, "attr", None)) is not None
    }


def _own_folders(folder: Path) -> list[Path]:
    """Return the folders that may hold modules of the project: the script's, then its parents."""
    found = []
    for parent in (folder, *folder.parents[:_MOST_PARENTS]):
        found += [parent, parent / "src"]
        if any(os.path.exists(parent / marker) for marker in _ROOT_MARKERS):
            return found
    return found[:2]  # Without a project around it.


def _is_in(module: str, folders: Sequence[Path]) -> bool:
    return any(
        os.path.isdir(folder / module)
        or any(os.path.isfile(folder / f"{module}{end}") for end in (".py", *EXTENSION_SUFFIXES))
        for folder in folders
    )
