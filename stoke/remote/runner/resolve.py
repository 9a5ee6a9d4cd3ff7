"""Resolve the requirements of a job into a lockfile."""

from __future__ import annotations

import os
import time

from stoke.remote.common.seal import sealed, unsealed
from stoke.remote.runner.errors import NetworkError, PhaseError
from stoke.remote.runner.files import read_fresh, write_atomically
from stoke.remote.runner.lockfile_text import header_text, keep_allowed_hashes
from stoke.remote.runner.uv import Uv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob


def resolve(job: RemoteJob, path: str) -> str:
    """Resolve the requirements, store the lockfile at `path`, and return its text.

    Without a network, return the lockfile that is stored there, whatever its age, and note that.
    """
    requirements = os.path.join(job.work, "requirements.in")
    out = os.path.join(job.work, "requirements.lock")
    settings = job.payload["settings"]
    lines = job.payload["requirements"]
    arguments = ["--upgrade", "--refresh"] if job.payload["upgrade"] else []
    if job.payload["constraints"]:
        constraints = os.path.join(job.work, "constraints.txt")
        write_atomically(constraints, "".join(line + "\n" for line in job.payload["constraints"]))
        arguments += ["-c", constraints]
    if job.payload["pre"]:
        arguments += ["--prerelease", "allow"]
    if settings["several"]:
        arguments.append("--emit-index-annotation")
    if settings["project"]:
        # uv applies `sources` to the packages of a project only.
        project = os.path.join(job.work, "resolve", "pyproject.toml")
        os.makedirs(os.path.dirname(project), exist_ok=True)
        write_atomically(project, settings["project"])
        arguments.append(project)
        lines = [*settings["lines"], *settings["unnamed"]]
    write_atomically(requirements, "".join(line + "\n" for line in lines))
    try:
        job.shared(Uv).run(
            "pip", "compile", "--generate-hashes", "--no-header", "--no-annotate",
            "--python", job.python, "--output-file", out, *arguments, requirements,
            UV_CONFIG_FILE=job.shared(Uv).config_file("lock"),
        )  # fmt: skip
    except PhaseError as error:
        older = unsealed(read_fresh(path, 0))
        why = None
        if isinstance(error, NetworkError):
            why = error.text.partition(",")[0]
        elif older is not None and "Git operation failed" in error.text.split("\n"):
            why = job.shared(Uv).unreached_git_server()
        if older is None or why is None:
            raise
        age = (time.time() - os.stat(path).st_mtime) / 3600
        job.events.note("no network: %s; using the lockfile of %.0f hours ago" % (why, age))
        return older
    with open(out) as file:
        text = keep_allowed_hashes(
            file.read(), job.payload["hashes"], job.payload["require_hashes"]
        )
    text = header_text(settings["header"]) + text
    write_atomically(path, sealed(text))
    return text
