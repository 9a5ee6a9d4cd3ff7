"""`stoke render`: what would be submitted, without submitting it."""

from __future__ import annotations

from typing import Any

import click

from stoke.cli.options import CODE, PLACE, apply, request_from
from stoke.errors import RequestError

FORMS = ["docker", "script", "json"]


@click.command()
@click.argument("form", type=click.Choice(FORMS))
@apply(CODE, PLACE)
def command(form: str, **options: Any) -> None:
    """Print what would be submitted, without submitting it.

    \b
    docker  the container as the engine would be told to create it
    script  a Python script that holds everything and runs the job anywhere
    json    the request, as `stoke submit` reads it
    Secrets are in none of them.

    \b
    stoke render json train.py -w numpy > request.json
    stoke render script train.py -w numpy > job.py; ssh elsewhere python3 - < job.py
    """
    from stoke.config import load_config
    from stoke.lifecycle import Request

    config = load_config()
    request: Request = request_from(config, **options)
    if form == "json":
        from stoke.cli.output import hidden_values, print_json

        print_json(hidden_values(request.spec.model_dump(mode="json")))
    elif form == "script":
        from stoke.script import make_script

        click.echo(make_script(request), nl=False)
    else:
        from stoke.backend import Delivery, RendersJobs, load_backend
        from stoke.job import new_job_id
        from stoke.lifecycle import check_request

        chosen = load_backend(form, config)
        if not isinstance(chosen, RendersJobs):
            raise RequestError("backend", f"the {form} backend shows nothing of what it submits")
        check_request(request.spec, chosen)
        # Runner, payload and secrets travel as files; what the engine is told holds none of them.
        delivery = Delivery(new_job_id(request.name), request.spec, b"", "0" * 16, b"", b"")
        click.echo(chosen.render(delivery).rstrip("\n"))
