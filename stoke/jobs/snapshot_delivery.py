"""The snapshot of a project on its way into a job."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.backend.api import Backend
from stoke.backend.capabilities import StoresProjects
from stoke.delivery.stored_delivery import delivery_file
from stoke.files.debug import Logger
from stoke.files.paths import make_private, state_dir
from stoke.jobs.request import Request
from stoke.jobs.submit_lock import is_being_submitted
from stoke.project import stored_contents
from stoke.project.contents import ChangingError, changing, read_file, unreadable
from stoke.project.listing import ProjectListing, TooLargeError
from stoke.project.local_modules import imports_any
from stoke.project.manifest_store import read_manifest
from stoke.project.pack import Content, ProjectDelivery, WrongContentError, of_bytes, write_pack
from stoke.project.snapshot import Snapshot, check_available, recorded_snapshot, take_snapshot
from stoke.request.spec import JobSpec, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

_log = Logger(__name__)

MOST_FILES = 10_000
"""Of a project that travels with code that may not need it: more take seconds at each run."""


def with_snapshot(request: Request, backend: Backend | None) -> tuple[Request, Snapshot | None]:
    """Take the snapshot of a request's project, or find the recorded one; return it, and the request
    that names it. Raises `RequestError`.

    None if the project is too large and the request does not need it; the request then has no project,
    and a note. Without a backend, no cache volume has anything of it.
    """
    spec = request.spec
    project = spec.project
    assert project is not None
    began = time.monotonic()
    if project.digest is None:
        files = request.project_files or _virtual_files(spec, project)
        most = None if _needs_files(request, project) else MOST_FILES
        try:
            snapshot = take_snapshot(project, spec.code, request.max_project, files, most)
        except TooLargeError as error:
            if most is None:
                raise
            return _without_project(request, project, error), None
    else:
        snapshot = recorded_snapshot(project, spec.code)
        check_available(snapshot, known_contents(spec, backend))
    recorded = snapshot.record(project)
    _log.debug(
        "snapshot %s: %d files, %d bytes after %.3f s",
        recorded.digest, recorded.files, recorded.bytes, time.monotonic() - began,
    )  # fmt: skip
    spec = spec.model_copy(update={"project": recorded})
    return replace(request, spec=spec), snapshot


def fits(listing: ProjectListing, request: Request) -> bool:
    """Return whether the files of the request's project would travel. Raises `RequestError` if the
    request would be refused because of their size."""
    project = request.spec.project
    assert project is not None
    try:
        listing.check_size(request.max_project)
    except TooLargeError:
        if _needs_files(request, project):
            raise
        return False
    return len(listing.sizes()) <= MOST_FILES or _needs_files(request, project)


def _needs_files(request: Request, project: Project) -> bool:
    places = (project.directory, *project.import_path)
    folders = [os.path.join(project.root, place) for place in places]
    return request.needs_project or imports_any(folders, request.spec.code)


def _without_project(request: Request, project: Project, error: TooLargeError) -> Request:
    option = f"--folder {shlex.quote(project.root)}"
    note = (
        f"the project is too large to travel with a line of code ({error.summary}), which runs "
        f"without it; send it: {option}"
    )
    return replace(
        request,
        spec=request.spec.model_copy(update={"project": None}),
        notes=(*request.notes, note),
        project_files={},
    )


def known_contents(spec: JobSpec, backend: Backend | None) -> set[str]:
    """Return what the job's cache volume is known to have."""
    volume = _volume(backend, spec.scope)
    if backend is None or volume is None or not spec.use_cache:
        return set()
    return stored_contents.read_stored(backend.name, spec.scope, volume)


def pack_file(job_id: str) -> Path:
    """Return the path of a job's pack, which exists until its engine has the job. Remove the packs
    whose submitting process was killed."""
    folder = make_private(state_dir() / "projects" / "packs")
    for name in os.listdir(folder):
        # One that is not finished is called .JOB.PID.new, and no job's id has a dot.
        job = name.lstrip(".").partition(".")[0]
        if not is_being_submitted(job) and not delivery_file(job).exists():
            (folder / name).unlink(missing_ok=True)
    return folder / job_id


def make_delivery(snapshot: Snapshot, known: Set[str], path: Path) -> ProjectDelivery:
    """Write the pack of a job to a path; return what the backend delivers. `known` is what the job's
    cache volume has.

    Raises `RequestError` if a file changed since the snapshot was taken, and `EngineError` if the pack
    cannot be written.
    """
    manifest = snapshot.manifest
    missing = {sha256: size for sha256, size in manifest.contents().items() if sha256 not in known}
    if not missing:
        return ProjectDelivery(manifest.digest, None)
    contents: dict[str, tuple[int, Content]] = {}
    for sha256, size in missing.items():
        data = manifest.data if sha256 == manifest.digest else snapshot.virtual.get(sha256)
        content = _of_file(snapshot, sha256) if data is None else of_bytes(data)
        contents[sha256] = (size, content)
    try:
        write_pack(path, contents)
    except WrongContentError as error:
        raise changing(snapshot.paths[error.sha256]) from None
    return ProjectDelivery(manifest.digest, path)


def remember_stored(digest: str, scope: str, backend: Backend) -> None:
    """Record that the cache volume of a scope has all contents of a snapshot."""
    volume = _volume(backend, scope)
    if volume is None:
        return
    known = stored_contents.read_stored(backend.name, scope, volume)
    manifest = None if digest in known else read_manifest(digest)
    if manifest is not None:
        new = manifest.contents().keys() - known
        stored_contents.add_stored(backend.name, scope, volume, sorted(new))


def _virtual_files(spec: JobSpec, project: Project) -> Mapping[str, bytes]:
    """Return the files that make a project look installed, for a request from JSON or from an earlier
    job."""
    if not (project.import_path or project.programs):
        return {}
    from stoke.project.choices import ProjectOptions
    from stoke.project.request_additions import environment_for_request

    start = os.path.dirname(project.script) if project.script else project.directory
    folder = os.path.normpath(os.path.join(project.root, start))
    fields = {"code": spec.code, "dependencies": spec.dependencies}
    return environment_for_request(fields, project.root, folder, ProjectOptions()).extra_files


def _volume(backend: Backend | None, scope: str) -> str | None:
    return backend.project_store(scope) if isinstance(backend, StoresProjects) else None


def _of_file(snapshot: Snapshot, sha256: str) -> Content:
    path = snapshot.paths[sha256]

    def content(write: Callable[[bytes], object]) -> str:
        try:
            return read_file(snapshot.root, path, write)[0]
        except ChangingError:
            raise changing(path) from None
        except OSError as error:
            raise unreadable(path, error) from None

    return content
