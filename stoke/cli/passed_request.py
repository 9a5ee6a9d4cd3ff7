"""Run a request that another process of stoke hands over: the screens, which step aside for a shell.

`python -m stoke.cli.passed_request FD` reads it from an open pipe: the terminal is its standard input,
and a request may hold values that belong in no argument list and no file.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import NamedTuple

from stoke.config.model import Config
from stoke.errors import EXIT_ENGINE, StokeError
from stoke.jobs.request import Request


class PassedRequest(NamedTuple):
    request: Request
    backend: str
    config: Config

    def as_bytes(self) -> bytes:
        return pickle.dumps(self)


def main() -> int:
    """Return the exit code of the job; `EXIT_ENGINE` for every error."""
    from stoke.cli.output import print_error
    from stoke.cli.run_request import run_request

    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        data = pipe.read()
    if not data:
        return EXIT_ENGINE  # The other process has ended.
    # From a pipe that only the process that started this one can write to.
    passed: PassedRequest = pickle.loads(data)  # noqa: S301
    try:
        return run_request(
            passed.request, passed.backend, passed.config, detach=False, as_json=False, quiet=False
        )
    except StokeError as error:
        print_error(error.what, error.hint)
        return EXIT_ENGINE


if __name__ == "__main__":
    sys.exit(main())
