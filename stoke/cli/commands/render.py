"""`stoke render`: what would be submitted, without submitting it."""

from __future__ import annotations

from typing import Any

import click

from stoke.cli.completion import complete_job
from stoke.cli.options import BACKEND, CODE, PLACE, CodeCommand, apply, once, request_from

FORMS = ["argo", "docker", "script", "json", "lock"]


class _RenderCommand(CodeCommand):
    words_before = 1


@click.command(cls=_RenderCommand)
@click.argument("form", type=click.Choice(FORMS))
@apply(CODE, PLACE, BACKEND)
@click.option(
    "--job", multiple=True, callback=once, metavar="JOB", shell_complete=complete_job,
    help="For lock: of this job.",
)  # fmt: skip
def command(form: str, backend: str | None, job: str | None, **options: Any) -> int:
    """Print what would be submitted, without submitting it.

    \b
    argo    the workflow, as kubectl create -f - and argo submit - take it
    docker  the container as the engine would be told to create it
    script  a Python script that holds everything and runs the job anywhere
    json    the request, as `stoke submit` reads it
    lock    all packages with their hashes, for --lock; a job resolves them
    Secrets are in none of them.

    \b
    stoke render json -w numpy train.py > request.json
    stoke render script -w numpy train.py > job.py; ssh elsewhere python3 - < job.py
    stoke render lock -w numpy -b docker > requirements.lock
    stoke render lock --job train-7k2pqa > requirements.lock
    stoke render argo -w numpy train.py | kubectl create -f -
    """
    from stoke.config.loader import load_config

    config = load_config()
    if form != "lock" and (job or backend):
        raise click.UsageError(f"--job and --backend are for locks, not for {form}.")
    if job and any(options.values()):
        raise click.UsageError("--job says already what to lock.")
    if job:
        from stoke.cli.commands.render_lock import print_lock_of

        print_lock_of(job, config)
        return 0
    if form == "lock" and not options["words"] and options["code"] is None:
        from stoke.cli.commands.render_lock import CODE as NO_CODE

        options |= {"code": NO_CODE, "name": options["name"] or "lock"}
    request = request_from(config, **options)
    if form == "lock":
        from stoke.cli.commands.render_lock import print_lock

        return print_lock(request, backend or config.backend, config)
    if form == "json":
        from stoke.cli.output import hidden_values, print_json

        print_json(hidden_values(request.spec.model_dump(mode="json")))
    elif form == "script":
        from stoke.jobs.script import make_script

        click.echo(make_script(request), nl=False)
    else:
        from stoke.backend.registry import load_backend
        from stoke.cli.output import print_notice
        from stoke.jobs.rendering import left_out, render_job

        manifest = render_job(request, load_backend(form, config))
        if missing := left_out(request.spec):
            print_notice(f"left out, because they would stand in it: {', '.join(missing)}")
        click.echo(manifest)
    return 0
