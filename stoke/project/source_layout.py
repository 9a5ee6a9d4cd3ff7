"""Where the modules of a project are, and which of them have to be compiled first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from stoke.project.pyproject import Pyproject

_COMPILERS = frozenset(
    ["enscons", "maturin", "mesonpy", "scikit_build", "scikit_build_core", "sipbuild"]
)
"""Build backends, by the first part of their names, that exist for extension modules."""
_TOOLS = re.compile(
    r"[ \t]*(cffi|cython|mypyc|nanobind|pybind11|scikit-build|setuptools[-_]rust)\b", re.IGNORECASE
)
_EXTENSION = re.compile(
    rb"\b(ext_modules|rust_extensions|cffi_modules|cythonize|build_ext|CMakeExtension)\b"
)
_LONGEST = 1 << 20


def import_folders(package: Pyproject) -> list[str]:
    """Return the folders, relative to the package, that its modules are imported from.

    The settings of its build backend decide, else there is the src layout or the flat one.
    """
    named = [os.path.normpath(name) for name in _configured(package) if isinstance(name, str)]
    folders = [
        name
        for name in dict.fromkeys(named)
        if not os.path.isabs(name)
        and name.split("/")[0] != ".."
        and os.path.isdir(os.path.join(package.folder, name))
    ]
    if folders:
        return folders
    source = os.path.join(package.folder, "src")
    is_source = os.path.isdir(source) and not os.path.exists(os.path.join(source, "__init__.py"))
    return ["src" if is_source else "."]


def _configured(package: Pyproject) -> Iterator[Any]:
    tool = package.table
    setuptools = tool("tool", "setuptools")
    where = tool("tool", "setuptools", "packages", "find").get("where")
    yield from where if isinstance(where, list) else [where]
    yield tool("tool", "setuptools", "package-dir").get("")
    if setuptools.get("py-modules") and not where:
        yield tool("tool", "setuptools", "package-dir").get("", ".")
    for keys in (("targets", "wheel"), ()):
        build = tool("tool", "hatch", "build", *keys)
        for key in ("packages", "only-include"):
            found = build.get(key)
            for name in found if isinstance(found, list) else []:
                yield os.path.dirname(str(name).rstrip("/")) or "."
    found = tool("tool", "scikit-build", "wheel").get("packages")
    for name in found if isinstance(found, list) else []:
        yield os.path.dirname(str(name).rstrip("/")) or "."
    packages = tool("tool", "poetry").get("packages")
    for one in packages if isinstance(packages, list) else []:
        if isinstance(one, dict):
            yield one.get("from", ".")
    yield tool("tool", "pdm", "build").get("package-dir")
    yield tool("tool", "maturin").get("python-source")
    if package.backend == "uv_build":
        yield tool("tool", "uv", "build-backend").get("module-root", "src") or "."


def has_extension_modules(package: Pyproject) -> bool:
    """Whether modules of a project have to be compiled before it can be imported."""
    backend = package.backend.partition(".")[0]
    hooks = [
        package.table("tool", "hatch", "build", *keys)
        for keys in (("hooks",), ("targets", "wheel", "hooks"))
    ]
    if (
        backend in _COMPILERS
        or any(hook in table for table in hooks for hook in ("cython", "mypyc", "cmake"))
        or package.table("tool", "poetry").get("build")
        or package.table("tool", "setuptools").get("ext-modules")
        or package.table("tool", "setuptools-rust")
    ):
        return True
    if backend != "setuptools":
        return False
    try:
        with open(os.path.join(package.folder, "setup.py"), "rb") as file:
            if _EXTENSION.search(file.read(_LONGEST)):
                return True
    except OSError:
        pass
    requires = package.table("build-system").get("requires")
    texts = requires if isinstance(requires, list) else []
    return any(isinstance(text, str) and _TOOLS.match(text) for text in texts)
