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
from stoke.results.collect import MAX_ENTRIES, TooLargeError
from stoke.text.units import human_bytes

MOST_HEADERS = MAX_ENTRIES * 10_240
"""Bytes of headers and padding; a long path takes several blocks."""


def read_results(engine: Engine, container: str, limit: int) -> Generator[ResultEntry]:
    """Give the entries of the results folder; none if the container has no such folder.

    `TooLargeError` for an archive of more than `limit` bytes: also entries that are not taken, such as
    links and devices, could go on without end.
    """
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
                yield from read_entries(_pieces(answer, limit))
    except AnswerError as error:
        if error.status != 404:
            raise
    except DamagedTarError as error:
        raise EngineError(f"cannot {what}: {error}", "check the engine: docker info") from error


def _pieces(answer: Any, limit: int) -> Iterator[bytes]:
    left = limit + MOST_HEADERS
    for piece in body_of(answer.raw, slowest=True):
        left -= len(piece)
        if left < 0:
            raise TooLargeError(
                f"the results have more than {human_bytes(limit)} (results.max_size)"
            )
        yield piece
