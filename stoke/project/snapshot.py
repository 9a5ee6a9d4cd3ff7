"""Snapshots of projects: their manifests, and where the contents are."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from stoke.errors import RequestError
from stoke.project.contents import hash_file
from stoke.project.listing import list_project, shown_paths
from stoke.project.manifest import FILE, FOLDER, LINK, Manifest, ManifestEntry, make_manifest
from stoke.project.manifest_store import read_virtual, recorded_manifest
from stoke.project.stat_index import StatIndex
from stoke.request.source_code import declared_encoding
from stoke.request.spec import Project


@dataclass(frozen=True)
class Snapshot:
    """The manifest of a project, and where the contents are that it names.

    `paths` has a file of the root for each SHA-256, `virtual` the contents that are in no file. `notes`
    is what the user has to know about what is left out, each with a hint.
    """

    root: str
    manifest: Manifest
    paths: Mapping[str, str]
    virtual: Mapping[str, bytes]
    notes: tuple[tuple[str, str], ...] = ()

    def record(self, project: Project) -> Project:
        """Return the project as it is recorded with the job."""
        sizes = [file.size for file in self.manifest.files]
        changes = {"digest": self.manifest.digest, "files": len(sizes), "bytes": sum(sizes)}
        return project.model_copy(update=changes)


def take_snapshot(
    project: Project,
    code: str,
    limit: int,
    extra_files: Mapping[str, bytes] | None = None,
    most: int | None = None,
) -> Snapshot:
    """Take a snapshot of the project as it is now, of at most `limit` bytes.

    `code`, `extra_files` and `most` are as in `list_project`. Raises `RequestError` as that does, for a
    file that cannot be read as a whole, and above the limit.
    """
    listing = list_project(project, code, extra_files, most)
    listing.check_size(limit)
    virtual = listing.virtual
    files = [one for one in listing.files if one[0] not in virtual]
    entries, paths = _hashed(project.root, files)
    modes = {path: _mode(status) for path, status in listing.files} if virtual else {}
    by_hash: dict[str, bytes] = {}
    for path, data in virtual.items():
        sha256 = hashlib.sha256(data).hexdigest()
        by_hash[sha256] = data
        default = 0o755 if os.path.dirname(path) in project.programs else 0o644
        entries.append(ManifestEntry(path, FILE, modes.get(path, default), len(data), sha256))
    entries += [ManifestEntry(path, LINK, target=target) for path, target in listing.links]
    entries += [ManifestEntry(path, FOLDER) for path in listing.folders]
    return Snapshot(project.root, make_manifest(entries), paths, by_hash, tuple(listing.notes()))


def recorded_snapshot(project: Project, code: str) -> Snapshot:
    """Return the snapshot that was recorded with a job, with `code` as the script's content.

    The folder's files are only where its contents may still be; `check_available` looks. Raises
    `RequestError` if the manifest is gone.
    """
    assert project.digest is not None
    manifest, virtual = recorded_manifest(project.digest), read_virtual(project.digest)
    if project.script is not None:
        data = code.encode(declared_encoding(code))
        sha256 = hashlib.sha256(data).hexdigest()
        entries = {entry.path: entry for entry in manifest.entries}
        script = entries.get(project.script)
        virtual[sha256] = data
        if script is None or script.sha256 != sha256:  # The code was edited.
            mode = script.mode if script is not None else 0o644
            entries[project.script] = ManifestEntry(project.script, FILE, mode, len(data), sha256)
            manifest = make_manifest(list(entries.values()))
    paths = {file.sha256: file.path for file in manifest.files}
    return Snapshot(project.root, manifest, paths, virtual)


def check_available(snapshot: Snapshot, stored: Set[str]) -> None:
    """Raise `RequestError` if the folder no longer has a content of a recorded snapshot, and `stored`,
    what the cache volume has, does not have it either."""
    index = StatIndex(snapshot.root)
    missing = []
    for file in snapshot.manifest.files:
        if file.sha256 in stored or file.sha256 in snapshot.virtual:
            continue
        if _current_hash(index, snapshot.root, file.path) != file.sha256:
            missing.append(file.path)
    if missing:
        raise RequestError(
            "project",
            f"{len(missing)} of the snapshot's files changed or disappeared since, and the cache does "
            f"not have them: {shown_paths(missing)}",
            "take the folder as it is now: stoke rerun JOB --fresh",
        )


def _hashed(
    root: str, files: Iterable[tuple[str, os.stat_result]]
) -> tuple[list[ManifestEntry], dict[str, str]]:
    """Return an entry for each file, and a file's path for each hash."""
    index = StatIndex(root)
    entries, paths = [], {}
    for path, status in files:
        sha256 = index.find(path, status)
        if sha256 is None:
            began = time.time()
            sha256, status = hash_file(root, path)
            index.add(path, status, sha256, began)
        entries.append(ManifestEntry(path, FILE, _mode(status), status.st_size, sha256))
        paths[sha256] = path
    index.save()
    return entries, paths


def _mode(status: os.stat_result) -> int:
    return 0o755 if status.st_mode & stat.S_IXUSR else 0o644


def _current_hash(index: StatIndex, root: str, path: str) -> str | None:
    try:
        status = os.lstat(f"{root}/{path}")
        if not stat.S_ISREG(status.st_mode):
            return None
        return index.find(path, status) or hash_file(root, path)[0]
    except (OSError, RequestError):
        return None
