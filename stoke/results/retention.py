"""Remove collected results by age and total size: those of the jobs that finished first go first.

The newest results stay, however large they are, so that they can be used once their job has ended.
"""

from __future__ import annotations

import os
import time

from stoke.history.database import History
from stoke.history.job import Job
from stoke.results.store import jobs_with_results, remove_results, take_results_lock
from stoke.text.units import human_bytes, human_seconds


def enforce_results_budget(max_bytes: int, max_age: float | None, history: History) -> list[str]:
    """Remove results older than `max_age` seconds, then the oldest until the rest takes `max_bytes`.

    Returns the ids of the jobs whose results were removed.
    """
    jobs = [job for job in history.those(jobs_with_results()) if job.state.finished]
    jobs.sort(key=lambda job: job.finished_at or job.submitted_at)
    total = sum(job.results_bytes for job in jobs)
    removed = []
    for job in jobs[:-1]:
        age = time.time() - (job.finished_at or job.submitted_at)
        if max_age is not None and age > max_age:
            why = f"older than {human_seconds(max_age)} (results.keep)"
        elif total > max_bytes:
            why = f"to keep all results within {human_bytes(max_bytes)} (results.keep_max)"
        else:
            continue
        if forget(job.id, why):
            removed.append(job.id)
            total -= job.results_bytes
    return removed


def older_than(seconds: float | None, history: History) -> list[Job]:
    """Return the jobs with results on this machine that ended `seconds` ago or earlier (None: all)."""
    horizon = time.time() - (seconds or 0.0)
    return [
        job
        for job in history.those(jobs_with_results())
        if seconds is None or (job.finished_at or job.submitted_at) < horizon
    ]


def forget(job_id: str, why: str) -> bool:
    """Remove the results of one job; return False if a process collects them, or the disk refuses."""
    try:
        lock = take_results_lock(job_id, wait=False)
    except OSError:
        return False
    if lock is None:
        return False
    try:
        remove_results(job_id, why)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
