"""Find what `stoke run FOLDER` starts: the folder's own program, as `python FOLDER` does and beyond."""

from __future__ import annotations

import os
import shlex
from typing import Any

from stoke.errors import RequestError
from stoke.project.installation import is_installed, scripts_of
from stoke.project.pyproject import Pyproject, read_pyproject
from stoke.project.source_layout import import_folders

MAIN = "__main__.py"
_MOST_NAMED = 8


def find_program(folder: str) -> tuple[dict[str, str], str]:
    """Return the field of a request that starts the program in a folder, and the job's name.

    That is `__main__.py` in the folder (field "file": its path), else a package with a `__main__`
    ("module"), else the only script in [project.scripts] ("exec"). `RequestError` names what is there
    if none of them, or more than one, is found.
    """
    name = os.path.basename(os.path.abspath(folder))
    main = os.path.join(folder, MAIN)
    if os.path.isfile(main):
        return {"file": main}, name
    project = read_pyproject(os.path.abspath(folder))
    packages = _packages(os.path.abspath(folder), project)
    if len(packages) == 1:
        return {"module": packages[0]}, packages[0]
    scripts = list(scripts_of(project)) if project and is_installed(project) else []
    if len(scripts) == 1:
        return {"exec": scripts[0]}, scripts[0]
    raise _unclear(folder, packages, scripts)


def _packages(folder: str, project: Pyproject | None) -> list[str]:
    """Return the packages with a `__main__` that can be imported in the project."""
    places = import_folders(project) if project else ["."]
    found: dict[str, None] = {}
    for place in places:
        try:
            names = sorted(os.listdir(os.path.join(folder, place)))
        except OSError:
            continue
        for name in names:
            if name.isidentifier() and os.path.isfile(os.path.join(folder, place, name, MAIN)):
                found[name] = None
    return list(found)


def _unclear(folder: str, packages: list[str], scripts: list[str]) -> RequestError:
    where = folder if folder.endswith("/") else f"{folder}/"
    if packages or scripts:
        there = [f"-m {name}" for name in packages] + [f"--exec {name}" for name in scripts]
        return RequestError(
            folder,
            f"has more than one program: {', '.join(there[:_MOST_NAMED])}",
            f"name one: stoke run {there[0]}",
        )
    try:
        files = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    except OSError as error:
        return RequestError(folder, f"cannot be read: {error.strerror}")
    why = f"is a folder without {MAIN}, a package with one, or a script in [project.scripts]"
    if not files:
        return RequestError(folder, why)
    example: Any = shlex.quote(os.path.normpath(where + files[0]))
    return RequestError(
        folder,
        f"{why}; it has {', '.join(files[:_MOST_NAMED])}",
        f"name a file: stoke run {example}",
    )
