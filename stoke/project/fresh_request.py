"""A job's request with its project as it is now: files, packages and code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stoke.errors import RequestError
from stoke.project.environment import ProjectEnvironment, ProjectOptions
from stoke.project.request_additions import PACKAGE_FIELDS, environment_for_request
from stoke.request.sources import read_code, request_from_options
from stoke.request.spec import JobSpec


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
    for name in (*PACKAGE_FIELDS, "uv"):
        fields.pop(name, None)
    asked: Mapping[str, Any] = project.asked.model_dump()
    fields |= {name: asked[name] for name in PACKAGE_FIELDS if asked[name]}
    start = os.path.dirname(project.script) if project.script else project.directory
    found = environment_for_request(
        fields,
        project.root,
        os.path.normpath(os.path.join(project.root, start)),
        ProjectOptions(project.asked.groups, project.asked.extras, project.asked.dev),
    )
    fields = found.added_to(fields)
    fields["project"] |= found.in_project
    return request_from_options(**fields), found
