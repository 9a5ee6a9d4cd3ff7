"""Find the project that a request belongs to: its root, and where in it the request starts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from stoke.errors import RequestError
from stoke.files.paths import is_world_writable

MARKERS = ("pyproject.toml", ".git", "stoke.toml")
"""A folder with one of these is the root of a project."""
NO_FOLDER = "run it without the folder's files: --no-folder"


def find_root(folder: str) -> str | None:
    """Return the nearest folder with one of the markers: `folder`, which is absolute, or one above it.

    Never the root of the file system, the home folder or a folder above that, or one that every user
    can write to, such as /tmp: another user could put a marker there.
    """
    home = _home()
    while folder not in ("/", home):
        try:
            closed = not is_world_writable(folder)
            if closed and any(os.path.lexists(f"{folder}/{name}") for name in MARKERS):
                return folder
        except OSError:
            return None
        folder = os.path.dirname(folder)
    return None


def project_of(
    script: str | None,
    code: str,
    *,
    start: str | None = None,
    folder: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Return the project of a request as the JSON of `stoke.request.spec.Project`, or None.

    `script` is the file that the code is from, None for code from elsewhere. The root is looked for
    from `start` up, by default from the script's folder or the current one; `folder` is the root that
    the user names. A member of a uv workspace has the root of its workspace. Without a root, the
    project is the script with the modules beside it that it imports, and None if it imports none.

    Raises `RequestError` for a wrong folder.
    """
    try:
        here = os.getcwd()
    except OSError:  # It was removed.
        here = ""
    file = os.path.realpath(script) if script is not None else ""
    if not os.path.isfile(file):
        file = ""  # Code, or a pipe.
    above = os.path.realpath(start) if start else os.path.dirname(file) if file else here
    named = None if folder is None else _named_root(folder)
    root = named or _with_workspace(find_root(above) if above else None)
    imports_only = root is None
    if root is None:
        from stoke.project.local_modules import local_modules

        root = above
        if not root or not (include or (file and local_modules(root, file, code))):
            return None
    project: dict[str, Any] = {
        "root": root,
        "directory": _inside(here, root) or ".",
        "script": _inside(file, root),
        "include": list(include),
        "exclude": list(exclude),
        "imports_only": imports_only,
    }
    _check_names(project)
    return project


def check_root(root: str, field: str) -> None:
    """Raise `RequestError` for the root of the file system and the home folder."""
    if root in ("/", _home()):
        kind = "the root of the file system" if root == "/" else "your home folder"
        raise RequestError(
            field, f"{root} is {kind}, which is never sent", "name a folder inside it"
        )


def _named_root(folder: str) -> str:
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise RequestError("folder", f"{folder} is no folder", NO_FOLDER)
    check_root(root, "folder")
    return root


def _with_workspace(root: str | None) -> str | None:
    """Return the root of the uv workspace that a root is a member of, else the root itself."""
    if root is None or not os.path.isfile(f"{root}/pyproject.toml"):
        return root
    from stoke.project.uv_workspace import workspace_root

    return workspace_root(root) or root


def _home() -> str:
    home = os.environ.get("HOME", "")
    return os.path.realpath(home) if home else ""


def _inside(path: str, root: str) -> str | None:
    """Return a path relative to the root; None if it is outside."""
    if path == root:
        return "."
    return path[len(root) + 1 :] if path.startswith(root + "/") else None


def _check_names(project: dict[str, Any]) -> None:
    for field in ("root", "directory", "script"):
        try:
            (project[field] or "").encode()
        except UnicodeEncodeError:
            name = shlex.quote(project[field].encode(errors="backslashreplace").decode())
            raise RequestError("folder", f"the name {name} is not UTF-8", NO_FOLDER) from None
