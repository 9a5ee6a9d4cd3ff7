"""Stopping and removing several jobs at once, with the text of the confirmation.

Each job is handled on its own, so that an error with one does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from stoke.backend import pool
from stoke.errors import StokeError
from stoke.history.database import History
from stoke.history.job import SWEEP, Job
from stoke.history.sweeps import Sweeps
from stoke.jobs import control
from tui import format as fmt

MOST_NAMES = 8
"""Jobs that a confirmation lists by name; it counts the others."""


@dataclass
class BulkResult:
    done: list[str] = field(default_factory=list)
    """Ids of the jobs that were handled."""
    notes: list[str] = field(default_factory=list)
    """Remarks of the backends, each once."""
    errors: list[StokeError] = field(default_factory=list)
    """What failed, each once: an engine that is down fails for every job."""


@dataclass(frozen=True)
class BulkAction:
    """`jobs` are those that the action applies to. `run_one` returns a remark or None; `past` says in a
    notification what was done to the jobs."""

    jobs: Sequence[Job]
    title: str
    body: Text
    verb: str
    past: str
    run_one: Callable[[Job], str | None]

    def run(self) -> BulkResult:
        result = BulkResult()
        for job in self.jobs:
            try:
                note = self.run_one(job)
            except StokeError as error:
                if all((error.what, error.hint) != (one.what, one.hint) for one in result.errors):
                    result.errors.append(error)
                continue
            result.done.append(job.id)
            if note is not None and note not in result.notes:
                result.notes.append(note)
        return result


def stop_action(
    jobs: Sequence[Job], backends: pool.Backends, history: History, grace: float
) -> BulkAction:
    unfinished = [job for job in jobs if not job.state.finished]
    body = _names(unfinished)
    whose = "Its" if len(unfinished) == 1 else "Their"
    body.append(
        f"\n\n{whose} code gets {fmt.duration(grace)} to end, then it is killed. "
        "Log and caches are kept."
    )
    _append_skipped(body, len(jobs) - len(unfinished), "already ended")

    def stop(job: Job) -> str | None:
        return control.stop(job, backends.get(job.backend), history, grace)

    return BulkAction(unfinished, _title("Stop", unfinished), body, "Stop", "stopping", stop)


def remove_action(jobs: Sequence[Job], backends: pool.Backends, history: History) -> BulkAction:
    finished = [job for job in jobs if job.state.finished]
    body = _names(finished)
    lines = fmt.count(sum(job.log_lines for job in finished), "line")
    size = fmt.size(sum(job.log_bytes for job in finished))
    log = "log" if len(finished) == 1 else "logs"
    tasks = _tasks_of(finished, history)
    theirs = f", also of {fmt.count(tasks, 'task')}" if tasks else ""
    body.append(
        f"\n\nDeletes the {log} ({lines}, {size}), results, phases and request{theirs}. "
        "Keeps the caches."
    )
    _append_skipped(body, len(jobs) - len(finished), "still running")

    def remove(job: Job) -> None:
        control.remove(job, control.backend_of(job, backends), history)

    return BulkAction(finished, _title("Remove", finished), body, "Remove", "removed", remove)


def _tasks_of(jobs: Sequence[Job], history: History) -> int:
    """Return how many tasks the sweeps among the jobs have."""
    found = (Sweeps(history).get(job.id) for job in jobs if job.kind == SWEEP)
    return sum(sweep.tasks for sweep in found if sweep is not None)


def _title(verb: str, jobs: Sequence[Job]) -> str:
    return f"{verb} this job?" if len(jobs) == 1 else f"{verb} {len(jobs):,} jobs?"


def _names(jobs: Sequence[Job]) -> Text:
    more = len(jobs) - MOST_NAMES
    text = Text("\n").join(fmt.plain(job.id, "bold") for job in jobs[:MOST_NAMES])
    return text.append(f"\nand {more:,} more") if more > 0 else text


def _append_skipped(body: Text, count: int, why: str) -> None:
    if count:
        body.append(f"\n{fmt.count(count, 'marked job')} {why}: skipped.")
