"""`stoke shell`: a shell at this terminal, inside a job's environment."""

from __future__ import annotations

from typing import Any

import click

from stoke.cli.option_errors import RequestCommand
from stoke.cli.options import (
    BACKEND,
    PLACE,
    PROJECT,
    QUIET,
    REQUEST,
    apply,
    request_from,
)


@click.command(cls=RequestCommand)
@apply(REQUEST, PROJECT, BACKEND, PLACE, (QUIET,))
def command(backend: str | None, quiet: bool, **options: Any) -> int:
    """Open a shell inside a job's environment.

    Takes the options of `stoke run`, and prepares the same environment from the same caches. Then bash
    runs at this terminal, or sh in an image without it; `python` is the environment's. The shell's exit
    code becomes that of this command. The job ends with the shell, and also if this command is killed.

    \b
    stoke shell -w numpy -w pandas
    stoke shell -b docker -s ffmpeg --image python:3.12
    echo 'python -c "import numpy"' | stoke shell -w numpy
    """
    from stoke.cli.run_request import run_request
    from stoke.config.loader import load_config

    config = load_config()
    request = request_from(config, opens_shell=True, **options)
    return run_request(
        request, backend or config.backend, config, detach=False, as_json=False, quiet=quiet
    )
