"""Submitting requests from the screens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.screen import Screen

from stoke.errors import RequestError, StokeError
from stoke.history.job import Job
from stoke.text.sanitize import clean
from tui.messages import ShowJob
from tui.threads import on_thread

if TYPE_CHECKING:
    from stoke.backend.pool import Backends
    from stoke.history.database import History
    from stoke.jobs.request import Request
    from stoke.request.spec import JobSpec

Node = App[Any] | Screen[Any]


class Submissions:
    """Submits requests on threads and counts those under way.

    The program waits for them before it ends: a job that is half submitted would never start.

    `backends` returns the pool, `request` adds the settings of the configuration to a spec, `changed`
    is called after each submission. With `read_only` nothing is submitted.
    """

    def __init__(
        self,
        history: History,
        backends: Callable[[], Backends],
        request: Callable[[JobSpec, str], Request],
        changed: Callable[[], object],
        read_only: bool,
    ) -> None:
        self._history = history
        self._backends = backends
        self._request = request
        self._changed = changed
        self._read_only = read_only
        self.pending = 0
        self.on_end: Callable[[bool], object] = lambda _: None
        """Called after each submission with whether it succeeded."""

    def submit(
        self,
        node: Node,
        backend: str,
        request: Callable[[], Request],
        done: Callable[[Job], object],
        failed: Callable[[StokeError], object],
    ) -> None:
        """Make a request and submit it on a thread; `done` or `failed` is called in the context of
        `node`."""
        from stoke.history.queue import Placement
        from stoke.jobs.prepare import prepare
        from stoke.jobs.submit import submit
        from stoke.jobs.turns import Turn

        def work() -> Job:
            backends = self._backends()
            prepared = prepare(request(), backends.get(backend), self._history)
            turn = Turn(Placement(), backends.config)
            return submit(prepared, self._history, queue=turn)

        def succeeded(job: Job) -> None:
            done(job)
            self._end(True)

        def refused(error: StokeError) -> None:
            self._end(False)
            failed(error)

        self.pending += 1
        on_thread(node, work, succeeded, refused)

    def _end(self, succeeded: bool) -> None:
        self.pending -= 1
        self._changed()
        self.on_end(succeeded)

    def submit_spec(
        self,
        node: Node,
        backend: str,
        spec: JobSpec,
        name: str,
        failed: Callable[[StokeError], object],
    ) -> None:
        """Submit `spec` with the settings of the configuration, then show the job."""
        self.submit_request(node, backend, lambda: self._request(spec, name), failed)

    def submit_request(
        self,
        node: Node,
        backend: str,
        request: Callable[[], Request],
        failed: Callable[[StokeError], object],
        done: Callable[[], object] = lambda: None,
        show: bool = True,
    ) -> None:
        """Make a request on the thread and submit it, then show the job if `show` is set."""
        if self._read_only:
            failed(RequestError("read_only", "the screens cannot submit jobs", "leave it out"))
            return

        def submitted(job: Job) -> None:
            done()
            node.notify(f"submitted {clean(job.id)}", markup=False, timeout=3)
            if show:
                node.post_message(ShowJob(job.id))

        self.submit(node, backend, request, submitted, failed)
