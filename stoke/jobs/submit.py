"""Submit a prepared request to its backend."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stoke.backend.api import Backend, BusyError, Delivery, PhaseReport, UnsettledSubmitError
from stoke.backend.capabilities import SharesNetwork
from stoke.delivery.checkpoints import checkpoint_name
from stoke.delivery.network import NOTHING, Network, this_network
from stoke.delivery.payload import runner_source
from stoke.errors import EngineError, StokeError
from stoke.files.debug import Logger
from stoke.files.paths import job_dir, make_private
from stoke.history.database import History, Note
from stoke.history.job import Job, JobState, Phase, new_job_id
from stoke.jobs.prepare import PreparedRequest
from stoke.jobs.submit_lock import SubmitLock, submitting
from stoke.logs.spool import cannot_save
from stoke.request.spec import JobSpec

if TYPE_CHECKING:
    from stoke.history.queue import Placement
    from stoke.jobs.turns import Turn
    from stoke.project.pack import ProjectDelivery

_log = Logger(__name__)


def submit(
    prepared: PreparedRequest,
    history: History,
    report: PhaseReport = lambda name, start, seconds: None,
    queue: Turn | None = None,
) -> Job:
    """Submit a job and return its record; the job continues without this process.

    The job is in the history before the engine knows it, and the submit lock is held until the
    engine has it. If this process dies in between, another stoke process can tell what happened.
    With `queue`, a job that has to wait is stored instead, and the scheduler hands it to the engine
    when its turn comes (`stoke.jobs.scheduler`).
    """
    backend = prepared.backend
    began = time.monotonic()
    new = _new_job(prepared)
    job = new.job
    with submitting(job.id):
        project = _store_snapshot(prepared, job.id)
        waits = False
        try:
            _record(prepared, job, new.public_spec, new.nonce, history)
            delivery = new.delivery(project)
            if queue is None:
                _hand_over(delivery, backend, history, report)
            else:
                waits = not _hand_over_or_wait(delivery, backend, history, report, queue)
        finally:
            if not waits:
                remove_pack(project)
    _log.debug("submit %s: ends after %.3f s", job.id, time.monotonic() - began)
    if queue is not None:
        from stoke.jobs.scheduler_process import wake_scheduler

        wake_scheduler(history)
    submitted = history.get(job.id)
    assert submitted is not None
    return submitted


@dataclass(frozen=True)
class _NewJob:
    """A job that nothing knows yet, and what its engine will get."""

    prepared: PreparedRequest
    job: Job
    nonce: str
    payload: bytes
    public_spec: str
    runner: bytes

    def delivery(self, project: ProjectDelivery | None) -> Delivery:
        request = self.prepared.request
        return Delivery(
            self.job.id,
            request.spec,
            self.runner,
            self.nonce,
            self.payload,
            self.public_spec.encode(),
            self.prepared.keys.request,
            renews=request.upgrade or request.compile_bytecode,
            project=project,
        )


def _new_job(prepared: PreparedRequest) -> _NewJob:
    request, backend, spec = prepared.request, prepared.backend, prepared.request.spec
    began = time.monotonic()
    nonce = secrets.token_hex(8)
    job_id = new_job_id(request.name)
    checkpoint = checkpoint_name(request.name, job_id, request.checkpoint)
    payload = request.payload(
        spec, prepared.keys, nonce, network_for(spec, backend), checkpoint=checkpoint
    )
    job = Job(
        id=job_id,
        name=request.name,
        backend=backend.name,
        scope=spec.scope,
        state=JobState.QUEUED,
        submitted_at=time.time(),
        image=spec.image,
        request_hash=prepared.keys.request,
        python_hash=prepared.keys.python,
        system_hash=prepared.keys.system,
        predicted=prepared.prediction,
        checkpoint=checkpoint,
    )
    public_spec = spec.model_dump_json()
    _log.debug(
        "submit %s to %s: scope %s, predicted %s, payload of %d bytes after %.3f s",
        job.id, backend.name, job.scope, job.predicted, len(payload), time.monotonic() - began,
    )  # fmt: skip
    return _NewJob(prepared, job, nonce, payload, public_spec, runner_source(spec))


@dataclass(frozen=True)
class RecordedJob:
    """A job that is in the history and that its engine does not know yet; `deliver` submits it."""

    job: Job
    delivery: Delivery
    backend: Backend
    lock: SubmitLock


def record(
    prepared: PreparedRequest,
    history: History,
    take_lock: Callable[[str], SubmitLock],
    also: Callable[[Job], None],
) -> RecordedJob:
    """Add a job to the history, under the submit lock that `take_lock` takes, for `deliver`.

    `also` writes more into the history, in the same transaction as the job.
    """
    new = _new_job(prepared)
    lock = take_lock(new.job.id)
    project = None
    try:
        project = _store_snapshot(prepared, new.job.id)
        with history.transaction():
            _record(prepared, new.job, new.public_spec, new.nonce, history)
            also(new.job)
    except BaseException:
        remove_pack(project)
        lock.release()
        raise
    return RecordedJob(new.job, new.delivery(project), prepared.backend, lock)


def deliver(recorded: RecordedJob, history: History) -> None:
    """Submit a recorded job to its engine, and release its submit lock."""
    try:
        _hand_over(recorded.delivery, recorded.backend, history, lambda name, start, seconds: None)
    finally:
        remove_pack(recorded.delivery.project)
        recorded.lock.release()


def _record(
    prepared: PreparedRequest, job: Job, public_spec: str, nonce: str, history: History
) -> None:
    """Add the job to the history, with the notes on its request and the packages that it names."""
    history.add(job, public_spec, nonce)
    if prepared.snapshot is not None:
        for text, hint in prepared.snapshot.notes:
            history.add_note(job.id, Note("note", text, hint))
    if prepared.workspace_note is not None:
        history.add_note(job.id, Note("note", prepared.workspace_note, None))
    workspace = prepared.request.spec.workspace
    if workspace is not None:
        from stoke.history.workspace_index import WorkspaceIndex

        WorkspaceIndex(history).record_use(job.backend, workspace, job.submitted_at)
    for kind, names in prepared.keys.packages.items():
        history.add_asked(prepared.keys.request, kind, names)


def _hand_over(
    delivery: Delivery,
    backend: Backend,
    history: History,
    report: PhaseReport,
    can_wait: bool = False,
) -> None:
    """Give the job to its engine, and record how that ended; with `can_wait`, no `BusyError`."""
    job_id = delivery.job_id
    try:
        backend.submit(delivery, recording(job_id, history, report))
    except UnsettledSubmitError as error:
        # The next refresh asks the engine.
        _log.debug("submit %s: %s is unsettled: %s", job_id, backend.name, error)
        with suppress(EngineError):
            history.update(job_id, reason=error.what)
        error.job_id = job_id
        raise
    except StokeError as error:
        if can_wait and isinstance(error, BusyError):
            raise
        _log.debug("submit %s: %s failed: %s", job_id, backend.name, error)
        record_failure(history, job_id, error.what)
        error.job_id = job_id
        raise
    except BaseException:
        # ctrl+c during the submission: remove what the engine has of the job.
        record_failure(history, job_id, "interrupted while it was submitted")
        with suppress(EngineError):  # A later listing removes it.
            backend.remove(job_id)
        raise
    with suppress(EngineError):  # The job runs, whether or not its state can be recorded now.
        history.update(job_id, state=JobState.STARTING)


def recording(job_id: str, history: History, report: PhaseReport) -> PhaseReport:
    """Return a report of phases that records them too."""

    def reported(name: str, start: float, seconds: float | None) -> None:
        # A history on a full disk does not make the submission fail.
        with suppress(EngineError):
            history.set_phase(job_id, Phase(name, start, seconds))
        if seconds is not None:
            _log.debug("submit %s: phase %s took %.3f s", job_id, name, seconds)
        report(name, start, seconds)

    return reported


def _hand_over_or_wait(
    delivery: Delivery, backend: Backend, history: History, report: PhaseReport, queue: Turn
) -> bool:
    """Give the job to its engine, or put it into the queue and return False."""
    from stoke.jobs.turns import starting

    with starting(delivery.job_id, backend, queue, history) as starts:
        try:
            if starts:
                _hand_over(delivery, backend, history, report, can_wait=True)
                return True
        except BusyError:
            pass
    _enqueue(delivery, queue.placement, backend, history)
    return False


def _enqueue(delivery: Delivery, placement: Placement, backend: Backend, history: History) -> None:
    """Store the job's delivery and put the job into the queue."""
    from stoke.delivery.stored_delivery import store_delivery
    from stoke.history.queue import JobQueue

    if backend.capabilities.caches_here:  # The job runs on this machine, with this environment.
        delivery = replace(delivery, environment=dict(os.environ))
    try:
        store_delivery(delivery)
        JobQueue(history).add(delivery.job_id, placement)
    except BaseException as error:
        record_failure(history, delivery.job_id, "it could not be put into the queue")
        remove_pack(delivery.project)
        if isinstance(error, OSError):
            raise cannot_save(job_dir(delivery.job_id), error) from error
        raise


