"""pyproject.toml declares exactly the packages that the program imports."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parent.parent
PACKAGES = ("stoke", "backends", "tui", "styles")
# certifi is found without an import, and tree-sitter is listed only to bound its version.
NOT_IMPORTED = {"certifi", "tree-sitter"}
TYPES_ONLY = {"_typeshed"}
# Its folder is on the path of the program that imports it.
OWN_MODULES = {"supervisor"}
OTHERS = {*PACKAGES, *TYPES_ONLY, *OWN_MODULES}


def test_every_imported_package_is_declared_and_no_other() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted = [*project["dependencies"], *extras]
    declared = {canonicalize_name(Requirement(one).name) for one in wanted}
    distributions = packages_distributions()
    imported = {
        canonicalize_name(distribution)
        for name in imported_names() - OTHERS - sys.stdlib_module_names
        for distribution in distributions[name]
    }
    assert imported == declared - NOT_IMPORTED


def imported_names() -> set[str]:
    """Return the top-level names of all absolute imports in the program."""
    names = set()
    for package in PACKAGES:
        for file in (TOP / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.partition(".")[0])
    return names
