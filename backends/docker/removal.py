"""Remove a container, running or not."""

from __future__ import annotations

import time

from backends.docker.engine import AnswerError, Engine

REMOVAL_SECONDS = 10.0
RETRY_SECONDS = 0.1


def remove_container(engine: Engine, container: str, what: str) -> None:
    """Kill a container and remove it with its anonymous volumes. A missing container is no error.

    Podman answers 500 ("container state improper") while a container is ending, because it has no
    process left to kill; the request is then repeated.
    """
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            with engine.call(what) as api:
                api.remove_container(container, force=True, v=True)
            return
        except AnswerError as error:
            if error.status == 404:
                return
            ending = error.status == 500 and "state improper" in error.explanation
            if not ending or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)
