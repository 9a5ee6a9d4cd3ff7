"""`stoke render lock`: every package of a request with its hash, or of what a job ran in."""

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
from stoke.request.requirements import parse_requirements

CODE = "# stoke render lock\n"


def print_lock(request: Request, backend: str, config: Config) -> int:
    """Has a job resolve the request where it would run, whose output is the lock; its exit code."""
    if not request.spec.has_packages:
        raise RequestError(
            "dependencies", "there is nothing to lock: no Python package is named",
            "name one: stoke render lock -w numpy",
        )  # fmt: skip
    request = replace(request, lock_only=True)
    return run_request(request, backend, config, detach=False, as_json=False, quiet=False)


def print_lock_of(prefix: str, config: Config) -> None:
    """The lock that a job's environment was built from, read from the environment itself."""
    with open_history() as history, closing(Backends(config)) as backends:
        job = find_job(history, prefix)
        text = Housekeeper(history, config.lock_ttl).lock_of(backends.get(job.backend), job)
    if not parse_requirements(text).is_lock():
        print_notice("some packages have no hash: --lock refuses them")
    click.echo(text, nl=False)
