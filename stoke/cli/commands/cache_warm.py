"""Requests of `stoke cache warm`: jobs that build an environment and run nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stoke.cli.options import request_from
from stoke.cli.output import print_notice
from stoke.cli.run_request import run_request
from stoke.history.database import History
from stoke.jobs.warm import CODE
from stoke.jobs.warm import most_used as most_used_in

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.jobs.request import Request


def environment_request(config: Config, **options: Any) -> Request:
    """Return the request that the command's options make."""
    request = request_from(config, code=CODE, name="warm", **options)
    return replace(request, compile_bytecode=True)


def most_used(config: Config, backend: str, scope: str, count: int, upgrade: bool) -> list[Request]:
    with History() as history:
        return most_used_in(history, config, backend, scope, count, upgrade)


def warm_up(requests: list[Request], backend: str, config: Config) -> int:
    """Run the requests one after the other. Return the first exit code that is not 0, or 0."""
    failed = 0
    for number, request in enumerate(requests, start=1):
        if len(requests) > 1:
            names = ", ".join((*request.spec.dependencies, *request.spec.system))
            names = names or "a requirements file"
            print_notice(f"{number} of {len(requests)}: {names}")
        code = run_request(request, backend, config, detach=False, as_json=False, quiet=False)
        failed = failed or code
    return failed
