"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from stoke.api.errors import ProblemError
from stoke.api.log_cursor import NAMES, LogPiece

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b": still here\n\n"
_POSITION = re.compile(r"(\d{1,18})(\.end)?")


def log_event(piece: LogPiece) -> bytes:
    """Return a piece of a log as an event. base64 keeps every byte, also line ends and broken UTF-8."""
    data = base64.b64encode(piece.data)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (piece.end, NAMES[piece.stream].encode(), data)


def json_event(name: str, value: dict[str, Any], event_id: str | None = None) -> bytes:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def read_position(text: str | None) -> tuple[int, bool]:
    """Return the position of a Last-Event-ID, and whether it is that of the end."""
    if not text:
        return 0, False
    found = _POSITION.fullmatch(text)
    if found is None:
        raise ProblemError(422, "is not the id of an event of this log", field="Last-Event-ID")
    return int(found[1]), found[2] is not None
