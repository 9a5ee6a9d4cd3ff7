"""`stoke run`: run code with its packages, and wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stoke import errors
from stoke.cli.options import (
    BACKEND,
    CODE,
    OUTCOME,
    PLACE,
    PROJECT,
    QUEUE,
    SWEEP,
    CodeCommand,
    apply,
    placement,
    request_from,
    script_folder,
    sweep_from,
)

if TYPE_CHECKING:
    from stoke.cli.run_on_save import RunControl


def _exit_codes() -> str:
    """Return the table in `stoke.errors`, formatted for the help."""
    lines = (errors.__doc__ or "").splitlines()
    rows = [line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ")][1:]
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<14} {text}" for code, text in rows)


@click.command(cls=CodeCommand, epilog=_exit_codes())
@apply(CODE, PROJECT, BACKEND, PLACE, QUEUE, SWEEP, OUTCOME)
@click.option(
    "--watch", is_flag=True,
    help="Run again whenever FILE or a file of its project is saved, until ctrl+c; end the run before "
    "if it is not over.",
)  # fmt: skip
def command(
    backend: str | None, detach: bool, as_json: bool, quiet: bool, watch: bool, **options: Any
) -> int:
    """Run Python code with its packages, and wait for it.

    The job's stdout, stderr and exit code become those of this command; its stdin is empty. Ctrl+c
    interrupts the code (on argo it stops the job); a second ctrl+c ends the job at once. stoke prints
    its own messages to stderr, unless --quiet is given.

    With --detach, --after, --after-any or --priority the job waits in the queue until there is a slot
    for it (see: stoke queue --help).

    With --each, --each-line or --each-file the request is a sweep: it runs once for each value, as many
    tasks at once as there are slots. Each task has its number in STOKE_TASK_ID and its values in
    variables such as STOKE_TASK_LR. The exit code is 1 if a task failed.

    As with python, everything after FILE goes to the script; stoke's own options come before FILE. If
    the script has an option that stoke has too, put -- after FILE.

    \b
    stoke run -w numpy -c 'import numpy; print(numpy.pi)'
    stoke run -r requirements.txt -b docker --memory 2g train.py --epochs 3
    stoke run train.py -- --name first
    stoke run --exec pytest -- -q tests
    stoke run -w httpie -m httpie -- --version
    stoke run --json - < train.py
    stoke run -w numpy --watch train.py
    stoke run --watch --exec pytest -- -q tests
    stoke run --detach --after prepare train.py
    stoke run --each lr=0.1,0.01 --each seed=1..10 --max-parallel 4 train.py
    stoke run --each-file runs.csv train.py --out '{name}.json'
    stoke run --retries 3 --retry-exit 75 train.py
    """
    from stoke.cli.run_request import run_request
    from stoke.config.loader import load_config

    config = load_config()
    sweep = sweep_from(options)
    queue = {name: options.pop(name) for name in ("after", "after_any", "priority")}
    folder = script_folder(options["words"], options["code"])

    def run(control: RunControl | None = None) -> int:
        request = request_from(config, **options)
        if control is not None:
            control.reads(request.spec)
        return run_request(
            request,
            backend or config.backend,
            config,
            detach=detach,
            as_json=as_json,
            quiet=quiet,
            folder=folder,
            control=control,
            queue=placement(detach, **queue),
            sweep=sweep,
        )

    if not watch:
        return run()
    if detach or as_json or sweep:
        raise click.UsageError("--watch cannot be combined with --detach, --json and --each.")
    if options["retries"] is not None:
        raise click.UsageError("--watch cannot be combined with --retries.")
    from stoke.cli.run_on_save import run_on_save, starts_file, watched_paths, watched_root

    words = options["words"]
    root = watched_root(words, options)
    if words[:1] == ("-",) or not (root or starts_file(words, options)):
        raise click.UsageError("--watch needs a FILE, or a project: there is nothing else to save.")
    return run_on_save(watched_paths(words, options), root, run, quiet)
