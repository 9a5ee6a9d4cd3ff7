"""`stoke queue`: list, pause and reorder the jobs that wait to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from stoke.cli.job_lookup import find_job, open_history
from stoke.cli.options import BACKEND, JOB, apply
from stoke.cli.output import Cell, print_json, print_notice, print_table
from stoke.errors import RequestError
from stoke.history.queue import MOST_PRIORITY
from stoke.text.times import rfc3339

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.queue import JobQueue, QueuedJob

HEADS = ["PLACE", "JOB", "BACKEND", "SCOPE", "PRIORITY", "WAITS FOR"]


@click.group()
def command() -> None:
    """List, pause and reorder the jobs that wait to start.

    A job waits if nothing waits for it: with --detach, from the screens and from Python; and with
    --after, --after-any or --priority. On this machine and on Docker, as many jobs run at once as there
    are slots (`queue.slots`; by default one for each core, and at most one for each GiB of memory);
    a job with limits of cores or memory takes several. A cluster has a queue of its own, so its jobs
    only wait for the jobs that they follow. Jobs start although the program that submitted them has
    ended.

    \b
    stoke run --detach --priority 5 train.py
    stoke run --detach --after prepare-7k2pqa train.py
    stoke queue list
    stoke queue move train 1
    stoke queue pause -b docker
    """


@command.command("list")
@apply(BACKEND)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_queue(backend: str | None, as_json: bool) -> None:
    """List the waiting jobs in the order of their start, with what each of them waits for.

    \b
    stoke queue list -b docker --json
    """
    from stoke.history.database import History
    from stoke.history.queue import JobQueue
    from stoke.jobs.scheduler_process import wake_scheduler

    names = _names(backend)
    with History() as history:
        wake_scheduler(history)
        queue = JobQueue(history)
        documents = [
            _document(job, place, history)
            for name in names
            for place, job in enumerate(queue.waiting(name), 1)
        ]
        paused = queue.paused()
    if as_json:
        print_json(documents)
        return
    for name in names:
        if name in paused:
            print_notice(
                f"the queue of {name} is paused; continue with: stoke queue resume -b {name}"
            )
    if not documents:
        print_notice("no job waits to start")
        return
    print_table(HEADS, [_cells(document) for document in documents], frozenset({0, 4}))


@command.command()
@apply(BACKEND)
def pause(backend: str | None) -> None:
    """Start no waiting job until `stoke queue resume`. Jobs that run continue.

    \b
    stoke queue pause -b docker
    """
    from stoke.history.database import History
    from stoke.history.queue import JobQueue

    names = _names(backend)
    with History() as history:
        JobQueue(history).pause(names)
    print_notice(f"paused: {', '.join(names)}; running jobs continue")


@command.command()
@apply(BACKEND)
def resume(backend: str | None) -> None:
    """Start waiting jobs again.

    \b
    stoke queue resume
    """
    from stoke.history.database import History
    from stoke.history.queue import JobQueue
    from stoke.jobs.scheduler_process import wake_scheduler

    names = _names(backend)
    with History() as history:
        JobQueue(history).resume(names)
        wake_scheduler(history)
    print_notice(f"resumed: {', '.join(names)}")


@command.command()
@apply(JOB)
@click.argument("place", type=click.IntRange(min=1))
def move(job: str, place: int) -> None:
    """Give a waiting job another PLACE: 1 is the next to start on its backend.

    The job takes the priority of the job that had the place.

    \b
    stoke queue move train-7k2pqa 1
    """
    with _waiting(job) as (waiting, queue):
        queue.move(waiting, place)
        _print_place(waiting, queue)


@command.command("priority")
@apply(JOB)
@click.argument("number", type=click.IntRange(-MOST_PRIORITY, MOST_PRIORITY), metavar="N")
def set_priority(job: str, number: int) -> None:
    """Give a waiting job another priority. Jobs of a higher one start first.

    Write -- before a negative one.

    \b
    stoke queue priority train-7k2pqa 5
    stoke queue priority train-7k2pqa -- -5
    """
    with _waiting(job) as (waiting, queue):
        queue.set_priority(waiting.id, number)
        _print_place(waiting, queue)


def _names(backend: str | None) -> list[str]:
    """Return the name of the backend, checked, or those of all."""
    from stoke.backend.registry import backend_names, load_backend
    from stoke.config.loader import load_config

    if backend is None:
        return backend_names()
    load_backend(backend, load_config()).close()
    return [backend]


@contextmanager
def _waiting(name: str) -> Iterator[tuple[QueuedJob, JobQueue]]:
    """Give a waiting job and its queue. Raises `RequestError` for a job that does not wait."""
    from stoke.history.queue import JobQueue

    with open_history() as history:
        queue = JobQueue(history)
        found = find_job(history, name)
        for job in queue.waiting(found.backend):
            if job.id == found.id:
                yield job, queue
                return
        raise RequestError(
            found.id,
            f"does not wait in the queue; its state is: {found.state}",
            f"see: stoke show {found.id}",
        )


def _print_place(job: QueuedJob, queue: JobQueue) -> None:
    ids = [one.id for one in queue.waiting(job.backend)]
    if job.id in ids:
        place = ids.index(job.id) + 1
        print_notice(f"{job.id} has place {place} of {len(ids)} on {job.backend}")


def _document(job: QueuedJob, place: int, history: History) -> dict[str, Any]:
    record = history.get(job.id)
    return {
        "place": place,
        "job": job.id,
        "backend": job.backend,
        "scope": job.scope,
        "priority": job.priority,
        "after": [{"job": one.job_id, "any_end": one.any_end} for one in job.after],
        "submitted_at": None if record is None else rfc3339(record.submitted_at),
        "reason": None if record is None else record.reason,
    }


def _cells(document: dict[str, Any]) -> list[Cell]:
    return [
        str(document["place"]), document["job"], document["backend"], document["scope"],
        str(document["priority"]), document["reason"] or "starts now",
    ]  # fmt: skip
