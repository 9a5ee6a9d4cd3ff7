"""The logs of several jobs that are shown as one, kept up to date on threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from textual.message_pump import MessagePump

from stoke.errors import StokeError
from stoke.history.job import Job
from stoke.logs.fallback import LogLocation
from stoke.logs.merged import MergedLog
from tui.threads import on_thread

LIVE_SECONDS = 0.1
"""Between two readings of logs that grow."""
QUIET_SECONDS = 0.5


class Merging:
    """Merges the logs of `jobs` until `close`; `log` is what a log window shows.

    In the context of `pump`, `changed` is called after new lines and new states, and `failed` once, if
    the merging cannot go on. `read` returns the jobs with these ids as they are now.
    """

    def __init__(
        self,
        pump: MessagePump,
        jobs: Sequence[Job],
        location_of: Callable[[str], LogLocation],
        read: Callable[[Sequence[str]], list[Job]],
        changed: Callable[[], object],
        failed: Callable[[StokeError], object],
    ) -> None:
        self.jobs = list(jobs)
        self.log = MergedLog({job.id: location_of(job.id) for job in jobs})
        self._pump, self._read = pump, read
        self._changed, self._failed = changed, failed
        self._closed = False
        self._writing = Lock()
        self._update()

    @property
    def have_ended(self) -> bool:
        return all(_has_ended(job) for job in self.jobs)

    def close(self) -> None:
        """Stop, and remove the copy once no thread writes it any more."""
        self._closed = True
        if self._writing.acquire(blocking=False):
            self.log.close()
            self._writing.release()

    def _update(self) -> None:
        if not self._closed:
            on_thread(self._pump, self._work, self._done, self._fail)

    def _work(self) -> tuple[list[Job], int]:
        """Return the jobs as they are now, and how many rows the log has gained."""
        jobs, gained = self.jobs, 0
        if not self.have_ended:
            found = {job.id: job for job in self._read(self.log.job_ids)}
            jobs = [found.get(job.id, job) for job in jobs]
        with self._writing:
            if not self._closed:
                gained = self.log.update({job.id for job in jobs if _has_ended(job)})
        if self._closed:
            self.close()
        return jobs, gained

    def _done(self, result: tuple[list[Job], int]) -> None:
        jobs, gained = result
        has_changed = gained > 0 or jobs != self.jobs
        self.jobs = jobs
        if self._closed:
            return
        if has_changed:
            self._changed()
        if not self.have_ended:
            self._pump.set_timer(LIVE_SECONDS if gained else QUIET_SECONDS, self._update)

    def _fail(self, error: StokeError) -> None:
        if not self._closed:
            self._failed(error)


def _has_ended(job: Job) -> bool:
    """Return whether the log of a job is complete."""
    return job.state.finished and not job.provisional
