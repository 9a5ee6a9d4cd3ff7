"""`stoke stop`: stop jobs."""

from __future__ import annotations

import threading

import click

from stoke.cli.job_lookup import find_jobs, open_history
from stoke.cli.options import JOBS, apply
from stoke.cli.output import print_error, print_notice
from stoke.errors import EngineError, StokeError

PATIENCE = 15.0
"""Seconds beyond the grace period after which this command no longer waits for the engine."""


@click.command()
@apply(JOBS)
@click.option("--now", is_flag=True, help="End the jobs at once, without the grace period.")
def command(jobs: tuple[str, ...], now: bool) -> int:
    """Stop jobs.

    Sends SIGTERM, then SIGKILL after the configured grace period (10 seconds), and waits until the
    jobs have ended. Finished jobs are left unchanged. Of a job with --retries the newest attempt is
    stopped, and there is no further one.

    \b
    stoke stop train-7k2pqa
    stoke stop --now train fit-model
    """
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.jobs.control import last_attempt, stop
    from stoke.jobs.refresh import clean_up
    from stoke.jobs.tracker import Tracker
    from stoke.logs.fallback import UnsavedLogError

    config = load_config()
    backends = Backends(config)
    grace = 0 if now else config.stop_grace
    failed: set[str] = set()

    def tell_unsaved(job: Job, why: UnsavedLogError) -> None:
        print_notice(f"{job.id}: the engine keeps its log, which cannot be saved: {why.reason}")

    def end(job: Job, history: History) -> None:
        try:
            backend = backends.get(job.backend)
            notice = stop(job, backend, history, grace)
            if notice:
                print_notice(f"{job.id}: {notice}")
            Tracker(backend, history, job.id, on_unsaved=lambda why: tell_unsaved(job, why)).run()
            clean_up(job.id, backend, history)
        except StokeError as error:
            failed.add(job.id)
            problems.append(error)

    with open_history() as history:
        named, problems = find_jobs(history, jobs)
        last = [last_attempt(job, history) for job in named]
        found = list({job.id: job for job in last}.values())
        threads = [
            threading.Thread(target=end, args=(job, history), daemon=True)
            for job in found
            if not job.state.finished or job.provisional
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(grace + PATIENCE)
        for job in found:
            after = history.get(job.id)
            if job.held and after is not None and not after.provisional:
                print_notice(f"{job.id} is no longer held")
            elif after is None or after.state.finished:
                already = "was already " if job.state.finished else ""
                print_notice(f"{job.id} {already}{after.state if after else 'removed'}")
            elif job.id not in failed:
                problems.append(
                    EngineError(
                        f"{job.id} has not ended yet",
                        f"check its state: stoke show {job.id}"
                        if now
                        else f"end it at once: stoke stop --now {job.id}",
                    )
                )
    for problem in problems:
        print_error(problem.what, problem.hint)
    return max((problem.exit_code for problem in problems), default=0)
