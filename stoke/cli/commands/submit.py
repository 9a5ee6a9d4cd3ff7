"""`stoke submit`: run a request from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stoke.cli.option_errors import RequestCommand
from stoke.cli.options import BACKEND, OUTCOME, PLACE, QUEUE, SWEEP, apply, sweep_from


@click.command(cls=RequestCommand)
@click.argument("where", metavar="REQUEST.json|-")
@apply(BACKEND, PLACE, QUEUE, SWEEP, OUTCOME)
def command(
    where: str,
    backend: str | None,
    image: str | None,
    scope: str | None,
    no_cache: bool,
    hold: str | None,
    retries: str | None,
    retry_exit: tuple[str, ...],
    notify: bool,
    upgrade: bool,
    name: str | None,
    detach: bool,
    as_json: bool,
    quiet: bool,
    **others: Any,
) -> int:
    """Run a request from a JSON file.

    Reads stoke's own format, which `stoke show --json` prints under "spec", and the format of the
    earlier web service (with "pythonCode"). Otherwise it behaves like `stoke run`.

    \b
    stoke submit request.json -b docker --detach
    stoke submit request.json --each seed=1..10 --detach
    stoke show JOB --json | jq .spec | stoke submit -

    A request whose "project" has no digest runs with the folder's files and packages as they are now.
    """
    from stoke.cli.options import ending_changes, job_name, placement
    from stoke.cli.run_request import run_request
    from stoke.config.defaults import with_changes, with_defaults
    from stoke.config.loader import load_config
    from stoke.jobs.request import Request
    from stoke.project.fresh_request import request_to_submit
    from stoke.request.input_files import read_input
    from stoke.request.sources import MAX_REQUEST, request_from_json

    config = load_config()
    sweep = sweep_from(others)
    data = read_input(where, MAX_REQUEST)
    spec = request_from_json(data, "standard input" if where == "-" else where)
    spec, project = request_to_submit(spec)
    ending = ending_changes(retries, retry_exit, notify)
    spec = with_changes(
        spec, image=image, scope=scope, use_cache=False if no_cache else None, hold=hold, **ending
    )
    request = Request.configured(
        with_defaults(spec, config, project.settings),
        config,
        name=job_name(name, Path(where).stem if where != "-" else None),
        upgrade=upgrade,
        notes=project.notes,
        project_files=project.extra_files,
    )
    return run_request(
        request,
        backend or config.backend,
        config,
        detach=detach,
        as_json=as_json,
        quiet=quiet,
        queue=placement(detach, **others),
        sweep=sweep,
    )
