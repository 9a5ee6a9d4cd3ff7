"""Bell and desktop notification for long jobs that have ended."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stoke.history.job import Job
from stoke.text.sanitize import clean


class Bell:
    """`kind` is "off", "bell" or "desktop"; `after` is the least duration of a job, in seconds."""

    def __init__(self, kind: str, after: float) -> None:
        self._kind = kind
        self._after = after

    def ended(self, before: Iterable[Job], now: Iterable[Job]) -> list[Job]:
        """Return the jobs that ran before, have ended now, and took long enough."""
        running = {job.id for job in before if not job.state.finished}
        return [
            job
            for job in now
            if job.id in running
            and job.sweep is None  # The end of a sweep is announced.
            and job.state.finished
            and job.seconds is not None
            and job.seconds >= self._after
        ]

    def sequence(self, ended: list[Job]) -> str:
        """Return what to write to the terminal for these jobs."""
        if self._kind == "off" or not ended:
            return ""
        if self._kind == "bell":
            return "\a"
        names = ", ".join(f"{_plain(job.id)} {job.state}" for job in ended[:3])
        more = f" and {len(ended) - 3} more" if len(ended) > 3 else ""
        return f"\x1b]9;stoke: {names}{more}\x07\a"


def _plain(name: str) -> str:
    """Return a job id without unusual characters: in some terminals `;` begins another field."""
    return re.sub(r"[^A-Za-z0-9._-]", "?", clean(name)[:60])
