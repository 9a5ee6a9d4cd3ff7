"""`stoke render`: print what would be submitted, without submitting it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from stoke.cli.completion import complete_job
from stoke.cli.options import BACKEND, CODE, PLACE, PROJECT, CodeCommand, apply, once, request_from

FORMS = ["argo", "docker", "script", "json", "lock", "files", "code"]


class _RenderCommand(CodeCommand):
    words_before = 1


@click.command(cls=_RenderCommand)
@click.argument("form", type=click.Choice(FORMS))
@apply(CODE, PROJECT, PLACE, BACKEND)
@click.option(
    "--job", multiple=True, callback=once, metavar="JOB", shell_complete=complete_job,
    help="For lock: the job whose packages to print.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For files: print one JSON document.")
def command(form: str, backend: str | None, job: str | None, as_json: bool, **options: Any) -> int:
    """Print what would be submitted, without submitting it.

    \b
    argo    the workflow, for kubectl create -f - and argo submit -
    docker  the container's definition for the engine
    script  a self-contained Python script that runs the job anywhere
    json    the request, for stoke submit
    lock    all packages with their hashes, for --lock; a job resolves them
    files   the files of the project that would travel, and what is left out and why
    code    the code cells of a Jupyter notebook, as a script
    None of them contains secrets.

    \b
    stoke render json -w numpy train.py > request.json
    stoke render script -w numpy train.py > job.py; ssh elsewhere python3 - < job.py
    stoke render lock -w numpy -b docker > requirements.lock
    stoke render lock --job train-7k2pqa > requirements.lock
    stoke render argo -w numpy train.py | kubectl create -f -
    stoke render files train.py
    stoke render code train.ipynb > train.py
    """
    from stoke.config.loader import load_config

    config = load_config()
    if form != "lock" and (job or backend):
        raise click.UsageError(f"--job and --backend apply to lock, not to {form}.")
    if as_json and form != "files":
        raise click.UsageError(f"--json applies to files, not to {form}.")
    if job and any(options.values()):
        raise click.UsageError("--job cannot be combined with a request.")
    if job:
        from stoke.cli.commands.render_lock import print_lock_of

        print_lock_of(job, config)
        return 0
    if form == "code":
        return _print_code(options)
    starts = any(options[start] for start in ("words", "code", "module", "exec"))
    if form in ("lock", "files") and not starts:
        from stoke.cli.commands.render_lock import CODE as NO_CODE

        options |= {"code": NO_CODE, "name": options["name"] or form}
    request = request_from(config, **options)
    if form == "lock":
        from stoke.cli.commands.render_lock import print_lock

        # The packages of the project are in the request; its files are not needed to resolve them.
        spec = request.spec.model_copy(update={"project": None})
        request = replace(request, spec=spec)
        return print_lock(request, backend or config.backend, config)
    if form == "files":
        from stoke.cli.commands.render_files import print_files

        print_files(request, as_json)
    elif form == "json":
        from stoke.cli.output import print_json
        from stoke.request.fields import masked_fields

        print_json(masked_fields(request.spec.model_dump(mode="json")))
    elif form == "script":
        from stoke.jobs.script import make_script

        click.echo(make_script(request), nl=False)
    else:
        from stoke.backend.registry import load_backend
        from stoke.cli.output import print_notice
        from stoke.jobs.rendering import left_out, render_job

        manifest = render_job(request, load_backend(form, config))
        if missing := left_out(request.spec):
            print_notice(f"left out, because the output would contain them: {', '.join(missing)}")
        if request.spec.project is not None:
            print_notice("left out: the files of the project; stoke run sends them")
        click.echo(manifest)
    return 0


def _print_code(options: dict[str, Any]) -> int:
    from stoke.request.sources import read_code_or_notebook

    words = options.pop("words")
    if len(words) != 1 or any(options.values()):
        raise click.UsageError("code takes the path of one file or notebook, and no options.")
    click.echo(read_code_or_notebook(words[0]), nl=False)
    return 0
