"""`stoke rerun`: run a job's request again."""

from __future__ import annotations

from typing import Any

import click

from stoke.cli.option_errors import RequestCommand
from stoke.cli.options import (
    BACKEND,
    ENDING,
    JOB,
    OUTCOME,
    QUEUE,
    UPGRADE,
    apply,
    ending_changes,
    option_for,
    placement,
)
from stoke.errors import RequestError
from stoke.history.job import SWEEP


@click.command(cls=RequestCommand)
@apply(JOB, BACKEND)
@option_for("dependencies")
@option_for("scope")
@option_for("use_cache")
@option_for("hold")
@apply(ENDING)
@UPGRADE
@click.option(
    "--fresh", is_flag=True, help="Take the project as it is now: its files and its packages."
)
@click.option(
    "--failed",
    is_flag=True,
    help="Of a sweep, only the tasks that did not succeed, in a new sweep.",
)
@apply(QUEUE, OUTCOME)
def command(
    job: str,
    backend: str | None,
    packages: tuple[str, ...],
    scope: str | None,
    no_cache: bool,
    hold: str | None,
    retries: str | None,
    retry_exit: tuple[str, ...],
    notify: bool,
    upgrade: bool,
    fresh: bool,
    failed: bool,
    detach: bool,
    as_json: bool,
    quiet: bool,
    **queue: Any,
) -> int:
    """Run a job's request again.

    Uses the job's backend unless --backend names another. Secrets are read again from their sources.
    --with adds packages to those of the request.
    A sweep runs again with the same values and limits, as another sweep.
    The code and the files of a project are those that were submitted, unless --fresh is given.

    \b
    stoke rerun train-7k2pqa
    stoke rerun train-7k2pqa --fresh
    stoke rerun train -b docker --upgrade
    stoke rerun train -w pyyaml
    stoke rerun train-7k2pqa --failed --detach
    """
    from stoke.cli.job_lookup import find_job, open_history
    from stoke.cli.run_request import run_request
    from stoke.config.defaults import check_notify, with_changes, with_defaults, with_packages
    from stoke.config.loader import load_config
    from stoke.jobs.rerun import rerun_request, spec_of
    from stoke.request.values import Requirements

    config = load_config()
    with open_history() as history:
        earlier = find_job(history, job)
        stored = spec_of(earlier, history)
        sweep = None
        if earlier.kind == SWEEP:
            from stoke.jobs.sweeps import sweep_again

            sweep = sweep_again(earlier, history, unsuccessful=failed)
        elif failed:
            raise RequestError("failed", f"{earlier.id} is no sweep")
    of_project: dict[str, Any] = {}
    if fresh:
        from stoke.project.fresh_request import fresh_request

        stored, project = fresh_request(stored)
        stored = with_defaults(stored, config, project.settings)
        of_project = {"notes": project.notes, "project_files": project.extra_files}
    added = Requirements().from_options("dependencies", packages)
    spec = with_packages(stored, added)
    ending = ending_changes(retries, retry_exit, notify)
    spec = with_changes(
        spec, scope=scope, use_cache=False if no_cache else None, hold=hold, **ending
    )
    check_notify(spec, config)
    request = rerun_request(earlier, spec, config, upgrade=upgrade, **of_project)
    return run_request(
        request,
        backend or earlier.backend,
        config,
        detach=detach,
        as_json=as_json,
        quiet=quiet,
        queue=placement(detach, **queue),
        sweep=sweep,
    )
