"""`stoke jobs`: the history as a table.

Slow modules are imported only if a listed job is unfinished.
"""

from __future__ import annotations

import time

import click

from stoke.cli.job_lookup import find_engine_runs, fresh
from stoke.cli.output import (
    Cell,
    print_json,
    print_notice,
    print_table,
    state_colour,
    state_text,
    time_ago,
)
from stoke.errors import EngineError
from stoke.files.paths import history_file, is_there
from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState
from stoke.jobs.document import job_document
from stoke.text.units import UNKNOWN, human_bytes, human_seconds

HEADS = ["ID", "STATE", "BACKEND", "SUBMITTED", "TOOK", "ENV", "PYTHON", "RECEIVED", "NAME"]
RIGHT_ALIGNED = frozenset({4, 5, 7})


@click.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All jobs, including those on the default backend that this machine does not know yet.",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="The number of jobs to list, newest first.",
)
@click.option(
    "--state",
    type=click.Choice([str(state) for state in JobState]),
    help="Only jobs in this state.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(everything: bool, count: int, state: str | None, as_json: bool) -> None:
    """List jobs.

    A sweep is one row, with the states of its tasks. ENV is the time that preparing the environment
    took. A ? after a state means that the job's backend has not confirmed it.

    \b
    stoke jobs
    stoke jobs --state failed -n 5
    stoke jobs --json | jq -r '.[].id'
    """
    # Listing must not create the history.
    if not is_there(history_file()) and not everything:
        _show([], None, as_json)
        return
    with History() as history:
        find_engine_runs(history)
        if everything:
            _adopt(history)
        limit = None if everything or state else count
        jobs = fresh(history.list(limit), history)
        if state:
            jobs = [job for job in jobs if job.state == state]
        _show(jobs if everything else jobs[:count], history, as_json)


def _adopt(history: History) -> None:
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.errors import EngineError
    from stoke.jobs.refresh import adopt

    config = load_config()
    try:
        adopt(Backends(config).get(config.backend), history)
    except EngineError as error:
        print_notice(f"cannot list the jobs of {config.backend}: {error.what}")


def _show(jobs: list[Job], history: History | None, as_json: bool) -> None:
    if as_json:
        print_json([job_document(job, history) for job in jobs] if history else [])
    elif jobs:
        print_table(HEADS, [_row(job, history) for job in jobs], RIGHT_ALIGNED)
        if unconfirmed := sorted({job.backend for job in jobs if job.stale or job.provisional}):
            names = ", ".join(unconfirmed)
            print_notice(f"{names}: states with ? are not confirmed yet; stoke jobs asks again")
    else:
        print_notice("no jobs; submit one: stoke run --help")


def _row(job: Job, history: History | None) -> list[Cell]:
    took = job.seconds if job.state.finished else time.time() - job.submitted_at
    return [
        job.id,
        (state_text(job), state_colour(job)),
        job.backend,
        time_ago(job.submitted_at),
        human_seconds(took),
        human_seconds(job.environment_seconds),
        _python(job),
        human_bytes(job.received_bytes),
        _name(job, history),
    ]


def _name(job: Job, history: History | None) -> str:
    """Return a job's name, of a sweep with its progress."""
    if job.kind != SWEEP or history is None:
        return job.name
    from stoke.jobs.sweep_report import report_on

    try:
        return f"{job.name}: {report_on(job, history).text()}"
    except EngineError:
        return job.name  # Its record is damaged.


def _python(job: Job) -> str:
    for phase in job.phases:
        if phase.name == "python":
            return UNKNOWN if phase.hit is None else "hit" if phase.hit else "miss"
    return UNKNOWN
