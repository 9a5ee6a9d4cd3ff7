"""Print sweeps: their progress, the strip of their tasks' states, and their tasks as tables."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from stoke.cli.output import (
    Cell,
    counted,
    human_time,
    notes_text,
    paint,
    print_json,
    print_notice,
    print_pairs,
    print_table,
    state_colour_of,
    state_text,
    time_ago,
)
from stoke.history.job import JobState
from stoke.history.sweeps import ATTENTION, STRIP_MARKS, Sweeps
from stoke.jobs.document import job_document
from stoke.jobs.sweep_report import (
    SweepReport,
    failures_first,
    report_on,
    task_document,
    task_documents,
)
from stoke.text.sanitize import clean
from stoke.text.units import UNKNOWN, human_seconds

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.history.sweeps import Task

MOST_SHOWN = 20
"""Tasks that `show` lists, and failed ones that `run` lists."""
MOST_VALUE = 40
"""Characters of a value in a table."""
_STRIP_WIDTH = 60
_FAILED = (JobState.FAILED, JobState.LOST)


def strip_text(report: SweepReport, history: History) -> str:
    """Return the states of the tasks, one mark for each or for several neighbours."""
    edge = os.get_terminal_size(1).columns - 16 if sys.stdout.isatty() else _STRIP_WIDTH
    return "".join(
        paint(STRIP_MARKS[state], state_colour_of(state), sys.stdout)
        for state in Sweeps(history).strip(report.sweep, max(10, edge))
    )


def print_tasks(report: SweepReport, history: History, *, failed_only: bool = False) -> None:
    """Print the tasks that need attention first, as many as a screen takes."""
    states = Sweeps(history).states(report.sweep)
    numbers = [
        number
        for number, state in sorted(enumerate(states, 1), key=lambda one: ATTENTION[one[1]])
        if state in _FAILED or not failed_only
    ]
    if not numbers:
        return
    shown = Sweeps(history).tasks(report.sweep, numbers[:MOST_SHOWN])
    print_task_table(failures_first(shown), report)
    more = len(numbers) - MOST_SHOWN
    if more > 0:
        print_notice(
            f"and {counted(more, 'more task')}; see all: stoke results {report.job.id} --table"
        )


def show_sweep(job: Job, history: History, as_json: bool) -> None:
    """Print what `stoke show` tells of a sweep."""
    report = report_on(job, history)
    if as_json:
        tasks = list(task_documents(report.sweep, history))
        print_json({**job_document(job, history), "tasks": tasks})
        return
    state = paint(state_text(job), state_colour_of(job.state), sys.stdout)
    click.echo(f"{paint(clean(job.id), 'bold', sys.stdout)}  {state}")
    sweep = report.sweep
    limits = [
        text
        for text in (
            sweep.max_parallel and f"at most {sweep.max_parallel:,} at once",
            sweep.max_fails and f"ends with more than {counted(sweep.max_fails, 'failure')}",
            sweep.max_fails == 0 and "ends with the first failure",
        )
        if text
    ]
    print_pairs(
        {
            "name": job.name,
            "kind": "sweep",
            "backend": f"{job.backend}, scope {job.scope}",
            "submitted": f"{human_time(job.submitted_at)} ({time_ago(job.submitted_at)})",
            "took": human_seconds(job.seconds) if job.state.finished else None,
            "tasks": report.text(),
            "values": ", ".join(sweep.names),
            "limits": ", ".join(limits),
            "why": job.reason,
            "ended early": sweep.closed,
            "notes": notes_text(history.notes(job.id), job.reason),
        }
    )
    click.echo(f"{'states':<12}  {strip_text(report, history)}\n")
    print_tasks(report, history)


def print_task_table(tasks: Iterable[Task], report: SweepReport) -> None:
    sweep = report.sweep
    rows: list[list[Cell]] = []
    for task in tasks:
        one = task_document(task, sweep)
        rows.append(
            [
                str(task.number),
                (str(task.state), state_colour_of(task.state)),
                UNKNOWN if one["exit_code"] is None else str(one["exit_code"]),
                human_seconds(one["seconds"]),
                *(_short(one["values"].get(name, UNKNOWN)) for name in sweep.names),
                one["last_line"] or (one["reason"] or "" if task.state in _FAILED else ""),
            ]
        )
    heads = ["TASK", "STATE", "EXIT", "TOOK", *(name.upper() for name in sweep.names), "LAST LINE"]
    print_table(heads, rows, frozenset({0, 2, 3}))


def _short(value: str) -> str:
    return value if len(value) <= MOST_VALUE else f"{value[: MOST_VALUE - 1]}…"


def print_csv(documents: Iterable[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Print the tasks as CSV: the text of a value as it is, for programs."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["task", "job", "state", "exit_code", "seconds", *names, "last_line"])
    for one in documents:
        writer.writerow(
            [
                *(one[name] for name in ("task", "job", "state", "exit_code", "seconds")),
                *(one["values"].get(name) for name in names),
                clean(one["last_line"]),
            ]
        )
