"""What a sweep has done so far: counts, rate, remaining time, and a table of its tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stoke.files.paths import job_dir
from stoke.history.job import Job, JobState
from stoke.history.sweeps import ATTENTION, Sweep, Sweeps, Task, TaskCounts
from stoke.logs.spool import SpoolReader
from stoke.text.units import human_seconds

if TYPE_CHECKING:
    from stoke.history.database import History

MOST_LINE = 400
"""Characters of a task's last line."""
_LAST_BYTES = 4096


@dataclass(frozen=True)
class SweepReport:
    """A sweep at one moment. Times are in seconds."""

    job: Job
    sweep: Sweep
    counts: TaskCounts
    elapsed: float
    """Since the first task began."""

    @property
    def rate(self) -> float | None:
        """Finished tasks a second."""
        ran = self.counts.finished - self.counts.of(JobState.STOPPED)
        return ran / self.elapsed if ran and self.elapsed > 0 else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the last task ends, at this rate; None if unknown."""
        left = self.sweep.tasks - self.counts.finished
        if self.job.state.finished or not self.rate:
            return None
        return left / self.rate

    def text(self) -> str:
        """Return `45 of 200 done, 3 failed, 4 running, 2.1/s, 1m 12s left`."""
        counts = self.counts
        parts = [f"{counts.finished:,} of {self.sweep.tasks:,} done"]
        for number, what in (
            (counts.failed, "failed"),
            (counts.of(JobState.STOPPED), "stopped"),
            (counts.of(JobState.RUNNING, JobState.STARTING), "running"),
        ):
            if number:
                parts.append(f"{number:,} {what}")
        if self.rate is not None:
            parts.append(rate_text(self.rate))
        if self.remaining is not None:
            parts.append(f"{human_seconds(self.remaining)} left")
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        return {
            "tasks": self.sweep.tasks,
            "values": list(self.sweep.names),
            "states": {str(state): number for state, number in self.counts.states.items()},
            "max_parallel": self.sweep.max_parallel,
            "max_fails": self.sweep.max_fails,
            "closed": self.sweep.closed,
            "rate": None if self.rate is None else round(self.rate, 6),
            "remaining_seconds": None if self.remaining is None else round(self.remaining, 3),
        }


def report_on(job: Job, history: History) -> SweepReport:
    """Return the report on a job that is a sweep."""
    sweeps = Sweeps(history)
    sweep = sweeps.of(job)
    first = sweeps.first_start(job.id)
    until = job.finished_at if job.state.finished and job.finished_at else time.time()
    elapsed = 0.0 if first is None else max(0.0, until - first)
    return SweepReport(job, sweep, sweeps.counts(sweep), elapsed)


def rate_text(rate: float) -> str:
    """Return `12/s`, `2.1/s`, `30/min` or `4/h`."""
    for factor, unit in ((1, "s"), (60, "min")):
        if rate * factor >= 1:
            number = rate * factor
            return f"{number:.1f}/{unit}" if number < 10 else f"{number:,.0f}/{unit}"
    return f"{rate * 3600:.1f}/h"


def failures_first(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (ATTENTION[task.state], task.number))


def last_line(job: Job | None) -> str:
    """Return the last line that a job has printed, or an empty text."""
    if job is None:
        return ""
    reader = SpoolReader(job_dir(job.id))
    try:
        size, _ = reader.size()
        data = reader.read(max(0, size - _LAST_BYTES), size) if size else b""
    finally:
        reader.close()
    lines = data.decode(errors="replace").rstrip().splitlines()
    return lines[-1].strip()[-MOST_LINE:] if lines else ""


def task_documents(
    sweep: Sweep, history: History, numbers: Iterable[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a document for each task, or for each of these numbers."""
    for task in Sweeps(history).tasks(sweep, numbers):
        yield task_document(task, sweep)


def task_document(task: Task, sweep: Sweep) -> dict[str, Any]:
    job = task.job
    return {
        "task": task.number,
        "job": None if job is None else job.id,
        "values": dict(zip(sweep.names, task.values, strict=False)),
        "state": str(task.state),
        "exit_code": None if job is None else job.exit_code,
        "seconds": None if job is None or job.seconds is None else round(job.seconds, 6),
        "reason": None if job is None else job.reason,
        "last_line": last_line(job),
    }
