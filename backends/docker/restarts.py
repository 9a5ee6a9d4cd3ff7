"""Whether an engine was restarted while a container ran.

Docker keeps its newest 256 events in memory. An engine that has seen the end of a container remembers
it, unless that many others followed; one that was restarted in between does not.
"""

from __future__ import annotations

from datetime import datetime

from backends.docker.engine import Engine, checking_answer
from stoke.errors import EngineError

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
            events = list(api.events(since=0, until=now, decode=True))
        with checking_answer("read the engine's events"):
            if not all(isinstance(one["Action"], str) for one in events):
                return False
            return len(events) < MOST_EVENTS and not any(
                one["Action"] == "die" and one.get("Actor", {}).get("ID") == container
                for one in events
            )
    except EngineError:
        return False


def _seconds(time: str) -> str:
    """Return a time of the engine, in RFC 3339, as its list of events takes it."""
    return f"{datetime.fromisoformat(time).timestamp():.6f}"
