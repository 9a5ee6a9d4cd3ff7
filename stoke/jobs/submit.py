"""Submit a prepared request to its backend."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.backend.api import Backend, Delivery, PhaseReport, UnsettledSubmitError
from stoke.backend.capabilities import SharesNetwork
from stoke.delivery.checkpoints import checkpoint_name
from stoke.delivery.network import NOTHING, Network, this_network
from stoke.delivery.payload import runner_source
from stoke.errors import EngineError, StokeError
from stoke.files.debug import Logger
from stoke.files.file_lock import take_lock
from stoke.files.paths import job_dir, make_private
from stoke.history.database import History, Note
from stoke.history.job import Job, JobState, Phase, new_job_id
from stoke.jobs.prepare import PreparedRequest
from stoke.jobs.submit_lock import submit_locks
from stoke.logs.spool import cannot_save
from stoke.request.spec import JobSpec

if TYPE_CHECKING:
    from stoke.project.pack import ProjectDelivery

_log = Logger(__name__)


def submit(
    prepared: PreparedRequest,
    history: History,
    report: PhaseReport = lambda name, start, seconds: None,
) -> Job:
    """Submit a job and return its record; the job continues without this process.

    The job is in the history before the engine knows it, and the submit lock is held until the
    engine has it. If this process dies in between, another stoke process can tell what happened.
    """
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
    lock_file, lock = _submit_lock(job.id)
    project = None
    try:
        project = _store_snapshot(prepared, job.id)
        history.add(job, public_spec, nonce)
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

        def reported(name: str, start: float, seconds: float | None) -> None:
            # A history on a full disk does not make the submission fail.
            with suppress(EngineError):
                history.set_phase(job.id, Phase(name, start, seconds))
            if seconds is not None:
                _log.debug("submit %s: phase %s took %.3f s", job.id, name, seconds)
            report(name, start, seconds)

        delivery = Delivery(
            job.id,
            spec,
            runner_source(spec),
            nonce,
            payload,
            public_spec.encode(),
            prepared.keys.request,
            renews=request.upgrade or request.compile_bytecode,
            project=project,
        )
        try:
            backend.submit(delivery, reported)
        except UnsettledSubmitError as error:
            # The next refresh asks the engine.
            _log.debug("submit %s: %s is unsettled: %s", job.id, backend.name, error)
            with suppress(EngineError):
                history.update(job.id, reason=error.what)
            error.job_id = job.id
            raise
        except StokeError as error:
            _log.debug("submit %s: %s failed: %s", job.id, backend.name, error)
            _record_failure(history, job.id, error.what)
            error.job_id = job.id
            raise
        except BaseException:
            # ctrl+c during the submission: remove what the engine has of the job.
            _record_failure(history, job.id, "interrupted while it was submitted")
            with suppress(EngineError):  # A later listing removes it.
                backend.remove(job.id)
            raise
        _log.debug(
            "submit %s: %s has the job after %.3f s", job.id, backend.name, time.monotonic() - began
        )
        with suppress(EngineError):  # The job runs, whether or not its state can be recorded now.
            history.update(job.id, state=JobState.STARTING)
    finally:
        if project is not None and project.pack is not None:
            project.pack.unlink(missing_ok=True)
        try:
            lock_file.unlink()
        except OSError:
            pass  # Closing the descriptor releases the lock; the file does not matter.
        os.close(lock)
    submitted = history.get(job.id)
    assert submitted is not None
    return submitted


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


def _submit_lock(job_id: str) -> tuple[Path, int]:
    """Take the submit lock; return its file and the descriptor that holds it until it is closed."""
    usual, spare = submit_locks(job_id)
    try:
        make_private(usual.parent)
        path, lock = usual, take_lock(usual, wait=True)
    except (OSError, EngineError):
        try:
            path, lock = spare, take_lock(spare, wait=True)
        except OSError as error:
            raise cannot_save(usual.parent, error) from error
    assert lock is not None
    return path, lock


def _record_failure(history: History, job_id: str, reason: str) -> None:
    with suppress(EngineError):  # The caller raises the first error, which says more.
        history.update(
            job_id, state=JobState.FAILED, exit_code=125, reason=reason, finished_at=time.time()
        )
