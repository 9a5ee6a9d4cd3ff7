"""The phase "project": receive what the cache volume lacks, and copy the project for the job."""

from __future__ import annotations

import contextlib
import fcntl
import os

from stoke.remote.protocol import HintCode, JobFolder, PythonLayout
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.files import cache_trouble
from stoke.remote.runner.project_copy import UnusableCopyError, take_copy
from stoke.remote.runner.project_tree import ProjectTree
from stoke.remote.runner.snapshot_store import SnapshotStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.event_writer import PhaseReporter
    from stoke.remote.runner.job import RemoteJob
    from stoke.remote.schema import ProjectPayload


def prepare_project(job: RemoteJob, phase: PhaseReporter, project: ProjectPayload) -> str:
    """Return the folder of the job's own copy of its project."""
    try:
        return _prepare(job, phase, project, job.cache)
    except OSError as error:
        why = cache_trouble(error, job.cache)
        is_private = job.cache == job.private_cache
        if why is None or is_private or job.payload["on_cache_trouble"] == "fail":
            raise
    # What the cache has already can still be read from it, packages too.
    job.events.note("the project's new files are not cached: " + why)
    os.makedirs(job.private_cache, exist_ok=True)
    return _prepare(job, phase, project, job.private_cache)


def _prepare(job: RemoteJob, phase: PhaseReporter, project: ProjectPayload, cache: str) -> str:
    store = SnapshotStore(cache, job.cache, job.termination)
    with _shared_lock(job):
        received = store.receive(job.pack) if job.pack else 0
        phase.facts.update(hit=not received, bytes=received)
        if cache != job.private_cache:
            phase.facts["key"] = project["digest"]  # Later jobs find its contents there.
        manifest = store.manifest(project["digest"])
        tree = None
        if manifest is not None:
            keeps_copy = job.keep_copy and cache == job.cache != job.private_cache
            name = project["copy"] if keeps_copy else None
            tree = _make_tree(job, store, name, manifest)
            job.manifest = manifest
            phase.facts["files"] = tree.files
    if tree is None or tree.missing:
        which = "%d of %d files" % (len(tree.missing), tree.files) if tree else "all files"
        raise PhaseError(
            "%s of the project are no longer in the cache" % which, (HintCode.SEND_AGAIN,)
        )
    os.makedirs(tree.inside(project["directory"]), exist_ok=True)
    if job.pack:
        os.unlink(job.pack)
    return tree.folder


def _make_tree(
    job: RemoteJob, store: SnapshotStore, name: str | None, manifest: bytes
) -> ProjectTree:
    """Make the job's own copy. With a name, it is one of an earlier job that is brought up to date."""
    copy = take_copy(job.cache, name, store.make_folder) if name else None
    if copy is not None:
        tree = ProjectTree(copy.folder, store, job.termination, copy)
        try:
            tree.make(manifest)
            job.copy = copy
            return tree
        except UnusableCopyError:
            copy.give_up()
        except BaseException:
            copy.give_up()
            raise
    tree = ProjectTree(os.path.join(job.work, JobFolder.PROJECT), store, job.termination)
    tree.make(manifest)
    return tree


def _shared_lock(job: RemoteJob) -> contextlib.AbstractContextManager[object]:
    """Keep housekeeping from removing contents while the job takes its own."""
    try:
        lock = FileLock(job.path(PythonLayout.SNAPSHOT_LOCK))
    except OSError:  # on a full or read-only volume, where nothing is written either
        return contextlib.nullcontext()
    lock.acquire(fcntl.LOCK_SH, lambda: job.events.note("the cache is being pruned; waiting"))
    return lock
