"""Find the modules beside a script that it imports, for a script that belongs to no project."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator

from stoke.errors import RequestError
from stoke.request.source_code import decode_code
from stoke.request.spec import MAX_CODE

SUFFIXES = (".py", ".so")


def local_modules(folder: str, script: str, code: str) -> list[str]:
    """Return the names in `folder` of the modules and packages that a script there imports, sorted.

    Follows the imports of these modules too. `script` itself is left out. An import whose name is
    computed when the code runs is not found.
    """
    beside = _modules_in(folder)
    beside.pop(os.path.basename(script).partition(".")[0], None)
    found: set[str] = set()
    sources = [code]
    while sources:
        # A word search is far cheaper than parsing, and most scripts import nothing from beside them.
        source = sources.pop()
        wanted = [module for module in beside if module in source]
        if not wanted:
            continue
        imported = _imported(source)
        for module in wanted:
            if module in imported:
                names = beside.pop(module)
                found.update(names)
                for name in names:
                    sources.extend(_sources(f"{folder}/{name}"))
    return sorted(found)


def imports_any(folders: Iterable[str], code: str) -> bool:
    """Return whether code imports a module or package that is in one of the folders."""
    imported = _imported(code)
    return any(not imported.isdisjoint(_modules_in(folder)) for folder in folders)


def _modules_in(folder: str) -> dict[str, list[str]]:
    """Return {module: names of its files or folder}."""
    modules: dict[str, list[str]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                module = entry.name.partition(".")[0]
                is_module = entry.name.endswith(SUFFIXES) or (
                    module == entry.name and entry.is_dir()
                )
                if is_module and module.isidentifier():
                    modules.setdefault(module, []).append(entry.name)
    except OSError:
        return {}
    return modules


def _imported(source: str) -> set[str]:
    """Return the top-level names that a source imports; none if it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _sources(path: str) -> Iterator[str]:
    """Yield the sources of a module, or of all modules of a package."""
    if not os.path.isdir(path):
        files = [path]
    else:
        files = [
            f"{folder}/{name}"
            for folder, _, names in os.walk(path)
            for name in names
            if name.endswith(".py")
        ]
    for file in files:
        try:
            with open(file, "rb") as stream:
                data = stream.read(MAX_CODE)
            yield decode_code(data, file)
        except (OSError, RequestError):
            continue  # The job reports it, with the line that imports it.
