r"""The runner's event lines: how they stand in a log, and how they are taken out again.

A frame is `\n`, a record separator, the job's nonce, a JSON object and `\n`. All of that belongs
to the frame, so what is left after taking it out is the user's bytes exactly, also where the
user's last line has no end. The nonce guards against accident, not against malice: what is
believed of an event is decided in `stoke.jobs.event_checks`.

`stoke.remote.runner` writes frames (it runs alone inside the job and imports nothing of ours); the
contract test feeds what it writes to what is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

SEPARATOR = b"\x1e"
# The runner keeps frames below PIPE_BUF so that a concurrent writer cannot cut them in two; what is
# longer than this never came from it.
MAX_FRAME = 8192

Event = dict[str, Any]


def frame(nonce: str, event: Event) -> bytes:
    """One event as it stands in a log."""
    body = json.dumps(event, separators=(",", ":"))
    return b"\n" + SEPARATOR + nonce.encode() + body.encode() + b"\n"


class EventScanner:
    """Takes the events of one job out of one stream of bytes, however the stream is cut.

    `feed` yields the user's bytes and the events in the order they stand. Bytes that may turn out
    to begin a frame (often just a final newline) are held until the next feed or `flush`.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = b"\n" + SEPARATOR + nonce.encode()
        self._held = b""

    @property
    def held(self) -> bytes:
        """Bytes that are not decided yet: the user's own if the stream ends here."""
        return self._held

    def hold(self, data: bytes) -> None:
        """Begins with bytes that an earlier scanner of the same stream held."""
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
                # The mark, and no event behind it: the user's bytes after all. Look on behind its
                # newline, where a real frame may begin.
                yield data[at : start + 1]
                at = start + 1
                continue
            if start > at:
                yield data[at:start]
            yield event
            at = end + 1

    def feed_plain(self, pieces: Sequence[bytes]) -> Sequence[bytes] | None:
        """`feed` for many pieces at once where there is no event in them: the user's bytes, piece by
        piece. None, and nothing is fed, where there may be one."""
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
        """The stream is over: what was held is the user's."""
        held, self._held = self._held, b""
        return held

    def _possible_start(self, data: bytes, at: int) -> int:
        """Where the longest tail of `data` begins that may be the start of a mark."""
        for length in range(min(len(self._mark) - 1, len(data) - at), 0, -1):
            if data.endswith(self._mark[:length]):
                return len(data) - length
        return len(data)


# What an event of each kind holds, as the runner writes it; "?" may be null or missing. A kind that
# is not here passes as it is.
_NUMBER = (int, float)
_HOLDS: dict[str, dict[str, Any]] = {
    "begin": {"phase": str, "time": _NUMBER},
    "phase": {
        "phase": str,
        "start": _NUMBER,
        "seconds": _NUMBER,
        "hit?": bool,
        "packages?": int,
        "cached?": int,
        "bytes?": int,
        "key?": str,
        "made_at?": _NUMBER,
    },
    "packages": {"phase": str, "hit": list, "miss": list},
    "note": {"text": str},
    "error": {"phase": str, "text": str, "hint?": list, "tail?": str},
    "end": {
        "time": _NUMBER,
        "exit_code": int,
        "reason?": str,
        "cpu_seconds?": _NUMBER,
        "peak_memory?": int,
    },
}


def _parse(body: bytes) -> Event | None:
    """The event, if it is one that the runner could have written: what follows can rely on that."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    for name, kind in _HOLDS.get(event["event"], {}).items():
        value = event.get(name.rstrip("?"))
        if value is None and name.endswith("?"):
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return None
        # Neither NaN nor infinite, and no more than the history can hold.
        if isinstance(value, _NUMBER) and not abs(value) < 1 << 53:
            return None
    return event
