"""What the jobs service reports to the screens."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.errors import StokeError
from stoke.history.job import Job


@dataclass(frozen=True)
class JobsSnapshot:
    """`jobs` are the newest ones, newest first, and all that are unfinished or were so in the snapshot
    before. `errors` are (backend name, error). `stoke.history.listing` has all jobs."""

    jobs: tuple[Job, ...] = ()
    errors: tuple[tuple[str, StokeError], ...] = ()
