"""Make the request of a tool call: what `stoke run` would make of the same options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stoke.config.defaults import with_defaults
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.project.choices import ProjectEnvironment
from stoke.request.sources import read_code, request_from_options
from stoke.text.sanitize import clean

STARTS = ("code", "file", "module", "exec")
RECORDED = ("project", "shell", "uv")
"""Fields that no client sets: stoke finds them, or they need a terminal."""


def make_request(
    config: Config, fields: dict[str, Any], *, file: str | None, name: str | None, folder: bool
) -> Request:
    """Return the request with these fields. The code is that of `file` if one is named.

    With `folder`, the project around the file, or around the current folder, travels with the code.
    Raises `RequestError`, also for a file that cannot be read.
    """
    given = {field for field in STARTS if fields.get(field) is not None} | (
        {"file"} if file else set()
    )
    if len(given) != 1:
        which = " and ".join(sorted(given)) or "none"
        raise RequestError(
            "request", f"names {which} to run", f"pass exactly one of {', '.join(STARTS)}"
        )
    for field in RECORDED:
        if field in fields:
            raise RequestError(field, "cannot be set here", "leave it out")
    if file == "-":
        raise RequestError("file", "- is standard input, which has no code", "pass it as code")
    if file is not None:
        fields = {**fields, "code": read_code(file)}
    fields = {"code": "", **fields}
    environment = ProjectEnvironment()
    if folder:
        from stoke.project.request_additions import with_project
        from stoke.project.root import project_of

        project = project_of(file, str(fields["code"]))
        if project is not None:
            fields, environment = with_project(fields, project, os.path.realpath("."))
    program = Path(file).name if file is not None else None
    found = next((text for text in (fields.get("module"), fields.get("exec")) if text), None)
    stem = Path(file).stem if file is not None else found
    return Request.configured(
        with_defaults(request_from_options(**fields), config, environment.settings),
        config,
        name=clean(name or "").strip()[:200] or clean(str(stem or "")).strip()[:200] or "job",
        program=program,
        project_files=environment.extra_files,
        notes=environment.notes,
        needs_project="code" not in given,
    )
