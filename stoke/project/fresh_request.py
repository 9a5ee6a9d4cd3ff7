"""A recorded request with its project as it is now: files, packages and code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stoke.errors import RequestError
from stoke.project.choices import ProjectEnvironment, ProjectOptions
from stoke.project.request_additions import PACKAGE_FIELDS, environment_for_request
from stoke.request.sources import read_code, request_from_options
from stoke.request.spec import JobSpec, Project, ProjectPackages


def fresh_request(spec: JobSpec) -> tuple[JobSpec, ProjectEnvironment]:
    """Return a recorded request without its snapshot, so that a new one is taken, with the code that
    its script has now; and what its project adds now.

    uv's settings are left out where the project's count, and have to be taken in again. Raises
    `RequestError` without a project, and for one that is wrong by now.
    """
    project = spec.project
    if project is None:
        raise RequestError(
            "project", "the job had no project", "run its request as it was: leave out --fresh"
        )
    fields: dict[str, Any] = spec.model_dump(exclude_unset=True)
    fields["project"] |= {"digest": None, "files": 0, "bytes": 0}
    if project.script is not None:
        fields["code"] = read_code(os.path.join(project.root, project.script))
    if project.asked is None:
        return request_from_options(**fields), ProjectEnvironment()
    return _with_packages(fields, project, project.asked)


def request_to_submit(spec: JobSpec) -> tuple[JobSpec, ProjectEnvironment]:
    """Return a request from JSON as it has to be submitted, and what its project adds: if the folder is
    taken as it is now, its packages are too. Raises `RequestError` as `fresh_request` does."""
    project = spec.project
    if project is None or project.digest is not None or project.asked is None:
        return spec, ProjectEnvironment()
    return _with_packages(spec.model_dump(exclude_unset=True), project, project.asked)


def request_to_save(spec: JobSpec) -> JobSpec:
    """Return a request as a preset has it: without the code if the project's script has the same, which
    is read when the preset is used. Its packages remain those of now if they are not what the project
    and the request ask for, because the user changed them. Raises `RequestError`."""
    project = spec.project
    if project is None or project.digest is not None:
        return spec
    without: dict[str, Any] = {}
    if project.script is not None and _has_code(project, spec.code):
        without["code"] = ""
    if project.asked is not None:
        now, _ = _with_packages(spec.model_dump(exclude_unset=True), project, project.asked)
        if any(getattr(now, name) != getattr(spec, name) for name in PACKAGE_FIELDS):
            without["project"] = project.model_copy(update={"asked": None})
    return spec.model_copy(update=without)


def _has_code(project: Project, code: str) -> bool:
    try:
        return read_code(os.path.join(project.root, project.script or "")) == code
    except RequestError:
        return False


def _with_packages(
    fields: dict[str, Any], project: Project, asked: ProjectPackages
) -> tuple[JobSpec, ProjectEnvironment]:
    """Return the request with the packages that its project asks for now, beside its own."""
    for name in (*PACKAGE_FIELDS, "uv"):
        fields.pop(name, None)
    own: Mapping[str, Any] = asked.model_dump()
    fields |= {name: own[name] for name in PACKAGE_FIELDS if own[name]}
    start = os.path.dirname(project.script) if project.script else project.directory
    found = environment_for_request(
        fields,
        project.root,
        os.path.normpath(os.path.join(project.root, start)),
        ProjectOptions(asked.groups, asked.extras, asked.dev),
    )
    fields = found.added_to(fields)
    fields["project"] |= found.in_project
    return request_from_options(**fields), found
