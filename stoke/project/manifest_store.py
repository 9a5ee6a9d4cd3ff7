"""The manifests of submitted snapshots on this machine, by digest.

Each job that names a manifest holds a hard link to it in its folder, so the last one to be removed is
recognized by the number of links. Beside a manifest is a pack of the contents that no file of the
project has, such as edited code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from stoke.errors import RequestError
from stoke.files.atomic import write_atomically
from stoke.files.paths import job_dir, make_private, state_dir
from stoke.files.untrusted import read_bytes
from stoke.project.manifest import Manifest, parse_manifest
from stoke.project.pack import of_bytes, read_pack, write_pack

MAX_SIZE = 256 * 1024**2
_IN_JOB = "project.manifest"
_PACK = ".pack"


def save_manifest(manifest: Manifest, virtual: Mapping[str, bytes], job_id: str) -> None:
    """Store a manifest for a job, with the contents by SHA-256 that are in no file.

    Raises `EngineError` and `OSError`.
    """
    folder = make_private(_folder())
    path = folder / manifest.digest
    if not path.exists():
        if virtual:
            contents = {name: (len(data), of_bytes(data)) for name, data in virtual.items()}
            write_pack(path.with_suffix(_PACK), contents)
        write_atomically(path, manifest.data)
    link = make_private(job_dir(job_id)) / _IN_JOB
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        pass  # A file system without hard links; the manifest then stays as long as the state folder.


def read_manifest(digest: str) -> Manifest | None:
    """Return a stored manifest; None if it is missing or damaged."""
    try:
        manifest = parse_manifest(read_bytes(_folder() / digest, MAX_SIZE))
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if manifest.digest == digest else None


def read_virtual(digest: str) -> dict[str, bytes]:
    """Return the stored contents of a snapshot that are in no file, by their SHA-256."""
    try:
        with (_folder() / digest).with_suffix(_PACK).open("rb") as file:
            return dict(read_pack(file))
    except (OSError, ValueError, RecursionError):
        return {}


def recorded_manifest(digest: str) -> Manifest:
    """Return a stored manifest. Raises `RequestError` if it is gone."""
    manifest = read_manifest(digest)
    if manifest is None:
        raise RequestError(
            "project",
            f"the list of files of snapshot {digest[:12]} is not on this machine",
            "take the folder as it is now: stoke rerun JOB --fresh; in JSON, set digest to null",
        )
    return manifest


def share_manifest(job_id: str, other_id: str) -> None:
    """Store the manifest of a job for another one too, whose folder exists."""
    link = job_dir(other_id) / _IN_JOB
    link.unlink(missing_ok=True)
    try:
        os.link(job_dir(job_id) / _IN_JOB, link)
    except OSError:
        pass  # As in `save_manifest`.


def release_manifest(job_id: str) -> None:
    """Remove a job's link to its manifest, and the manifest if no other job names it."""
    link = job_dir(job_id) / _IN_JOB
    try:
        is_last = link.lstat().st_nlink == 2
        path = _folder() / hashlib.sha256(link.read_bytes()).hexdigest()
        link.unlink()
        if is_last:
            path.unlink(missing_ok=True)
            path.with_suffix(_PACK).unlink(missing_ok=True)
    except OSError:
        pass


def _folder() -> Path:
    return state_dir() / "projects" / "manifests"
