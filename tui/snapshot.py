"""What the service tells the screens."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.errors import StokeError
from stoke.history.job import Job


@dataclass(frozen=True)
class Snapshot:
    """What is new: the newest jobs, the newest first, with them every one that is not over or was not
    at the last snapshot; and what is wrong with which backend. `stoke.history.listing` has all jobs."""

    jobs: tuple[Job, ...] = ()
    troubles: tuple[tuple[str, StokeError], ...] = ()
