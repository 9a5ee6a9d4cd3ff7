"""Make the folders that the tests take snapshots of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from stoke.project.listing import ProjectListing, list_project
from stoke.project.manifest import Manifest
from stoke.project.snapshot import Snapshot, take_snapshot
from stoke.request.spec import Project

LIMIT = 1 << 40


def make_tree(root: Path, *files: str, **contents: str) -> Path:
    """Create empty files by their paths; a path with a slash at its end is a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for path in files:
        target = root / path
        (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            target.write_text(contents.get(path, path))
    return root


def git(folder: Path, *words: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    allowed = ["-c", "protocol.file.allow=always"]
    subprocess.run(
        ["git", *identity, *allowed, *words], cwd=folder, env=env, check=True, capture_output=True
    )


def listed(root: Path, code: str = "pass", **fields: Any) -> ProjectListing:
    return list_project(Project.model_validate({"root": str(root), **fields}), code)


def paths(root: Path, code: str = "pass", **fields: Any) -> set[str]:
    """Everything that travels; a folder's path ends with a slash."""
    found = listed(root, code, **fields)
    return {
        *(path for path, _ in found.sizes()),
        *(path for path, _ in found.links),
        *(f"{path}/" for path in found.folders),
    }


def reasons(root: Path, **fields: Any) -> dict[str, str]:
    return dict(listed(root, **fields).left_out)


def snapshot(root: Path, code: str = "pass", **fields: Any) -> Snapshot:
    return take_snapshot(Project.model_validate({"root": str(root), **fields}), code, LIMIT)


def restore(manifest: Manifest, contents: dict[str, bytes], folder: Path) -> None:
    """Make the tree of a manifest, as a job does, from the contents by SHA-256."""
    for entry in manifest.entries:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "d":
            target.mkdir()
        elif entry.kind == "l":
            target.symlink_to(entry.target)
        else:
            target.write_bytes(contents[entry.sha256])
            target.chmod(entry.mode)
