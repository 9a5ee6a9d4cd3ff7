"""Make a project look installed: metadata, entry points and console scripts, without building it.

The files are virtual. They travel in the snapshot below `.stoke/`: `site/NAME-VERSION.dist-info/`,
which `importlib.metadata` finds because `.stoke/site` is on the import path, and `bin/` with a script
for each of [project.scripts].
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from stoke.project.pyproject import Pyproject, normalized
from stoke.project.version import UNKNOWN, version_file_text, version_files, version_of

SITE = ".stoke/site"
PROGRAMS = ".stoke/bin"
_SCRIPT = """\
#!/usr/bin/env python3
import sys

from {module} import {first}

if __name__ == "__main__":
    sys.exit({call}())
"""
_PROGRAM = re.compile(r"\w[\w.+-]*")
_GROUP = re.compile(r"\w+([\w.-]*\w)?")
_REFERENCE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*:\s*([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_EXTRAS = re.compile(r"(?<!\s)\s*+\[[\w\s,.-]*\]\s*\Z")


def is_installed(package: Pyproject) -> bool:
    """Whether a project is one that an installation makes importable, by its own pyproject.toml."""
    return package.name is not None and package.table("tool", "uv").get("package") is not False


def scripts_of(package: Pyproject) -> dict[str, str]:
    """Return each console script of a project with the function that it calls.

    Raises `RequestError` for one that no installer could make.
    """
    scripts = package.pairs("project", "scripts") | package.pairs("project", "gui-scripts")
    for name, reference in scripts.items():
        if not _PROGRAM.fullmatch(name) or not _REFERENCE.fullmatch(_EXTRAS.sub("", reference)):
            raise package.error(
                f"project.scripts has {name[:80]!r} = {reference[:80]!r}; write name = "
                '"package.module:function"'
            )
    return scripts


def virtual_files(package: Pyproject, root: str) -> dict[str, bytes]:
    """Return the files that make a package look installed, by their paths in the project.

    Raises `RequestError` for fields of pyproject.toml that no installer accepts.
    """
    version = version_of(package) or UNKNOWN
    info = f"{SITE}/{normalized(package.name or '').replace('-', '_')}-{version.replace('-', '_')}"
    info += ".dist-info"
    files = {
        f"{info}/METADATA": "".join(f"{line}\n" for line in _metadata(package, version)).encode(),
        f"{info}/INSTALLER": b"stoke\n",
    }
    if points := "\n".join(_entry_points(package)):
        files[f"{info}/entry_points.txt"] = f"{points}\n".encode()
    record = "".join(f"{name.removeprefix(SITE + '/')},,\n" for name in [*files, f"{info}/RECORD"])
    files[f"{info}/RECORD"] = record.encode()
    for name, reference in scripts_of(package).items():
        found = _REFERENCE.fullmatch(_EXTRAS.sub("", reference))
        assert found is not None
        text = _SCRIPT.format(module=found[1], first=found[2].partition(".")[0], call=found[2])
        files[f"{PROGRAMS}/{name}"] = text.encode()
    for name in version_files(package):
        path = os.path.join(package.folder, name)
        inside = os.path.relpath(path, root)
        if name.endswith(".py") and not inside.startswith(".."):
            files[inside] = _content(path) or version_file_text(version).encode()
    return files


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _metadata(package: Pyproject, version: str) -> Iterator[str]:
    project = package.project
    yield "Metadata-Version: 2.1"
    yield f"Name: {package.name}"
    yield f"Version: {version}"
    for key, field in (("description", "Summary"), ("requires-python", "Requires-Python")):
        if isinstance(project.get(key), str):
            yield f"{field}: {_one_line(project[key])}"
    if "dependencies" not in package.dynamic:
        for text in package.texts("project", "dependencies"):
            yield f"Requires-Dist: {_one_line(text)}"
    for extra in package.table("project", "optional-dependencies"):
        yield f"Provides-Extra: {_one_line(extra)}"
        for text in package.texts("project", "optional-dependencies", extra):
            requirement, _, marker = _one_line(text).partition(";")
            asked = f"extra == '{_one_line(extra)}'"
            marker = f"({marker.strip()}) and {asked}" if marker.strip() else asked
            yield f"Requires-Dist: {requirement.strip()} ; {marker}"


def _entry_points(package: Pyproject) -> Iterator[str]:
    groups = {
        "console_scripts": package.pairs("project", "scripts"),
        "gui_scripts": package.pairs("project", "gui-scripts"),
    }
    for group in package.table("project", "entry-points"):
        if not _GROUP.fullmatch(group):
            raise package.error(f"project.entry-points has the group {group[:80]!r}")
        groups[group] = package.pairs("project", "entry-points", group)
    for group, points in groups.items():
        if points:
            yield f"[{group}]"
            yield from (f"{_one_line(name)} = {_one_line(text)}" for name, text in points.items())
            yield ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
