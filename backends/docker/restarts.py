"""Whether an engine was restarted while a container ran.

Docker keeps its newest 256 events in memory. An engine that has seen the end of a container remembers
it, unless that many others followed; one that was restarted in between does not.
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime
from itertools import islice
from typing import Any

from backends.common.answers import limit_time
from backends.docker.engine import Engine, checking_answer
from stoke.errors import EngineError

MOST_SECONDS = 10.0
MOST_EVENTS = 256
"""https://github.com/moby/moby/blob/master/daemon/events/events.go"""


def was_restarted(engine: Engine, container: str) -> bool:
    """Return whether the engine has forgotten the end of a container because it was restarted.

    False if that cannot be told: Podman has no engine that could be restarted.
    """
    try:
        if engine.is_podman():
            return False
        with engine.call("read the engine's events") as api:
            now = _seconds(api.info()["SystemTime"])  # With an end, the stream ends too.
            with closing(_answer(api, now)) as answer:
                events = list(islice(api._stream_helper(answer, decode=True), MOST_EVENTS))
        with checking_answer("read the engine's events"):
            if not all(isinstance(one["Action"], str) for one in events):
                return False
            return len(events) < MOST_EVENTS and not any(
                one["Action"] == "die" and one.get("Actor", {}).get("ID") == container
                for one in events
            )
    except EngineError:
        return False


def _answer(api: Any, until: str) -> Any:
    """Ask for the events before `until`; docker-py's `events` has no limit of time."""
    answer = api._get(api._url("/events"), params={"since": 0, "until": until}, stream=True)
    limit_time(answer.raw, time.monotonic() + MOST_SECONDS)
    api._raise_for_status(answer)
    return answer


def _seconds(moment: str) -> str:
    """Return a time of the engine, in RFC 3339, as its list of events takes it."""
    return f"{datetime.fromisoformat(moment).timestamp():.6f}"
