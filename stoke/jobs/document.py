"""A job as JSON, as the commands and the HTTP API print it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stoke.errors import EngineError, RequestError
from stoke.history.job import SWEEP
from stoke.request.fields import masked_fields
from stoke.request.stored import read_stored_fields
from stoke.text.times import rfc3339

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job


def job_document(job: Job, history: History) -> dict[str, Any]:
    """Return a job as JSON: times in RFC 3339 (UTC), seconds, bytes, null for unknown."""
    from stoke.history.attempts import Attempts

    try:
        spec = masked_fields(read_stored_fields(history.spec(job.id)))
    except RequestError:
        spec = None  # There is none, or it is damaged.
    lines, size, gaps = log_size(job)
    return {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "backend": job.backend,
        "scope": job.scope,
        "state": str(job.state),
        "provisional": job.provisional,
        "stale": job.stale,
        "held_until": rfc3339(job.held_until) if job.held else None,
        "exit_code": job.exit_code,
        "reason": job.reason,
        "submitted_at": rfc3339(job.submitted_at),
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
        "seconds": None if job.seconds is None else round(job.seconds, 6),
        "cpu_seconds": job.cpu_seconds,
        "peak_memory": job.peak_memory,
        "phases": [phase.as_json() for phase in job.phases],
        "predicted": job.predicted.as_json(),
        "lock": _lock_document(job),
        "packages": {
            kind: {
                "cached": [name for name, cached in packages.items() if cached],
                "downloaded": [name for name, cached in packages.items() if not cached],
            }
            for kind, packages in history.packages(job.id).items()
        },
        "notes": [asdict(note) for note in history.notes(job.id)],
        "log": {"lines": lines, "bytes": size, "gaps": gaps},
        "results": {
            "files": job.results_files if job.results_at is not None else None,
            "bytes": job.results_bytes if job.results_at is not None else None,
            "collected_at": rfc3339(job.results_at),
            "problem": job.results_problem,
        },
        "attempts": [
            {
                "number": one.number,
                "job": one.job_id,
                "cause": one.cause,
                "next": one.next or None,
                "why": one.why,
            }
            for one in Attempts(history).all_of(job.id)
        ],
        "damage": job.damage,
        "schedule": job.schedule,
        "task_of": None if job.sweep is None else {"sweep": job.sweep, "task": job.task},
        "sweep": _sweep_document(job, history),
        "spec": spec,
    }


def _sweep_document(job: Job, history: History) -> dict[str, Any] | None:
    """Return the progress of a sweep; None for another job, and if its record is damaged."""
    if job.kind != SWEEP:
        return None
    from stoke.jobs.sweep_report import report_on

    try:
        return report_on(job, history).document()
    except EngineError:
        return None


def shown_document(job: Job, history: History) -> dict[str, Any]:
    """Return the same with the usage of the code over time, as `stoke show --json` prints it."""
    from stoke.history.usage import UsageCurves

    usage = [
        {"time": rfc3339(one.at), "cores": round(one.cores, 3), "memory": one.memory}
        for one in UsageCurves(history).of(job.id)
    ]
    return {**job_document(job, history), "usage": usage}


def _lock_document(job: Job) -> dict[str, Any] | None:
    """Return when the job's lockfile was resolved and its age in seconds when used; None if unknown."""
    phase = next((one for one in job.phases if one.name == "lock"), None)
    if phase is None or phase.made_at is None:
        return None
    age = max(0.0, phase.started_at - phase.made_at)
    return {"made_at": rfc3339(phase.made_at), "age": round(age, 3)}


def log_size(job: Job) -> tuple[int, int, int]:
    """Return (lines, bytes, gaps) of the saved part of a job's log."""
    if job.state.finished and not job.provisional:
        return job.log_lines, job.log_bytes, job.log_gaps
    from stoke.files.paths import job_dir
    from stoke.logs.spool import SpoolReader

    reader = SpoolReader(job_dir(job.id))
    size, lines = reader.size()
    gaps = reader.gaps()
    reader.close()
    if job.log_bytes > size:
        return job.log_lines, job.log_bytes, job.log_gaps  # The log is not saved yet.
    return lines, size, gaps
