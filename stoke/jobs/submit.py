"""Submit a prepared request to its backend."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stoke.backend.api import (
    Backend,
    BusyError,
    Cause,
    Delivery,
    ImagePullError,
    PhaseReport,
    UnsettledSubmitError,
)
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
from stoke.jobs.submit_lock import submitting
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
    began = time.monotonic()
    job, delivery = _make_job(prepared, queue.placement if queue else None)
    has_retries = prepared.request.spec.retries > 0
    with submitting(job.id):
        delivery = _record(prepared, job, delivery, history)
        waits = False
        try:
            if queue is None:
                _hand_over(delivery, prepared.backend, history, report)
            else:
                waits = not _hand_over_or_wait(delivery, prepared.backend, history, report, queue)
        except StokeError:
            if not (has_retries and _runs_again(job.id, history)):
                raise
        finally:
            if not waits and delivery.project is not None:
                delivery.project.remove_pack()
    _log.debug("submit %s: ends after %.3f s", job.id, time.monotonic() - began)
    if queue is not None or has_retries or prepared.request.spec.notify:
        from stoke.jobs.scheduler_process import wake_scheduler

        wake_scheduler(history)
    submitted = history.get(job.id)
    assert submitted is not None
    return submitted


def enqueue(
    prepared: PreparedRequest,
    history: History,
    placement: Placement,
    also: Callable[[Job], None] = lambda job: None,
) -> Job:
    """Put a job into the queue and return its record. The caller wakes the scheduler.

    `also` writes more into the history, in the same transaction.
    """
    from stoke.delivery.stored_delivery import drop_delivery

    job, delivery = _make_job(prepared, placement)

    def within(delivery: Delivery) -> None:
        _enqueue(delivery, placement, prepared.backend, history)
        also(job)

    try:
        with submitting(job.id):
            try:
                _record(prepared, job, delivery, history, within)
            except BaseException:
                drop_delivery(job.id)  # It holds secrets.
                raise
    except BaseException:
        with suppress(OSError):
            job_dir(job.id).rmdir()  # The history does not know the job.
        raise
    return job


def _make_job(prepared: PreparedRequest, placement: Placement | None) -> tuple[Job, Delivery]:
    """Return the record of a new job, and its delivery without the project. Writes nothing."""
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
        schedule=request.schedule,
    )
    public_spec = spec.model_dump_json()
    delivery = Delivery(
        job.id,
        spec,
        runner_source(spec, follows=placement is not None and bool(placement.after)),
        nonce,
        payload,
        public_spec.encode(),
        prepared.keys.request,
        renews=request.upgrade or request.compile_bytecode,
    )
    _log.debug(
        "submit %s to %s: scope %s, predicted %s, payload of %d bytes after %.3f s",
        job.id, backend.name, job.scope, job.predicted, len(payload), time.monotonic() - began,
    )  # fmt: skip
    return job, delivery


def _record(
    prepared: PreparedRequest,
    job: Job,
    delivery: Delivery,
    history: History,
    within: Callable[[Delivery], None] | None = None,
) -> Delivery:
    """Add a job to the history, and return its delivery with the project.

    `within` is called in the transaction that adds the job.
    """
    project = None
    try:
        project = _store_snapshot(prepared, job.id)
        delivery = replace(delivery, project=project)
        if prepared.request.spec.retries:
            from stoke.jobs.attempts import keep_for_retry

            keep_for_retry(_with_environment(delivery, prepared.backend))
        with nullcontext() if within is None else history.transaction():
            _add(prepared, job, delivery, history)
            if within is not None:
                within(delivery)
    except BaseException:
        if project is not None:
            project.remove_pack()
        raise
    return delivery


def _add(prepared: PreparedRequest, job: Job, delivery: Delivery, history: History) -> None:
    spec = prepared.request.spec
    history.add(job, delivery.public_spec.decode(), delivery.nonce)
    if spec.retries:
        from stoke.history.attempts import Attempts

        Attempts(history).add(job.id, job.id, 1)
    if spec.notify:
        from stoke.history.notifications import Notifications

        Notifications(history).add(job.id)
    if prepared.snapshot is not None:
        for text, hint in prepared.snapshot.notes:
            history.add_note(job.id, Note("note", text, hint))
    if prepared.workspace_note is not None:
        history.add_note(job.id, Note("note", prepared.workspace_note, None))
    if spec.workspace is not None:
        from stoke.history.workspace_index import WorkspaceIndex

        WorkspaceIndex(history).record_use(job.backend, spec.workspace, job.submitted_at)
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
        note_cause(job_id, error, history)
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
    from stoke.delivery.stored_delivery import drop_delivery
    from stoke.jobs.turns import starting

    with starting(delivery.job_id, delivery.spec.scope, backend, queue, history) as starts:
        try:
            if starts:
                _hand_over(delivery, backend, history, report, can_wait=True)
                return True
        except BusyError:
            pass
    try:
        _enqueue(delivery, queue.placement, backend, history)
    except BaseException:
        record_failure(history, delivery.job_id, "it could not be put into the queue")
        drop_delivery(delivery.job_id)  # It holds secrets.
        if delivery.project is not None:
            delivery.project.remove_pack()
        raise
    return False


def _enqueue(delivery: Delivery, placement: Placement, backend: Backend, history: History) -> None:
    """Store a job's delivery and put the job into the queue."""
    from stoke.delivery.stored_delivery import store_delivery
    from stoke.history.queue import PAUSED, JobQueue

    try:
        store_delivery(_with_environment(delivery, backend))
    except OSError as error:
        raise cannot_save(job_dir(delivery.job_id), error) from error
    queue = JobQueue(history)
    queue.add(delivery.job_id, placement)
    if backend.name in queue.paused():
        history.update(delivery.job_id, reason=PAUSED)  # No scheduler may run to record it.


def _with_environment(delivery: Delivery, backend: Backend) -> Delivery:
    """Return the delivery for a later start: a job on this machine has the environment of now."""
    here = backend.capabilities.caches_here
    return replace(delivery, environment=dict(os.environ)) if here else delivery


def _runs_again(job_id: str, history: History) -> bool:
    """Return whether a job that its engine did not take has another attempt."""
    from stoke.jobs.attempts import decide

    attempt = decide(job_id, history)
    return attempt is not None and bool(attempt.next)


def note_cause(job_id: str, error: StokeError, history: History) -> None:
    """Record the cause of a failed submission, if it is not the fault of the request."""
    if isinstance(error, ImagePullError):
        from stoke.history.attempts import Attempts

        with suppress(EngineError):
            Attempts(history).set_cause(job_id, Cause.IMAGE_PULL)


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
