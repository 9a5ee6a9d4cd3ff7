"""The names of workspaces, and where a container or pod finds its own."""

from __future__ import annotations

import re

WORKSPACE = "/workspace"
LONGEST = 63
"""As long as a label in Kubernetes may be."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def check_workspace_name(name: str) -> str:
    """Return the name. `ValueError` says why it cannot be one."""
    shown = name if len(name) <= LONGEST else f"{name[:40]}..."
    if "/" in name:
        raise ValueError(f"{shown!r} is a path; write a name, such as {_without_path(name)!r}")
    if ".." in name:
        raise ValueError(f"{shown!r} has .. in it, which leads out of a folder")
    if len(name) > LONGEST:
        raise ValueError(f"{shown!r} has {len(name)} characters; {LONGEST} is the most")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{shown!r} is not the name of a workspace; use letters, digits and . _ - between them"
        )
    return name


def _without_path(name: str) -> str:
    last = re.sub(r"[^A-Za-z0-9_-]+", "", name.rstrip("/").rpartition("/")[2])[:LONGEST].strip("_-")
    return last or "data"
