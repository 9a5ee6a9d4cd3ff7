"""Run a job again at each save of a file of its project, until the user ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoke.errors import StokeError
from stoke.history.job import Job
from stoke.jobs.control import stop
from stoke.jobs.run_summary import ran_to_its_end, run_summary
from stoke.project.saves import Saves
from tui.context import Context
from tui.jobs_snapshot import JobsSnapshot

if TYPE_CHECKING:
    from textual.screen import Screen

    from stoke.jobs.request import Request
    from stoke.request.spec import JobSpec


class Repetition:
    """Submits a job's request with the current files at each save; a run that has not ended is stopped.

    `started` gets each new job, `ended` a line about the time of a run, `failed` an error. Made on a
    thread, because it lists the project.
    """

    def __init__(
        self,
        screen: Screen[Any],
        context: Context,
        job: Job,
        spec: JobSpec,
        started: Callable[[Job, Job], object],
        ended: Callable[[str], object],
        failed: Callable[[StokeError], object],
    ) -> None:
        assert spec.project is not None
        self._screen = screen
        self._context = context
        self._spec = spec
        self._started = started
        self._ended = ended
        self._failed = failed
        self._number = 0
        self._is_submitting = False
        self._saved_meanwhile = False
        self._is_closed = False
        self._before: Job | None = job if ran_to_its_end(job) else None
        self.job = job
        """The latest run."""
        root, script = spec.project.root, spec.project.script
        self._saves = Saves(
            [Path(os.path.join(root, script))] if script else [],
            root,
            lambda: screen.app.call_from_thread(self._run),
        )
        self._saves.follow(spec.project, spec.code)

    def close(self) -> None:
        self._is_closed = True
        self._saves.close()

    def take(self, snapshot: JobsSnapshot) -> None:
        """Report the time of the latest run, once it has ended."""
        now = next((job for job in snapshot.jobs if job.id == self.job.id), None)
        if now is None or self.job.state.finished or not now.state.finished:
            return
        self.job = now
        if self._number:
            self._ended(run_summary(self._number, now, self._before))
        if ran_to_its_end(now):
            self._before = now

    def _run(self) -> None:
        if self._is_closed:
            return
        if self._is_submitting:
            self._saved_meanwhile = True
            return
        self._is_submitting, self._saved_meanwhile = True, False
        context, last = self._context, self.job

        def request() -> Request:
            self._saves.read()
            backend, grace = context.backends.get(last.backend), context.config.stop_grace
            stop(context.history.get(last.id) or last, backend, context.history, grace)
            fresh = context.fresh_request(self._spec, last.name)
            self._saves.follow(fresh.spec.project, fresh.spec.code)
            return fresh

        def done(job: Job) -> None:
            self._number += 1
            self.job = job
            self._started(last, job)
            self._submitted()

        def refused(error: StokeError) -> None:
            self._failed(error)
            self._submitted()

        context.submissions.submit(self._screen, last.backend, request, done, refused)

    def _submitted(self) -> None:
        self._is_submitting = False
        if self._saved_meanwhile:
            self._run()
