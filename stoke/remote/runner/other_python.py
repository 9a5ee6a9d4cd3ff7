"""Find or download an interpreter of another version than the one that runs this program."""

from __future__ import annotations

import json
import os
import re
import sys

from stoke.remote.protocol import HintCode
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.interpreter import satisfies
from stoke.remote.runner.tools import run_tool
from stoke.remote.runner.uv import Uv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.protocol import Hint
    from stoke.remote.runner.job import RemoteJob

PUBLIC_MINORS = (14, 13, 12, 11, 10, 9)
"""Minor versions of Python 3 that have public images and run this program."""


def find_python(job: RemoteJob, requested: str) -> tuple[str, list[str]]:
    """Return (path, fingerprint) of an interpreter of the requested version."""
    try:
        _, found = job.shared(Uv).run("python", "find", "--system", requested)
    except PhaseError:
        try:
            job.shared(Uv).run("python", "install", requested, UV_PYTHON_DOWNLOADS="manual")
            _, found = job.shared(Uv).run("python", "find", "--system", requested)
        except PhaseError as error:
            raise PhaseError(
                "Python %s is not installed (this is %s) and could not be downloaded: %s"
                % (requested, sys.version.split()[0], error.text),
                image_hint(requested),
            ) from None
    python = found.strip()
    argv = [python, "-I", "-S", os.path.abspath(sys.argv[0]), "--fingerprint"]
    code, err, out = run_tool(job.termination, argv, dict(os.environ))
    if code != 0:
        raise PhaseError("%s cannot be run: %s" % (python, err.strip()))
    return python, json.loads(out)


def image_hint(requested: str) -> Hint | None:
    """Name the newest public image whose Python is within the bounds; None if none is known."""
    exact = re.match(r"\s*(?:==)?\s*(3\.\d+\.\d+)\s*$", requested)
    # The image of a minor version has one of its last patch versions.
    fit = [exact.group(1)] if exact else [
        "3.%d" % minor for minor in PUBLIC_MINORS if satisfies((3, minor, 99), requested)
    ]  # fmt: skip
    if not fit or (exact and int(exact.group(1).split(".")[1]) not in PUBLIC_MINORS):
        return None
    return HintCode.IMAGE_WITH_PYTHON, fit[0]
