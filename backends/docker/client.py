"""docker-py's client with limits on what an engine may answer. Importing this loads docker-py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from docker import APIClient
from docker.errors import DockerException
from docker.transport.unixconn import UnixHTTPConnection

from backends.common.answers import BoundedResponse, body_of, read_body
from stoke.files.untrusted import parse_json

# docker-py's own class, which has no other users.
UnixHTTPConnection.response_class = BoundedResponse
# For the body of one answer, from its headers on. Generous: an engine under load adds up sizes.
BODY_SECONDS = 300.0
# One line of the progress of a pull or a build.
MAX_LINE = 1024**2


class Client(APIClient):
    """Follow no redirect, and read no answer longer than `MAX_ANSWER` or for more than `BODY_SECONDS`.

    Where the answer to a request is a stream (a log, an archive), its reader has the limits.
    """

    def send(self, request: Any, **options: Any) -> Any:
        streamed = options.pop("stream", False)
        options["allow_redirects"] = False
        response = super().send(request, stream=True, **options)
        # 304: the container is already started, or stopped.
        if 300 <= response.status_code < 400 and response.status_code != 304:
            response.close()
            raise DockerException("it answers with a redirect, which no Docker engine does")
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
        """The progress of a pull or a build; docker-py reads as much at once as the engine says."""
        if not decode:
            yield from body_of(response.raw)
            return
        rest = b""
        for piece in body_of(response.raw):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > MAX_LINE:
                raise ValueError("a line without an end")
            yield from (parse_json(line) for line in lines if line.strip())
        if rest.strip():
            yield parse_json(rest)
