"""Submit a sweep and follow it: one line of progress, and a summary with the failures first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from stoke.cli.output import counted, print_error, print_json
from stoke.cli.progress import ProgressLine
from stoke.errors import EXIT_ENGINE, EXIT_INTERRUPT, EXIT_STOPPED, EngineError, StokeError
from stoke.history.job import JobState
from stoke.history.queue import Placement
from stoke.jobs.control import stop
from stoke.jobs.document import job_document
from stoke.jobs.scheduler_process import wake_scheduler
from stoke.jobs.sweep_report import report_on, task_documents
from stoke.jobs.sweeps import STOPPED, SweepRequest, submit_sweep
from stoke.text.units import human_seconds

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.cli.progress_output import ProgressPrinter
    from stoke.config.model import Config
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.jobs.prepare import PreparedRequest

LOOK_SECONDS = 0.2
WAKE_SECONDS = 2.0


def run_sweep(
    prepared: PreparedRequest,
    sweep: SweepRequest,
    history: History,
    config: Config,
    progress: ProgressPrinter,
    *,
    queue: Placement | None,
    detach: bool,
    as_json: bool,
) -> int:
    """Submit the sweep and, unless `detach`, follow it to its end. Return the exit code."""
    job = submit_sweep(prepared, sweep, history, queue or Placement())
    wake_scheduler(history)
    if detach:
        if as_json:
            print_json(job_document(job, history))
        else:
            click.echo(job.id)
        return 0
    progress.print(f"{job.id}: {counted(len(sweep.table.rows), 'task')}")
    try:
        job, pressed = _follow(job, prepared.backend, history, config, progress)
    except BaseException:
        progress.print(f"the sweep continues; see: stoke show {job.id}")
        raise
    report = report_on(job, history)
    if as_json:
        tasks = list(task_documents(report.sweep, history))
        print_json({**job_document(job, history), "tasks": tasks})
    elif progress.is_shown:
        from stoke.cli.sweep_output import print_tasks

        print_tasks(report, history, failed_only=True)
    counts = report.counts
    told = [f"{counts.of(JobState.SUCCEEDED):,} of {report.sweep.tasks:,} tasks succeeded"]
    if counts.failed:
        told.append(f"{counts.failed:,} failed")
    if counts.of(JobState.STOPPED):
        closed = report.sweep.closed
        why = f" ({closed})" if closed and closed != STOPPED else ""
        told.append(f"{counts.of(JobState.STOPPED):,} stopped{why}")
    progress.print(f"{', '.join(told)}; took {human_seconds(job.seconds)}")
    if counts.failed:
        progress.print(f"run the failed ones again: stoke rerun {job.id} --failed")
    if pressed:
        return EXIT_INTERRUPT
    return exit_code(job)


def exit_code(job: Job) -> int:
    """Return the exit code of a command that waited for this sweep."""
    if job.state is JobState.STOPPED:
        return EXIT_STOPPED
    return EXIT_ENGINE if job.exit_code is None else job.exit_code


def _follow(
    job: Job, backend: Backend, history: History, config: Config, progress: ProgressPrinter
) -> tuple[Job, int]:
    """Wait for the end of a sweep; return its record, and how often ctrl+c was pressed."""
    presses: list[float] = []

    def end(grace: float) -> None:
        try:
            stop(job, backend, history, grace)
        except StokeError as error:
            print_error(error.what, error.hint)

    done, wakes_at = 0, time.monotonic() + WAKE_SECONDS
    waits_for = None
    line = ProgressLine()
    with line as show, _on_ctrl_c(presses):
        while True:
            now = history.get(job.id)
            if now is None:
                raise EngineError(f"{job.id} was removed while this command followed it")
            if now.state.finished:
                return now, len(presses)
            while done < len(presses):
                done += 1
                if done == 1:
                    line.clear()
                    progress.print("stopping the sweep; press ctrl+c again to end it at once")
                grace = config.stop_grace if done == 1 else 0
                threading.Thread(target=end, args=(grace,), daemon=True).start()
            report = report_on(now, history)
            if report.sweep.begun and progress.is_shown:
                show(report.text())
            elif now.reason and now.reason != waits_for:
                waits_for = now.reason
                progress.print(waits_for)
            if time.monotonic() > wakes_at:
                wakes_at = time.monotonic() + WAKE_SECONDS
                wake_scheduler(history)  # The one before may have been killed.
            time.sleep(LOOK_SECONDS)


@contextmanager
def _on_ctrl_c(presses: list[float]) -> Iterator[None]:
    """Note the first two presses of ctrl+c; the third ends this program."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # A parent has chosen that ctrl+c is not for us.
        yield
        return

    def pressed(_number: int, _frame: object) -> None:
        presses.append(time.monotonic())
        if len(presses) > 2:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
