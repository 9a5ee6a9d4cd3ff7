"""A job's request with the files of its project as they are now."""

from __future__ import annotations

import os

from stoke.errors import RequestError
from stoke.request.sources import read_code
from stoke.request.spec import JobSpec


def as_it_is_now(spec: JobSpec) -> JobSpec:
    """Return a recorded request without its snapshot, so that a new one is taken, and with the code
    that its script has now. Raises `RequestError` without a project."""
    project = spec.project
    if project is None:
        raise RequestError(
            "project", "the job had no project", "run its request as it was: leave out --fresh"
        )
    changes: dict[str, object] = {
        "project": project.model_copy(update={"digest": None, "files": 0, "bytes": 0})
    }
    if project.script is not None:
        changes["code"] = read_code(os.path.join(project.root, project.script))
    return spec.model_copy(update=changes)
