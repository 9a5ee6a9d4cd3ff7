"""Add what a project asks for to a request that starts in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stoke.errors import RequestError
from stoke.project.choices import NO_CHOICE, ProjectEnvironment, ProjectOptions
from stoke.project.environment import project_environment, unused_requirements
from stoke.project.pyproject import FILE
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirement import RequirementError

PACKAGE_FIELDS = ("dependencies", "requirements", "locked", "python")
"""The fields of a request that a project adds to."""


def with_project(
    fields: Mapping[str, Any],
    project: Mapping[str, Any],
    start: str,
    options: ProjectOptions = NO_CHOICE,
) -> tuple[dict[str, Any], ProjectEnvironment]:
    """Return the fields of a request with its project, and what the project adds to them.

    `project` is as `stoke.project.root.project_of` returns it. A request without a script starts in
    the folder `start`, which is absolute.
    """
    environment = ProjectEnvironment()
    if not project["imports_only"]:
        if project["script"] is not None:
            start = os.path.dirname(os.path.join(project["root"], project["script"]))
        environment = environment_for_request(fields, project["root"], start, options)
    found = {**environment.added_to(fields), "project": {**project, **environment.in_project}}
    return found, environment


def environment_for_request(
    fields: Mapping[str, Any], root: str, start: str, options: ProjectOptions
) -> ProjectEnvironment:
    """Return what the project at `root` adds to a request with these fields that starts in `start`.

    The current project is the nearest folder with a pyproject.toml, from `start` up to the root. As in
    uv, a script with metadata of its own (PEP 723) has no other packages. Both folders are absolute.
    """
    code = fields.get("code")
    try:
        is_alone = isinstance(code, str) and read_script_metadata(code) is not None
    except RequirementError:
        is_alone = True  # The request's own check reports it.
    if is_alone and options.choose:
        raise RequestError(
            options.field,
            "the script has packages of its own in its script metadata (PEP 723), and none of the "
            "project's",
            "remove the option, or the metadata",
        )
    if is_alone:
        return ProjectEnvironment()
    requested = tuple(fields.get("dependencies") or ())
    found = project_environment(root, current_project(root, start), options, requested)
    own = {name: fields[name] for name in PACKAGE_FIELDS if fields.get(name)}
    if own.keys() - {"python"}:
        proposed = unused_requirements(root)
        found = found._replace(notes=tuple(note for note in found.notes if note not in proposed))
    return found._replace(asked={**options._asdict(), **own})


def beside(fields: Mapping[str, Any], folder: str) -> ProjectEnvironment:
    """Return what a script's folder says to a request that belongs to no project: a note with its
    requirements.txt, unless the request or the script names packages."""
    has_own = any(fields.get(name) for name in PACKAGE_FIELDS if name != "python")
    if has_own or "# /// script" in fields["code"]:
        return ProjectEnvironment()
    return ProjectEnvironment(notes=tuple(unused_requirements(folder)))


def current_project(root: str, start: str) -> str:
    """Return the nearest folder with a pyproject.toml from `start` up to `root`, else the root."""
    folder = start
    while folder != root and folder.startswith(root.rstrip("/") + "/"):
        if os.path.isfile(os.path.join(folder, FILE)):
            return folder
        folder = os.path.dirname(folder)
    return root
