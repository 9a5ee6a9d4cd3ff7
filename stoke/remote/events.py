r"""Separate the runner's event frames from the output of the user's code.

A frame is `\n`, a record separator, the job's nonce, a JSON object and `\n`. All of these bytes belong
to the frame, so the bytes between frames are exactly the user's, also if the last line has no end.
The nonce protects against accidents, not against malice: `stoke.jobs.event_checks` decides which
events to believe.

`stoke.remote.runner.event_writer` writes frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from stoke.remote.protocol import EVENT_FIELDS, NUMBER, frame_start

MAX_FRAME = 8192
"""Bytes. The runner keeps frames below PIPE_BUF, so it never wrote a longer one."""

Event = dict[str, Any]


class EventScanner:
    """Separates the events of one job from a stream of bytes that arrives in any pieces.

    `feed` yields the user's bytes and the events in their order. Bytes that may be the beginning of a
    frame (often just a final newline) are held until the next `feed` or `flush`.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = frame_start(nonce)
        self._held = b""

    @property
    def held(self) -> bytes:
        """The bytes that may begin a frame; they are the user's if the stream ends here."""
        return self._held

    def hold(self, data: bytes) -> None:
        """Continue with bytes that an earlier scanner of the same stream held."""
        self._held = data

    def feed(self, data: bytes) -> Iterator[bytes | Event]:
        data = self._held + data
        self._held = b""
        at = 0
        while True:
            start = data.find(self._mark, at)
            if start < 0:
                keep = self._possible_start(data, at)
                if keep > at:
                    yield data[at:keep]
                self._held = data[keep:]
                return
            body = start + len(self._mark)
            end = data.find(b"\n", body, start + MAX_FRAME)
            if end < 0 and len(data) - start < MAX_FRAME:
                if start > at:
                    yield data[at:start]
                self._held = data[start:]
                return
            event = None if end < 0 else _parse(data[body:end])
            if event is None:
                # No event follows the mark, so these are the user's bytes. Continue after its newline,
                # where a frame may begin.
                yield data[at : start + 1]
                at = start + 1
                continue
            if start > at:
                yield data[at:start]
            yield event
            at = end + 1

    def feed_plain(self, pieces: Sequence[bytes]) -> Sequence[bytes] | None:
        """Feed many pieces that contain no event, and return the user's bytes of each piece.

        If they may contain one, return None and feed nothing.
        """
        data = self._held + b"".join(pieces)
        if self._mark in data:
            return None
        keep = self._possible_start(data, 0)
        held = data[keep:]
        if len(held) > len(pieces[-1]):
            return None
        plain = list(pieces)
        plain[-1] = plain[-1][: len(plain[-1]) - len(held)]
        plain[0] = self._held + plain[0]
        self._held = held
        return plain

    def flush(self) -> bytes:
        """Return the held bytes, which are the user's because the stream has ended."""
        held, self._held = self._held, b""
        return held

    def _possible_start(self, data: bytes, at: int) -> int:
        """Return where the longest tail of `data` begins that may be the start of a frame."""
        for length in range(min(len(self._mark) - 1, len(data) - at), 0, -1):
            if data.endswith(self._mark[:length]):
                return len(data) - length
        return len(data)


def _parse(body: bytes) -> Event | None:
    """Return the event, or None unless it has the fields of `EVENT_FIELDS`."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    for name, kind in EVENT_FIELDS.get(event["event"], {}).items():
        value = event.get(name.rstrip("?"))
        if value is None and name.endswith("?"):
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return None
        # Refuse NaN, infinity, and numbers that the history cannot hold.
        if isinstance(value, NUMBER) and not abs(value) < 1 << 53:
            return None
    return event
