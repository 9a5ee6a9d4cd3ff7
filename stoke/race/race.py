"""Race a request: run it cold, in an ephemeral scope, and then warm, in its own scope.

The runs come one after the other. At the same time they would compete for processor, disk and network,
and the cold run, which needs all three, would lose most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from stoke.backend.api import Backend
from stoke.backend.capabilities import ForgetsScopes
from stoke.backend.pool import Backends
from stoke.cache.keys import named_packages
from stoke.cache.scopes import is_ephemeral
from stoke.config.model import Config
from stoke.errors import EngineError, RequestError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.control import stop
from stoke.jobs.prepare import check_request, prepare
from stoke.jobs.refresh import clean_up
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.jobs.tracker import Tracker
from stoke.jobs.warm import CODE, warm_request
from stoke.logs.spool import SpoolReader
from stoke.race.earlier import keep
from stoke.race.ephemeral_scope import EphemeralScope, sweep
from stoke.race.recording import Recording, missed, run_of
from stoke.remote.events import Event
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean_line

COLD, WARMING, WARM = "cold", "warming", "warm"
TAIL_LINES = 20
TAIL_LENGTH = 2000


class RaceStoppedError(EngineError):
    """The user stopped the race."""


class RunFailedError(EngineError):
    """A run failed. `job` is its record, `tail` the last lines of its output."""

    def __init__(self, job: Job, what: str, hint: str | None, tail: list[str]) -> None:
        super().__init__(what, hint)
        self.job = job
        self.tail = tail


def check_race(spec: JobSpec, backend: Backend) -> None:
    """Raise `RequestError` if nothing of a request is cached, or its backend cannot run it."""
    if not spec.use_cache:
        raise RequestError(
            "use_cache", "a race shows what the cache saves, and this request uses no cache",
            "have it use the cache",
        )  # fmt: skip
    if not named_packages(spec):
        raise RequestError(
            "dependencies", "a race needs packages: without packages there is nothing to cache",
            "name some, for example numpy",
        )  # fmt: skip
    check_request(spec, backend)


@dataclass(frozen=True)
class RaceStatus:
    """The progress of a race: the active run ("cold", "warming", "warm"; "" between runs and before
    the first), and the last record of each run that has begun."""

    active: str = ""
    cold: Job | None = None
    warming: Job | None = None
    warm: Job | None = None


class Race:
    """One race. `run` blocks until its end; `stop` ends it from another thread.

    `on_change` is called when `status` has changed, `say` with messages for the user; both on threads
    of the race.
    """

    def __init__(
        self,
        request: Request,
        backends: Backends,
        backend: Backend,
        history: History,
        config: Config,
        on_change: Callable[[], object] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if request.spec.shell:
            raise RequestError("shell", "cannot be raced: it waits for what you type")
        self.status = RaceStatus()
        self._request = request
        self._backends = backends
        self._backend = backend
        self._history = history
        self._config = config
        self._on_change = on_change
        self._say = say
        self._notes: list[str] = []
        self._outputs: dict[str, list[str]] = {}
        """The last lines of the runs that have ended. The spool of the cold run is deleted."""
        self._lock = threading.Lock()
        self._running: Job | None = None
        self._grace: float | None = None
        """Seconds between SIGTERM and SIGKILL once `stop` was called; None before."""

    def run(self) -> Recording:
        """Run the request cold and warm.

        Raises `RunFailedError` if a run fails, `RaceStoppedError` after `stop`, and `EngineError` if
        the backend fails. In every case the scope of the cold run is deleted, at once or as soon as
        that is possible.
        """
        spec = self._request.spec
        check_race(spec, self._backend)
        # This also finds out, before anything is created, whether the engine answers.
        if isinstance(self._backend, ForgetsScopes):
            self._backend.volumes()
        sweep(self._backends, self._history)
        raced_at = time.time()
        cold = self._run_cold(spec)
        warming, warm = self._run_warm()
        named = named_packages(spec)
        packages = [name[:300] for names in named.values() for name in names]
        recording = Recording(
            name=self._request.name,
            backend=self._backend.name,
            scope=spec.scope,
            packages=packages[:1000],
            raced_at=raced_at,
            cold=run_of(cold),
            warm=run_of(warm),
            warmed=None if warming is None else warming.seconds,
            notes=self._notes,
        )
        try:
            keep(recording)
        except EngineError as error:
            self._say(f"this race is not listed later: {error.what}")
        return recording

    def output(self, what: str) -> list[str]:
        """Return the last lines that the cold or the warm run has printed so far, sanitized."""
        ended = self._outputs.get(what)
        if ended is not None:
            return ended
        job = {COLD: self.status.cold, WARM: self.status.warm}[what]
        return [] if job is None else _tail(job.id)

    def stop(self, grace: float) -> None:
        """Stop the active run, SIGTERM now and SIGKILL after `grace` seconds (0: at once), and begin no
        other. Raises `EngineError` if the engine cannot be reached."""
        with self._lock:
            self._grace = grace
            running = self._running
        if running is not None:
            self._stop(running, grace)

    # ----------------------------------------------------------------------------------------------

    def _run_cold(self, spec: JobSpec) -> Job:
        with EphemeralScope(self._backend, self._history) as scope:
            changes: dict[str, object] = {"scope": scope}
            if not isinstance(self._backend, ForgetsScopes):
                changes["use_cache"] = False
                self._note(
                    f"the {self._backend.name} backend cannot delete a scope, so the cold run used no "
                    "cache at all"
                )
            cold = spec.model_copy(update=changes)
            return self._run(COLD, replace(self._request, spec=cold))

    def _run_warm(self) -> tuple[Job | None, Job]:
        """Return the run that warmed the scope, if one was needed, and the warm run."""
        request = replace(self._request, upgrade=False)
        warming = None
        expected = prepare(request, self._backend, self._history).prediction
        warm_already = {expected.python, expected.system} <= {"hit", None}
        if self._request.upgrade or not warm_already:
            nothing: dict[str, object] = {
                "code": CODE,
                "module": None,
                "exec": None,
                "shell": False,
            }
            nothing |= {"project": None, "args": (), "env": {}, "secrets": {}}
            spec = request.spec.model_copy(update=nothing)
            first = warm_request(spec, self._config, self._request.upgrade)
            warming = self._run(WARMING, first)
        warm = self._run(WARM, request)
        if missed(warm) and warming is None:
            # The lockfile was too old, or another user pruned the cache.
            self._say("the caches were not warm; this run has warmed them, so it is repeated")
            warming, warm = warm, self._run(WARM, request)
        if missed(warm):
            self._note(f"still not warm in the second run: {', '.join(missed(warm))}")
        return warming, warm

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(text)

    def _run(self, what: str, request: Request) -> Job:
        """Submit a run, follow it to its end and finalize it. Returns its record if it succeeded."""
        self._set_status(what, of=what)
        self._go_on()

        def submitting(name: str, _start: float, seconds: float | None) -> None:
            if name == "pull" and seconds is None:
                self._say("fetching the image")

        nothing: dict[str, object] = {"retries": 0, "retry_exit": (), "notify": False}
        once = request.spec.model_copy(update=nothing)
        prepared = prepare(replace(request, spec=once), self._backend, self._history)
        job = submit(prepared, self._history, submitting)
        with self._lock:
            self._running = job
            grace = self._grace
        if grace is not None:
            self._stop(job, grace)
        self._set_status(what, job, of=what)
        said: list[Event] = []

        def changed() -> None:
            if (now := self._history.get(job.id)) is not None:
                self._set_status(what, now, of=what)

        try:
            Tracker(
                self._backend, self._history, job.id, changed, said.append,
                on_trouble=lambda error: self._say(f"{error.what}; trying again"),
            ).run()  # fmt: skip
        finally:
            with self._lock:
                self._running = None
        ended = self._history.get(job.id)
        if ended is None:
            raise EngineError(f"{job.id} was removed during the race")
        self._outputs[what] = _tail(job.id)
        self._set_status("", ended, of=what)
        clean_up(job.id, self._backend, self._history)
        self._go_on()
        if ended.state is not JobState.SUCCEEDED:
            raise _failure(what, ended, self._history)
        return ended

    def _go_on(self) -> None:
        if self._grace is not None:
            raise RaceStoppedError("the race was stopped before both runs had ended")

    def _stop(self, job: Job, grace: float) -> None:
        now = self._history.get(job.id)
        if is_ephemeral(job.scope) and now is not None and now.started_at is None:
            grace = (
                0  # No code of the user has begun, and what the job has built is deleted anyway.
            )
        stop(job, self._backend, self._history, grace)

    def _set_status(self, active: str, job: Job | None = None, *, of: str) -> None:
        """Set the active run, and the record of the run `of`."""
        self.status = replace(self.status, active=active, **{of: job})
        self._on_change()


def _failure(what: str, job: Job, history: History) -> RunFailedError:
    why = f"exit code {job.exit_code}" if job.reason is None else job.reason
    # The notes of a cold run are deleted with its scope, so the error repeats them.
    hints = [note.hint for note in history.notes(job.id) if note.kind == "error" and note.hint]
    hint = hints[-1] if hints else None
    if hint is None and what != COLD:
        hint = f"see what it printed: stoke logs {job.id}"
    return RunFailedError(job, f"the {what} run {job.state}: {why}", hint, _tail(job.id))


def _tail(job_id: str) -> list[str]:
    reader = SpoolReader(job_dir(job_id))
    try:
        _, count = reader.size()
        lines = reader.lines(max(0, count - TAIL_LINES), longest=TAIL_LENGTH)
        return [clean_line(line.text) for line in lines]
    finally:
        reader.close()
