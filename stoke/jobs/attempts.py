"""Run a job again if it ended for a reason that is not its code's, or as its request names.

Each attempt is a job of its own: it has its own record, log, phases and exit code, and every command
and screen shows it as it shows any job. So it is on Argo too, and no `retryStrategy`: here the pods of
one Workflow share a log and phases, and Argo does not know these causes. What an attempt was submitted
with is kept in the folder of its job until it is decided whether there is another one.

Any process that sees the end of a job may decide; the first one does. The next attempt waits in the
queue, so the scheduler starts it also when every other program has ended.
"""

from __future__ import annotations

import gzip
import json
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from stoke.backend.api import Cause, Delivery
from stoke.backend.causes import CAUSE_TEXTS
from stoke.delivery.stored_delivery import (
    FOR_RETRY,
    drop_delivery,
    load_delivery,
    store_delivery,
)
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.debug import Logger
from stoke.files.paths import job_dir, make_private
from stoke.history.attempts import NONE, Attempt, Attempts
from stoke.history.database import History, Note
from stoke.history.job import Job, JobState
from stoke.history.notifications import Notifications
from stoke.history.queue import JobQueue, Placement
from stoke.jobs.inputs import inputs_file
from stoke.logs.spool import cannot_save
from stoke.project.pack import ProjectDelivery
from stoke.request.stored import read_stored_spec

_log = Logger(__name__)

MOST_DELAY = 300.0
"""The longest pause before an attempt, in seconds."""
_PACK = "retry-pack"
_INPUTS = "retry-inputs"


class _StoppedError(Exception):
    """A job was stopped while its next attempt was made."""


def pause_before(number: int, first_delay: float) -> float:
    """Return the seconds before an attempt; number 2 is the first retry."""
    return min(first_delay * 2.0 ** min(number - 2, 30), MOST_DELAY)


# ---------------------------------------------------------------------------- what an attempt keeps


def keep_for_retry(delivery: Delivery) -> None:
    """Keep what another attempt of a job needs. Raises `EngineError` if that cannot be written."""
    folder = make_private(job_dir(delivery.job_id))
    try:
        project = delivery.project
        if project is not None and project.pack is not None:
            _link(project.pack, folder / _PACK)
            delivery = replace(delivery, project=replace(project, pack=folder / _PACK))
        store_delivery(delivery, FOR_RETRY)
    except OSError as error:
        raise cannot_save(folder, error) from error


def keep_inputs(job_id: str, inputs: Path | None) -> None:
    """Keep the results that a job with retries gets of others for its next attempts."""
    if inputs is not None and (job_dir(job_id) / FOR_RETRY).exists():
        _link(inputs, job_dir(job_id) / _INPUTS)


def _drop_kept(job_id: str) -> None:
    drop_delivery(job_id, FOR_RETRY)
    for name in (_PACK, _INPUTS):
        (job_dir(job_id) / name).unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        copyfile(source, target)  # Another file system, or one without hard links.


# ---------------------------------------------------------------------------- whether there is one


def why_again(job: Job, attempt: Attempt, retry_exit: tuple[int, ...]) -> str | None:
    """Return why an ended job is run again, or None."""
    if job.stop_requested or job.state is JobState.SUCCEEDED:
        return None
    if attempt.cause in CAUSE_TEXTS:
        return CAUSE_TEXTS[Cause(attempt.cause)]
    if job.state is JobState.FAILED and job.exit_code in retry_exit:
        return f"exit code {job.exit_code} is among --retry-exit"
    return None


def give_up(job_id: str, history: History) -> None:
    """Decide that there is no further attempt of a job, if it has retries."""
    if Attempts(history).decide(job_id, NONE):
        _drop_kept(job_id)


