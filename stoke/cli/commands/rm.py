"""`stoke rm`: remove finished jobs from the engine and the history, with their logs and results."""

from __future__ import annotations

import click

from stoke.cli.job_lookup import find_jobs, fresh, open_history
from stoke.cli.options import JOBS_IF_ANY, apply
from stoke.cli.output import print_error, print_notice
from stoke.errors import StokeError
from stoke.files.paths import history_file, is_there
from stoke.history.job import Job


@click.command()
@apply(JOBS_IF_ANY)
@click.option("--all-finished", is_flag=True, help="Remove every finished job.")
def command(jobs: tuple[str, ...], all_finished: bool) -> int:
    """Remove finished jobs, their logs and their results.

    A running job is not removed: stop it first.

    \b
    stoke rm train-7k2pqa
    stoke rm --all-finished
    """
    if bool(jobs) == all_finished:
        raise click.UsageError("Name jobs, or pass --all-finished.")
    if all_finished and not is_there(history_file()):
        return 0
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.jobs.control import backend_of, remove

    backends = Backends(load_config())
    problems: list[StokeError] = []
    with open_history() as history:
        found: list[Job]
        if all_finished:
            found = [job for job in fresh(history.list(), history) if job.state.finished]
        else:
            found, problems = find_jobs(history, jobs)
            found = fresh(found, history)
        for job in found:
            try:
                remove(job, backend_of(job, backends), history)
                print_notice(f"removed {job.id}")
            except StokeError as error:
                problems.append(error)
    for problem in problems:
        print_error(problem.what, problem.hint)
    return max((problem.exit_code for problem in problems), default=0)
