"""Read the results folder out of an ended container, through the engine's archive call.

That works for stopped and for killed containers, and needs no volume.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from backends.common.answers import body_of
from backends.common.tar_entries import DamagedTarError, read_entries
from backends.docker.engine import AnswerError, Engine
from stoke.backend.capabilities import ResultEntry
from stoke.errors import EngineError
from stoke.remote.protocol import RESULTS_MOUNT


def read_results(engine: Engine, container: str) -> Generator[ResultEntry]:
    """Give the entries of the results folder; none if the container has no such folder."""
    what = f"read the results of {container}"
    try:
        with engine.call(what) as api:
            # docker-py's get_archive cannot end a response early.
            answer = api._get(
                api._url("/containers/{0}/archive", container),
                params={"path": RESULTS_MOUNT},
                # Otherwise the engine spends a third of the time on compressing the archive.
                headers={"Accept-Encoding": "identity"},
                stream=True,
            )
            with closing(answer):
                api._raise_for_status(answer)
                yield from read_entries(_pieces(answer))
    except AnswerError as error:
        if error.status != 404:
            raise
    except DamagedTarError as error:
        raise EngineError(f"cannot {what}: {error}", "check the engine: docker info") from error


def _pieces(answer: Any) -> Iterator[bytes]:
    return body_of(answer.raw)
