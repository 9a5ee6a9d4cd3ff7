"""The steps of a job on its way to its container, with the times at which it reached them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from backends.argo.status import Object, container, epoch, scheduled_at

Phases = tuple[tuple[str, float, float | None], ...]


_GO_DURATION = re.compile(r" in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))")


class StartTimeline:
    """The times at which a job reached each step on its way to its container.

    The API has whole seconds. The time of a change that was observed live is more precise.
    """

    def __init__(self, submitted: float | None = None) -> None:
        self._submitted = submitted
        self._at: dict[str, float] = {}
        self._unseen: set[str] = set()
        self._pull: tuple[float, float] | None = None

    def record(self, pod: Object | None, now: float) -> None:
        """Record the pod's current state; `pod` is None before it exists."""
        for name, at in _boundaries(pod).items():
            if at is None:
                self._unseen.add(name)
            elif name not in self._at:
                self._at[name] = now if name in self._unseen else at

    def record_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take the duration of the image pull from the pod's events, the only place that has it."""
        for event in events:
            took = _GO_DURATION.search(event.get("message", ""))
            of_main = "{main}" in (event.get("involvedObject") or {}).get("fieldPath", "")
            if event.get("reason") != "Pulled" or not of_main or not took:
                continue
            hours, minutes, seconds, unit = took.groups()
            scale = 0.001 if unit == "ms" else 1
            length = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds) * scale
            ended = epoch(event.get("lastTimestamp") or event.get("eventTime"))
            if ended is not None:
                self._pull = (ended - length, length)

    def phases(self, created: float | None) -> Phases:
        """Return the phases. `created` is the workflow's creation time, for a job submitted
        elsewhere."""
        at = self._at
        began = self._submitted or created
        if began is None:
            return ()
        found: list[tuple[str, float, float | None]] = []
        for name, until in (("queue", "pod"), ("schedule", "scheduled"), ("start", "started")):
            if name == "start" and self._pull is not None:
                start, length = self._pull
                found.append(("pull", max(start, began), length))
                began = max(began, start + length)
            end = at.get(until)
            found.append((name, began, None if end is None else max(0.0, end - began)))
            if end is None:
                break
            began = max(began, end)
        return tuple(found)


def _boundaries(pod: Object | None) -> dict[str, float | None]:
    if pod is None:
        return {"pod": None, "scheduled": None, "started": None}
    state = (container(pod) or {}).get("state", {})
    main = state.get("running") or state.get("terminated") or {}
    return {
        "pod": epoch(pod["metadata"].get("creationTimestamp")),
        "scheduled": scheduled_at(pod),
        "started": epoch(main.get("startedAt")),
    }
