"""Find the jobs that a command names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.errors import RequestError, StokeError, UnknownJobError
from stoke.files.paths import history_file, is_there
from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState

if TYPE_CHECKING:
    from stoke.history.sweeps import Task

MOST_TASKS = 200
"""Tasks whose logs are printed together; each has open files."""


def open_history() -> History:
    """Open the history. Raise `UnknownJobError`, and create nothing, if there is none yet."""
    if not is_there(history_file()):
        raise UnknownJobError(
            "no job has been submitted on this machine yet", "submit one: stoke run --help"
        )
    return History()


def find_job(history: History, prefix: str) -> Job:
    """Return the only job whose id begins with `prefix`; the error suggests similar names."""
    try:
        return _find(history, prefix)
    except UnknownJobError as error:
        if error.what.startswith("no job"):
            near = _near(history, prefix)
            if near:
                raise UnknownJobError(error.what, f"did you mean: {', '.join(near)}?") from None
        raise


def _find(history: History, prefix: str) -> Job:
    """Find a job, also one that an engine has begun for a schedule and the history does not have."""
    try:
        return history.find(prefix)
    except UnknownJobError:
        if not find_engine_runs(history):
            raise
    return history.find(prefix)


def find_engine_runs(history: History, seconds: float | None = None) -> bool:
    """Add the runs of schedules that engines have begun to the history; print what went wrong. Return
    whether any engine has a schedule, without which nothing is imported or asked."""
    from stoke.history.engine_schedules import EngineSchedules

    if not EngineSchedules(history).by_backend():
        return False
    from stoke.cli.output import print_notice
    from stoke.jobs.engine_runs import LOOK_SECONDS, find_runs

    for problem in find_runs(history, seconds=LOOK_SECONDS if seconds is None else seconds):
        print_notice(problem)
    return True


def find_jobs(history: History, prefixes: tuple[str, ...]) -> tuple[list[Job], list[StokeError]]:
    """Return the jobs that exist, each once, and the errors of the other names."""
    found: dict[str, Job] = {}
    unknown: list[StokeError] = []
    for prefix in prefixes:
        try:
            job = find_job(history, prefix)
        except UnknownJobError as error:
            unknown.append(error)
        else:
            found[job.id] = job
    return list(found.values()), unknown


def with_tasks(
    jobs: list[Job], number: int | None, history: History, *, follow: bool = False
) -> list[Job]:
    """Return the jobs, with their tasks in place of sweeps: the one with this number, or all that have
    begun. With `follow`, wait until that one has begun, and count those that have not for the limit."""
    if number is None and all(job.kind != SWEEP for job in jobs):
        return jobs
    from stoke.history.sweeps import Sweeps

    found: list[Job] = []
    for job in jobs:
        if job.kind != SWEEP:
            if number is not None:
                raise RequestError("task", f"{job.id} is no sweep and has no tasks")
            found.append(job)
            continue
        sweep = Sweeps(history).of(job)
        many = sweep.tasks if follow and sweep.has_waiting else sweep.begun
        if number is None and many > MOST_TASKS:
            raise RequestError(
                job.id,
                f"has {many:,} tasks; at most {MOST_TASKS} logs can be printed together",
                f"name one of them: stoke logs {job.id} --task 1",
            )
        if number is not None and number > sweep.tasks:
            raise RequestError(
                "task", f"{job.id} has the tasks 1 to {sweep.tasks}, and no {number}"
            )
        if number is not None and follow:
            from stoke.cli.sweep_logs import wait_for_task

            wait_for_task(job, number, history)
            sweep = Sweeps(history).of(job)
        tasks = list(Sweeps(history).tasks(sweep, None if number is None else [number]))
        if number is not None and tasks[0].job is None:
            raise RequestError("task", f"task {number} of {job.id} {_without_job(tasks[0])}")
        found += [task.job for task in tasks if task.job is not None]
    return found


def _without_job(task: Task) -> str:
    if task.state is JobState.STOPPED:
        return "never began"
    return "has not begun" if task.state is JobState.QUEUED else "is no longer there"


def attempt_of(job: Job, number: int, history: History) -> Job:
    """Return an attempt of a job, of which `job` is any. Raises `UnknownJobError` if it has none."""
    from stoke.history.attempts import Attempts

    attempts = Attempts(history).all_of(job.id)
    wanted = next((one.job_id for one in attempts if one.number == number), None)
    found = history.get(wanted) if wanted else None
    if found is None:
        most = f"{len(attempts)} attempts" if len(attempts) > 1 else "one attempt"
        raise UnknownJobError(
            f"{job.id} has no attempt {number}: it had {most}", f"list them: stoke show {job.id}"
        )
    return found


def fresh(jobs: list[Job], history: History, seconds: float = 1.0) -> list[Job]:
    """Return the jobs, unfinished ones updated from their backends within `seconds`.

    Imports no backend and no other slow module if all jobs have ended.
    """
    open_ones = [job for job in jobs if not job.state.finished or job.provisional]
    if not open_ones:
        return jobs
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.jobs.refresh import refresh

    now = {job.id: job for job in refresh(open_ones, Backends(load_config()), history, seconds)}
    gone = {job.id for job in open_ones} - now.keys()
    return [now.get(job.id, job) for job in jobs if job.id not in gone]


def _near(history: History, wanted: str) -> list[str]:
    from difflib import get_close_matches

    ids = [job.id for job in history.list(limit=500)]
    # Users remember the name, not the random suffix.
    names = {job_id.rpartition("-")[0]: job_id for job_id in reversed(ids)}
    close = get_close_matches(wanted, [*ids, *names], n=3, cutoff=0.6)
    return list(dict.fromkeys(names.get(name, name) for name in close))
