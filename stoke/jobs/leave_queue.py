"""Take jobs out of the queue that will not start."""

from __future__ import annotations

import time
from contextlib import suppress

from stoke.delivery.stored_delivery import drop_delivery, load_delivery
from stoke.errors import StokeError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.history.queue import JobQueue
from stoke.history.sweeps import Sweeps
from stoke.jobs.attempts import give_up
from stoke.jobs.inputs import inputs_file
from stoke.jobs.submit_lock import submitting


def leave_queue(job_id: str, history: History) -> bool:
    """Stop a job that waits in the queue. Return False if it has just been started."""
    queue = JobQueue(history)
    with submitting(job_id):  # Waits if the scheduler is just starting the job.
        if not queue.has(job_id):
            return False
        history.update(job_id, stop_requested=True)
        never_started(job_id, "it was stopped while it waited in the queue", history)
    return True


def never_started(job_id: str, why: str, history: History) -> None:
    """End a queued job that will not start. The caller holds its submit lock."""
    history.update(
        job_id, state=JobState.STOPPED, reason=f"never started: {why}", finished_at=time.time()
    )
    JobQueue(history).remove(job_id)
    Sweeps(history).close(job_id, why)
    with suppress(StokeError):
        project = load_delivery(job_id).project
        if project is not None:
            project.remove_pack()
    drop_delivery(job_id)
    inputs_file(job_id).unlink(missing_ok=True)
    give_up(job_id, history)
