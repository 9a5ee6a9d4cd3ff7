"""The name by which a job finds the checkpoint of an earlier one.

Jobs of one scope that have the same name share a checkpoint. A job that nothing named has the one of
the first run of its request, which `stoke rerun` passes on.
"""

from __future__ import annotations

import hashlib
import re

UNNAMED = "job"
"""The name of jobs that nothing names."""


def checkpoint_name(name: str, job_id: str, given: str | None) -> str:
    """Return the name of a job's checkpoint; `given` is that of the job which this one repeats."""
    return given or (job_id if name == UNNAMED else name)


def checkpoint_folder(name: str) -> str:
    """Return the name of its folder: readable, and another one for each name."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or UNNAMED
    return f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
