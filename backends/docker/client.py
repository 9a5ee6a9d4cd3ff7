"""docker-py's client with limits on the size and duration of responses. Importing this loads
docker-py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import urllib3
from docker import APIClient
from docker.errors import DockerException
from docker.transport.unixconn import UnixHTTPConnection

from backends.common.answers import BoundedResponse, body_of, read_body
from stoke.files.untrusted import parse_json

# docker-py's own class, which has no other users in this program.
UnixHTTPConnection.response_class = BoundedResponse
# Seconds for one response body. Generous, because an engine under load is slow to add up sizes.
BODY_SECONDS = 300.0
# Bytes of one line of a pull's or build's progress.
MAX_LINE = 1024**2
# Bytes of all of it; a pull reports some 100 a second for each layer.
MAX_PROGRESS = 1024**3


class _TLSConnection(urllib3.connection.HTTPSConnection):
    response_class = BoundedResponse


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Client(APIClient):
    """Follow no redirect, and read no response longer than `MAX_ANSWER` or for more than
    `BODY_SECONDS`.

    Streamed responses (a log, an archive) are limited by their readers.
    """

    def mount(self, prefix: Any, adapter: Any) -> None:
        if prefix == "https://":
            adapter.poolmanager.pool_classes_by_scheme = {"https": _TLSPool}
        super().mount(prefix, adapter)

    def send(self, request: Any, **options: Any) -> Any:
        streamed = options.pop("stream", False)
        options["allow_redirects"] = False
        response = super().send(request, stream=True, **options)
        # 304 means that the container is already started, or stopped.
        if 300 <= response.status_code < 400 and response.status_code != 304:
            response.close()
            raise DockerException("it answers with a redirect, unlike a Docker engine")
        if streamed and response.status_code < 400:
            return response
        until = time.monotonic() + BODY_SECONDS
        response._content = read_body(response.raw, until=until)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response

    def _result(self, response: Any, json: bool = False, binary: bool = False) -> Any:
        answer = super()._result(response, binary=binary or json)  # type: ignore[misc]
        return parse_json(answer) if json else answer

    def _stream_helper(self, response: Any, decode: bool = False) -> Iterator[Any]:
        """Give the progress of a pull or a build, where docker-py reads pieces of any announced
        size."""
        if not decode:
            yield from body_of(response.raw)
            return
        rest = b""
        left = MAX_PROGRESS
        for piece in body_of(response.raw):
            left -= len(piece)
            if left < 0:
                raise ValueError("it goes on without end")
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > MAX_LINE:
                raise ValueError("a line is too long")
            yield from (parse_json(line) for line in lines if line.strip())
        if rest.strip():
            yield parse_json(rest)
