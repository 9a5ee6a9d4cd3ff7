"""Snapshots and packs made by hand, and jobs that get them without a folder on this machine."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stoke.backend.api import Delivery
from stoke.cache.keys import request_keys
from stoke.delivery.payload import runner_source
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState, new_job_id
from stoke.project.manifest import FILE, FOLDER, LINK, Manifest, ManifestEntry, make_manifest
from stoke.project.pack import ProjectDelivery
from stoke.request.spec import Project
from tests.lab import Lab, Outcome


@dataclass(frozen=True)
class Link:
    target: str


EMPTY_FOLDER = None
File = bytes | tuple[bytes, int] | Link | None
"""A content, a content and its mode, a link, or an empty folder."""


@dataclass(frozen=True)
class Snapshot:
    manifest: Manifest | RawManifest
    contents: dict[str, bytes]
    """By SHA-256; the manifest is among them."""

    def pack(self, without: Iterable[str] = ()) -> bytes:
        left_out = frozenset(without)
        sent = {key: data for key, data in self.contents.items() if key not in left_out}
        head = json.dumps([[sha256, len(data)] for sha256, data in sent.items()])
        return head.encode() + b"\n" + b"".join(sent.values())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def snapshot(files: Mapping[str, File]) -> Snapshot:
    entries: list[ManifestEntry] = []
    contents: dict[str, bytes] = {}
    for path, file in files.items():
        if isinstance(file, Link):
            entries.append(ManifestEntry(path, LINK, target=file.target))
        elif file is EMPTY_FOLDER:
            entries.append(ManifestEntry(path, FOLDER))
        else:
            data, mode = (file, 0o644) if isinstance(file, bytes) else file
            entries.append(ManifestEntry(path, FILE, mode, len(data), sha256(data)))
            contents[sha256(data)] = data
    manifest = make_manifest(entries)
    return Snapshot(manifest, contents | {manifest.digest: manifest.data})


@dataclass(frozen=True)
class RawManifest:
    """A manifest of any entries, as a hostile client could send it."""

    data: bytes

    @property
    def digest(self) -> str:
        return sha256(self.data)


def snapshot_of(rows: list[list[Any]], files: Mapping[str, bytes]) -> Snapshot:
    """Return a snapshot whose manifest has these rows, and the contents of `files`."""
    manifest = RawManifest(json.dumps({"version": 1, "entries": rows}).encode())
    contents = {sha256(data): data for data in files.values()}
    return Snapshot(manifest, contents | {manifest.digest: manifest.data})


def submit_project(
    lab: Lab,
    made: Snapshot,
    start: tuple[str, str] = ("script", "main.py"),
    *,
    pack: bytes | None = None,
    has_pack: bool = True,
    directory: str = ".",
    import_path: tuple[str, ...] = (),
    programs: tuple[str, ...] = (),
    compiled: tuple[tuple[str, str], ...] = (),
    code: str = "pass",
    **fields: Any,
) -> Job:
    """Submit a job with a project. `pack` is what travels, by default all that the snapshot has."""
    project = Project(
        digest=made.manifest.digest,
        root="/project",
        directory=directory,
        import_path=import_path,
        programs=programs,
        compiled=compiled,
    )
    request = lab.request(code, **fields)
    request = dataclasses.replace(
        request, spec=request.spec.model_copy(update={"project": project})
    )
    spec, nonce = request.spec, secrets.token_hex(8)
    with History() as history:
        keys = request_keys(spec)
        payload = json.loads(gzip.decompress(request.payload(spec, keys, nonce)))
        payload["start"] = dict(zip(("kind", "name"), start, strict=True))
        job = Job(
            id=new_job_id(request.name),
            name=request.name,
            backend=lab.backend.name,
            scope=spec.scope,
            state=JobState.QUEUED,
            submitted_at=time.time(),
            request_hash=keys.request,
        )
        public = spec.model_dump_json()
        history.add(job, public, nonce)
        path = None
        if has_pack:
            path = job_dir(job.id) / "pack"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made.pack() if pack is None else pack)
        delivery = Delivery(
            job.id,
            spec,
            runner_source(spec),
            nonce,
            gzip.compress(json.dumps(payload).encode()),
            public.encode(),
            keys.request,
            project=ProjectDelivery(made.manifest.digest, path),
        )
        lab.backend.submit(delivery, lambda *_: None)
        if path is not None:
            path.unlink()
    return job


def run_project(lab: Lab, made: Snapshot, *args: Any, **options: Any) -> Outcome:
    return lab.finish(submit_project(lab, made, *args, **options))