def remove_pack(project: ProjectDelivery | None) -> None:
    """Delete the pack of a job that its engine has, or that failed."""
    if project is not None and project.pack is not None:
        project.pack.unlink(missing_ok=True)


def network_for(spec: JobSpec, backend: Backend) -> Network:
    """Return the network settings of this machine that the job needs: authorities and proxies.

    Proxies can hold passwords, so only jobs on this machine get them.
    """
    if not (spec.has_packages or spec.system or spec.python):
        return NOTHING  # The job downloads nothing.
    near = isinstance(backend, SharesNetwork) and backend.shares_network()
    return this_network(proxies=near)


def _store_snapshot(prepared: PreparedRequest, job_id: str) -> ProjectDelivery | None:
    """Store the project's manifest and write the pack that travels, before anything knows the job."""
    snapshot = prepared.snapshot
    if snapshot is None:
        return None
    from stoke.jobs.snapshot_delivery import known_contents, make_delivery, pack_file
    from stoke.project.manifest_store import release_manifest, save_manifest
    from stoke.remote.common.trees import remove_tree

    folder = make_private(job_dir(job_id))
    try:
        save_manifest(snapshot.manifest, snapshot.virtual, job_id)
        known = known_contents(prepared.request.spec, prepared.backend)
        return make_delivery(snapshot, known, pack_file(job_id))
    except BaseException as error:
        release_manifest(job_id)
        remove_tree(str(folder))
        if isinstance(error, OSError):
            raise cannot_save(folder, error) from error
        raise


def record_failure(history: History, job_id: str, reason: str) -> None:
    with suppress(EngineError):  # The caller raises the first error, which says more.
        history.update(
            job_id, state=JobState.FAILED, exit_code=125, reason=reason, finished_at=time.time()
        )
