"""Remove a container, running or not."""

from __future__ import annotations

import time
from typing import Any

from backends.docker.engine import CONNECT_SECONDS, AnswerError, Engine

REMOVAL_SECONDS = 10.0
RETRY_SECONDS = 0.1
# How long an answer is awaited where nothing depends on it. The engine has all it needs once the
# request is sent, and deleting the thousands of files of a job may take seconds.
SOON_SECONDS = 0.1


def remove_container(engine: Engine, container: str, what: str, wait: bool = True) -> None:
    """Kill a container and remove it with its anonymous volumes. A missing container is no error.

    Without `wait`, return after `SOON_SECONDS` at the latest; the engine continues.

    Podman answers 500 ("container state improper") while a container is ending, because it has no
    process left to kill; the request is then repeated.
    """
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            with engine.call(what) as api:
                _remove(api, container, wait)
            return
        except AnswerError as error:
            if error.status == 404:
                return
            ending = error.status == 500 and "state improper" in error.explanation
            if not ending or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _remove(api: Any, container: str, wait: bool) -> None:
    from requests.exceptions import ReadTimeout

    # docker-py's remove_container cannot be told how long to wait.
    timeout = {} if wait else {"timeout": (CONNECT_SECONDS, SOON_SECONDS)}
    try:
        answer = api._delete(
            api._url("/containers/{0}", container), params={"v": True, "force": True}, **timeout
        )
    except ReadTimeout:
        if wait:
            raise
        return
    api._raise_for_status(answer)
