"""What the caches saved, told from the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stoke.job import Job, Phase


@dataclass(frozen=True)
class Savings:
    """One cache's record: hits among jobs that used it, seconds and bytes not spent again.

    None where nothing is known. What a job saved is what the latest miss with the same request took,
    less what it took itself; a hit whose miss nobody saw counts for nothing.
    """

    hit_rate: float | None = None
    seconds: float | None = None
    bytes: int | None = None


def savings(jobs: Iterable[Job], backend: str, scope: str, kind: str) -> Savings:
    """From the history's jobs, in any order. `kind` is "python" or "system", as the phase is called."""
    hits = 0
    used = 0
    seconds: float | None = None
    received: int | None = None
    misses: dict[str | None, Phase] = {}
    for job in sorted(jobs, key=lambda job: job.submitted_at):
        if (job.backend, job.scope) != (backend, scope):
            continue
        phase = next((phase for phase in job.phases if phase.name == kind), None)
        if phase is None or phase.hit is None or phase.seconds is None:
            continue
        used += 1
        if not phase.hit:
            misses[job.request_hash] = phase
            continue
        hits += 1
        miss = misses.get(job.request_hash)
        if miss is None or miss.seconds is None:
            continue
        seconds = (seconds or 0) + max(0, miss.seconds - phase.seconds)
        if miss.bytes is not None and phase.bytes is not None:
            received = (received or 0) + max(0, miss.bytes - phase.bytes)
    return Savings(hits / used if used else None, seconds, received)
