"""`stoke render lock`: print every package of a request, or of a job's environment, with hashes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import click

from stoke.backend.pool import Backends
from stoke.cache.volumes import Housekeeper
from stoke.cli.job_lookup import find_job, open_history
from stoke.cli.output import print_notice
from stoke.cli.run_request import run_request
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.request.requirements_text import parse_requirements

CODE = "# stoke render lock\n"


def print_lock(request: Request, backend: str, config: Config) -> int:
    """Run a job that resolves the request and prints the lockfile. Return its exit code."""
    if not request.spec.has_packages:
        raise RequestError(
            "dependencies", "nothing to lock: the request names no Python package",
            "name one: stoke render lock -w numpy",
        )  # fmt: skip
    request = replace(request, lock_only=True)
    return run_request(request, backend, config, detach=False, as_json=False, quiet=False)


def print_lock_of(prefix: str, config: Config) -> None:
    """Print the lockfile that a job's environment was built from, read from the environment."""
    with open_history() as history, closing(Backends(config)) as backends:
        job = find_job(history, prefix)
        text = Housekeeper(history, config.lock_ttl).lock_of(backends.get(job.backend), job)
    if not parse_requirements(text).is_lock():
        print_notice("some packages have no hash, so --lock refuses this file")
    click.echo(text, nl=False)
