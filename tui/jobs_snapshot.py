"""What the jobs service reports to the screens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stoke.errors import StokeError
from stoke.history.job import Job, Usage


@dataclass(frozen=True)
class JobsSnapshot:
    """`jobs` are the newest ones, newest first, and all that are unfinished or were so in the snapshot
    before. `errors` are (backend name, error). `usage` has the newest figures of the jobs that run,
    `bars` the progress bars that they draw.
    `stoke.history.listing` has all jobs."""

    jobs: tuple[Job, ...] = ()
    errors: tuple[tuple[str, StokeError], ...] = ()
    usage: Mapping[str, tuple[Usage, ...]] = field(default_factory=dict)
    bars: Mapping[str, str] = field(default_factory=dict)