def decide(job_id: str, history: History) -> Attempt | None:
    """Decide whether an ended job is run again, and put the next attempt into the queue; once.

    Returns its record with the decision; None for a job without retries, or whose end is not final.
    """
    attempts = Attempts(history)
    attempt = attempts.of(job_id)
    if attempt is None or attempt.next is not None:
        return attempt
    job = history.get(job_id)
    if job is None or not job.state.finished or job.provisional:
        return None
    try:
        spec = read_stored_spec(history.spec(job_id))
    except RequestError:
        why = None  # Its record is damaged.
    else:
        why = why_again(job, attempt, spec.retry_exit)
    if why is None or attempt.number > spec.retries:
        give_up(job_id, history)
        return attempts.of(job_id)
    try:
        _add_attempt(job, attempt, why, history)
    except StokeError as error:
        _log.debug("%s: no further attempt: %s", job_id, error.what)
        history.add_note(job_id, Note("error", f"it is not run again: {error.what}", error.hint))
        give_up(job_id, history)
    return attempts.of(job_id)


def _add_attempt(job: Job, attempt: Attempt, why: str, history: History) -> None:
    from stoke.config.loader import load_config
    from stoke.jobs.scheduler_process import wake_scheduler
    from stoke.jobs.submit_lock import submitting

    number = attempt.number + 1
    # The id of a task is that of its sweep with a number, and the Argo backend tells them by that.
    new_id = f"{attempt.first}-r{number}"
    with submitting(new_id):  # Two processes may have seen the end.
        if (decided := Attempts(history).of(job.id)) is None or decided.next is not None:
            return
        delivery = _for_attempt(load_delivery(job.id, FOR_RETRY), job.id, new_id)
        again = Job(
            id=new_id,
            name=job.name,
            backend=job.backend,
            scope=job.scope,
            state=JobState.QUEUED,
            submitted_at=time.time(),
            image=job.image,
            request_hash=job.request_hash,
            python_hash=job.python_hash,
            system_hash=job.system_hash,
            predicted=job.predicted,
            checkpoint=job.checkpoint,
            schedule=job.schedule,
        )
        starts_at = time.time() + pause_before(number, load_config().queue.retry_delay)
        try:
            store_delivery(delivery)
            keep_for_retry(delivery)
            with history.transaction():
                if not Attempts(history).decide(job.id, new_id, why):
                    raise _StoppedError  # In the meantime.
                history.add(again, delivery.public_spec.decode(), delivery.nonce)
                Attempts(history).add(new_id, attempt.first, number)
                Notifications(history).pass_on(job.id, new_id)
                JobQueue(history).add(new_id, Placement(), starts_at)
        except BaseException as error:
            drop_delivery(new_id)  # It holds secrets.
            _drop_kept(new_id)
            if delivery.project is not None:
                delivery.project.remove_pack()
            if isinstance(error, _StoppedError):
                return
            if isinstance(error, OSError):
                raise cannot_save(job_dir(new_id), error) from error
            raise
        _drop_kept(job.id)
    _log.debug("%s: %s, so %s is attempt %d", job.id, why, new_id, number)
    wake_scheduler(history)


def _for_attempt(delivery: Delivery, old_id: str, new_id: str) -> Delivery:
    """Return the delivery of another attempt, with an id and a nonce of its own."""
    nonce = secrets.token_hex(8)
    payload = {**json.loads(gzip.decompress(delivery.payload)), "nonce": nonce}
    project = delivery.project
    make_private(job_dir(new_id))
    try:
        if project is not None and project.pack is not None:
            from stoke.jobs.snapshot_delivery import pack_file

            pack = pack_file(new_id)
            _link(project.pack, pack)
            project = ProjectDelivery(project.digest, pack)
        if project is not None:
            from stoke.project.manifest_store import share_manifest

            share_manifest(old_id, new_id)
        kept = job_dir(old_id) / _INPUTS
        if kept.exists():
            _link(kept, inputs_file(new_id))
    except OSError as error:
        raise EngineError(
            f"what it was submitted with cannot be read: {error.filename}: {error.strerror}"
        ) from error
    return replace(
        delivery,
        job_id=new_id,
        nonce=nonce,
        payload=gzip.compress(json.dumps(payload).encode(), 6, mtime=0),
        project=project,
    )
