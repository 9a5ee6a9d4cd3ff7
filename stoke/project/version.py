"""Find the version of a project without running its build backend."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stoke.project.pyproject import Pyproject, normalized

UNKNOWN = "0.0.0+unknown"
"""What a project has whose version only its build backend knows."""
_LONGEST = 1 << 20
_ASSIGNED = re.compile(
    r"""(?im)^(?:__version__|version)(?:\s*:\s*str)?(?:\s*=\s*\w+)*\s*=\s*(['"])v?(.+?)\1"""
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*")


def version_of(package: Pyproject) -> str | None:
    """Return the version of a package; None if only its build backend knows it.

    A dynamic version is read from the file or the module attribute that pyproject.toml names, as
    setuptools, hatch, pdm and flit do; from the file that a version control plugin wrote; or from the
    metadata that an earlier installation left in the project.
    """
    if "version" not in package.dynamic:
        version = package.project.get("version")
        return _checked(version) if isinstance(version, str) else None
    return next(filter(None, map(_checked, _candidates(package))), None)


def version_files(package: Pyproject) -> list[str]:
    """Return the files, relative to the package, that its build backend writes the version into."""
    named = [
        package.table("tool", "setuptools_scm").get("version_file"),
        package.table("tool", "setuptools_scm").get("write_to"),
        package.table("tool", "hatch", "build", "hooks", "vcs").get("version-file"),
        package.table("tool", "hatch", "build", "targets", "wheel", "hooks", "vcs").get(
            "version-file"
        ),
        package.table("tool", "pdm", "version").get("write_to"),
    ]
    files = dict.fromkeys(os.path.normpath(name) for name in named if isinstance(name, str))
    return [name for name in files if _is_below(name)]


def version_file_text(version: str) -> str:
    """Return a module as the version control plugins write it."""
    return f"__version__ = version = {version!r}\n"


def _candidates(package: Pyproject) -> Iterator[str | None]:
    setuptools = package.table("tool", "setuptools", "dynamic", "version")
    if isinstance(setuptools.get("attr"), str):
        yield _attribute(package, setuptools["attr"])
    files = setuptools.get("file")
    for name in files if isinstance(files, list) else [files]:
        yield (_read(package, name) or "").strip()
    for table in (
        package.table("tool", "hatch", "version"),
        package.table("tool", "pdm", "version"),
    ):
        if table.get("source") in (None, "regex", "file"):
            yield _matched(package, table)
    if package.backend.startswith("flit"):
        yield _flit(package)
    for name in version_files(package):
        yield _assigned(_read(package, name))
    yield from _installed(package)


def _attribute(package: Pyproject, name: str) -> str | None:
    """Return the text that a module assigns to an attribute: `package.module.__version__`."""
    *modules, attribute = name.split(".")
    path = "/".join(modules)
    for folder in ("src/", "", "lib/"):
        for file in (f"{folder}{path}/__init__.py", f"{folder}{path}.py"):
            text = _read(package, file)
            if text is not None:
                return _literal(text, attribute)
    return None


def _literal(text: str, attribute: str) -> str | None:
    import ast

    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if any(isinstance(one, ast.Name) and one.id == attribute for one in targets):
            value = getattr(node, "value", None)
            try:
                found = ast.literal_eval(value) if value is not None else None
            except (ValueError, TypeError):
                return None
            if isinstance(found, tuple):
                found = ".".join(map(str, found))
            return found if isinstance(found, str) else None
    return None


def _matched(package: Pyproject, table: Mapping[str, Any]) -> str | None:
    text = _read(package, table.get("path"))
    pattern = table.get("pattern")
    if text is None or pattern is None:
        return _assigned(text)
    # A pattern of hatch names its group; `true` is the default pattern.
    if not isinstance(pattern, str):
        return _assigned(text)
    try:
        found = re.search(pattern, text, re.MULTILINE)
    except re.error:
        return None
    return found["version"] if found and "version" in found.groupdict() else None


def _flit(package: Pyproject) -> str | None:
    module = package.table("tool", "flit", "module").get("name") or package.name or ""
    name = str(module).replace("-", "_").replace(".", "/")
    for file in (f"src/{name}/__init__.py", f"{name}/__init__.py", f"src/{name}.py", f"{name}.py"):
        text = _read(package, file)
        if text is not None:
            return _literal(text, "__version__")
    return None


def _installed(package: Pyproject) -> Iterator[str]:
    """Yield the versions in metadata that an installation of the project left in its folder."""
    if package.name is None:
        return
    import glob

    name = normalized(package.name).replace("-", "_")
    folder = glob.escape(package.folder)
    info = f"{name}-*.dist-info"
    for pattern in (f".venv/lib/python*/site-packages/{info}", f".venv/Lib/site-packages/{info}"):
        for path in glob.glob(f"{folder}/{pattern}"):
            yield os.path.basename(path)[len(name) + 1 : -len(".dist-info")]
    for pattern in (f"{name}.egg-info/PKG-INFO", f"src/{name}.egg-info/PKG-INFO"):
        found = re.search(r"(?m)^Version: *(\S+)", _read(package, pattern) or "")
        if found:
            yield found[1]


def _assigned(text: str | None) -> str | None:
    found = _ASSIGNED.search(text or "")
    return found[2] if found else None


def _read(package: Pyproject, name: Any) -> str | None:
    if not isinstance(name, str) or not _is_below(os.path.normpath(name)):
        return None
    try:
        with open(os.path.join(package.folder, name), encoding="utf-8") as file:
            return file.read(_LONGEST)
    except (OSError, ValueError):
        return None


def _is_below(name: str) -> bool:
    return not os.path.isabs(name) and name.split("/")[0] != ".."


def _checked(version: str | None) -> str | None:
    version = (version or "").strip()
    return version if _VERSION.fullmatch(version) and len(version) < 200 else None
