"""Track one submitted job until its final state is confirmed.

Events and the engine's state go into the history, the log into the spool; commands and screens read
those two. Several processes may track the same job: one follows the log, the others wait for what it
writes and take over when it ends.

If the log cannot be saved, a process that shows it follows it into a temporary folder. The end then
stays provisional and the job stays at its engine, so that a later process can save the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoke.backend.api import Backend, EngineState, EngineStatus
from stoke.errors import (
    EXIT_ENGINE,
    EXIT_STOPPED,
    EXIT_TIMEOUT,
    EngineError,
    RequestError,
    WaitingError,
)
from stoke.files.debug import Logger
from stoke.files.paths import job_dir
from stoke.history.database import History, Note
from stoke.history.job import PREPARING_PHASES, Job, JobState, Phase, Usage
from stoke.history.queue import JobQueue
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.jobs.event_checks import RUN, EventChecks
from stoke.jobs.progress_text import progress_text
from stoke.logs.fallback import LogLocation, UnsavedLogError
from stoke.logs.follower import SIGNAL, Follower, FollowerBusyError
from stoke.remote.events import Event

_log = Logger(__name__)

POLL_SECONDS = 0.1
# Seconds between looks for the scheduler of a job that waits in the queue.
WAKE_SECONDS = 2.0
# How long an engine may report a job as running after the job has reported its end. After that time the
# report is taken for one that the user's code printed.
DOUBT_SECONDS = 30.0

# The runner cannot see who sent a signal: `docker stop`, another user's stoke, or the job's own code.
FOREIGN_SIGNAL = "a signal ended it, and no stoke stop is recorded here"


class Tracker:
    """Track one job. `run` blocks until the end is confirmed; `close` ends it from another thread.

    The callbacks run on the tracking thread. `on_change` is called after the history or the spool has
    changed; `on_event` with each event of the runner that is believed; `on_trouble` when the engine
    cannot be reached, and with a `WaitingError` when the engine reports why the job does not start.
    `on_unsaved` is called with the reason when the log can only be shown, not saved; without that
    callback an unsaved log raises `EngineError`. `location` is shared with the readers of the log; they
    move with it to the fallback folder and back.
    """

    def __init__(
        self,
        backend: Backend,
        history: History,
        job_id: str,
        on_change: Callable[[], None] = lambda: None,
        on_event: Callable[[Event], None] = lambda event: None,
        on_trouble: Callable[[EngineError], None] = lambda error: None,
        on_unsaved: Callable[[UnsavedLogError], None] | None = None,
        location: LogLocation | None = None,
    ) -> None:
        self._backend = backend
        self._history = history
        self.job_id = job_id
        self._on_change = on_change
        self._on_event = on_event
        self._on_trouble = on_trouble
        self._on_unsaved = on_unsaved
        self._closed = threading.Event()
        self._follower: Follower | None = None
        self._error: str | None = None
        self._told: tuple[tuple[str, float, float | None], ...] = ()
        self._waits_for: str | None = None
        self._checks: EventChecks | None = None
        # Set once the job's own folder has had no space for long.
        self._stays_in_fallback = False
        self._location = location or LogLocation(job_dir(job_id))
        self._restarted = False
        self._wakes_at = 0.0

    @property
    def held(self) -> bytes:
        """The last bytes of stderr, if an event may begin there (see `stoke.remote.events`)."""
        follower = self._follower
        return follower.held if follower else b""

    def run(self) -> None:
        """Follow the job until its end is confirmed and its log complete, or until `close`.

        Returns also once the code of a job has failed that is then held.
        """
        while not self._closed.is_set():
            job = self._history.get(self.job_id)
            if job is None or (job.state.finished and not job.provisional):
                self._location.restore_log_folder()  # Another process has saved the log.
                return
            if JobQueue(self._history).has(self.job_id):
                self._wait_in_queue(job)
                continue
            try:
                follower = self._new_follower()
            except FollowerBusyError:
                self._on_change()
                self._closed.wait(POLL_SECONDS)
                continue
            self._follower = follower
            if self._closed.is_set():
                follower.close()
            try:
                last = follower.run()
            except EngineError as error:
                self._fall_back(error)
                continue
            if last is not None:
                if follower.folder == self._location.folder:
                    self._location.restore_log_folder()
                self._confirm(last, follower)
                self._on_change()
                return

    def _wait_in_queue(self, job: Job) -> None:
        """Wait a moment for the start of a job, and report the reason once it is another one."""
        from stoke.jobs.scheduler_process import wake_scheduler

        if job.reason and job.reason != self._waits_for:
            self._on_trouble(WaitingError(job.reason))
            self._waits_for = job.reason
            self._on_change()
        if time.monotonic() > self._wakes_at:
            self._wakes_at = time.monotonic() + WAKE_SECONDS
            wake_scheduler(self._history)  # The one before may have been killed.
        self._closed.wait(POLL_SECONDS)

    def catch_up(self) -> None:
        """Bring log and history up to date. If another process follows the job, they already are."""
        if JobQueue(self._history).has(self.job_id):
            return
        try:
            follower = self._new_follower()
        except FollowerBusyError:
            return
        self._follower = follower
        if self._closed.is_set():
            follower.close()
        follower.catch_up()

    def _fall_back(self, error: EngineError) -> None:
        """Show the log from a temporary folder, because its own has had no space for long.

        Raises `error` if no caller shows the log, or if that folder has no space either.
        """
        if self._on_unsaved is None or self._stays_in_fallback or self._closed.is_set():
            raise error
        shown = self._location.fallback_folder(error)
        self._stays_in_fallback = True
        self._on_unsaved(shown.why)

    def _new_follower(self) -> Follower:
        self._checks = None  # Another process may have followed in the meantime.
        if self._stays_in_fallback:
            return self._follower_in(self._location.current)
        try:
            follower = self._follower_in(self._location.folder)
        except EngineError as error:
            known = self._location.unsaved
            if self._on_unsaved is None or (known and known.whole):
                raise
            shown = self._location.fallback_folder(error)
            self._on_unsaved(shown.why)
            return self._follower_in(shown.folder)
        self._location.restore_if_caught_up()
        return follower

    def _follower_in(self, folder: Path) -> Follower:
        return Follower(
            self._backend,
            self.job_id,
            self._history.nonce(self.job_id) or "",
            folder,
            self._take_event,
            lambda: self._log_grew(folder),
            self._on_trouble,
            self.take_state,
            self._note_restart,
        )

    def _log_grew(self, folder: Path) -> None:
        if folder == self._location.folder:
            self._location.restore_if_caught_up()
        self._on_change()

    def close(self) -> None:
        self._closed.set()
        if self._follower is not None:
            self._follower.close()

    def take_state(self, engine: EngineState) -> None:
        """Record the engine's state: phases before the runner, the reason to wait, the end."""
        news = [Phase(*phase) for phase in engine.phases if phase not in self._told]
        for phase in news:
            self._history.set_phase(self.job_id, phase)
        self._told = engine.phases
        self._take_notes(engine)
        runs = engine.status == EngineStatus.RUNNING
        taken_back = runs and self._take_back_end()
        news_of_waiting = runs and self._note_waiting(engine)
        news_of_end = engine.status == EngineStatus.EXITED and self._take_end(engine)
        if news or taken_back or news_of_waiting or news_of_end:
            self._on_change()

    def _take_back_end(self) -> bool:
        """Undo an end that the job reported and its engine has contradicted for long enough.

        Returns whether it did.
        """
        job = self._history.get(self.job_id)
        if job is None or not job.provisional or not job.state.finished:
            return False
        if job.held_until is not None and time.time() < job.held_until + DOUBT_SECONDS:
            return False  # Its runner waits for `stoke exec`.
        if self._location.unsaved is not None:
            return False  # Provisional for another reason: its log is not saved yet.
        if time.time() - (job.finished_at or 0.0) < DOUBT_SECONDS:
            return False
        back = {"exit_code": None, "reason": None, "finished_at": None}
        self._history.update(self.job_id, state=JobState.RUNNING, provisional=False, **back)
        return True

    def _take_end(self, engine: EngineState) -> bool:
        """Record the engine's end as provisional, because reading the rest of the log may take long.

        Returns whether that changed the record.
        """
        job = self._history.get(self.job_id)
        if job is None or job.state.finished or engine.exit_code is None or engine.log_gone:
            return False
        changes = self._outcome(engine.exit_code, engine.reason)
        finished_at = engine.finished_at or time.time()
        self._history.update(self.job_id, **changes, provisional=True, finished_at=finished_at)
        return True

    def _note_waiting(self, engine: EngineState) -> bool:
        """Record why the job waits, or that it no longer does. Returns whether that is new."""
        job = self._history.get(self.job_id)
        if job is None or job.state.finished:
            return False
        if engine.reason and engine.reason != self._waits_for:
            self._on_trouble(WaitingError(engine.reason, engine.hint))
        self._waits_for = engine.reason
        waits_for = "; ".join(text for text in (engine.reason, engine.hint) if text) or None
        if waits_for == job.reason:
            return False
        self._history.update(self.job_id, reason=waits_for)
        return True

    def _note_restart(self) -> None:
        self._restarted = True

    def _take_notes(self, engine: EngineState) -> None:
        """Record and report the engine's notes on how it ran the job."""
        known = {note.text for note in self._history.notes(self.job_id)} if engine.notes else ()
        for text, hint in engine.notes:
            if text not in known:
                self._history.add_note(self.job_id, Note("note", text, hint))
                said = f"{text}; {hint}" if hint else text
                self._on_event({"event": "note", "text": said})

    def _take_event(self, printed: Event) -> None:
        """Record an event as far as the user's code cannot have forged it (see `EventChecks`)."""
        if self._restarted and printed["event"] == "begin":
            # The result of the first run stays until the runner has begun again.
            self._restarted = False
            self._checks = None
            back = {"exit_code": None, "reason": None, "finished_at": None, "started_at": None}
            self._history.update(self.job_id, state=JobState.STARTING, provisional=False, **back)
        if self._checks is None:
            job = self._history.get(self.job_id)
            if job is None:
                return
            self._checks = EventChecks(job)
        follower = self._follower
        at = follower.event_time if follower is not None else time.time()
        event = self._checks.admit(printed, at)
        if event is None:
            return
        kind = event["event"]
        changes: dict[str, Any] = {}
        if kind == "begin":
            phase = Phase(event["phase"], event["time"])
            self._history.set_phase(self.job_id, phase)
            job = self._history.get(self.job_id)
            if job is not None and not job.provisional:  # The log may be behind the engine.
                changes["state"] = JobState.RUNNING if phase.name == "run" else JobState.STARTING
            if phase.name == "run":
                changes["started_at"] = event["time"]
        elif kind == "phase":
            self._history.set_phase(
                self.job_id,
                Phase(
                    event["phase"],
                    event["start"],
                    event["seconds"],
                    event.get("hit"),
                    event.get("packages"),
                    event.get("cached"),
                    event.get("bytes"),
                    event.get("key"),
                    event.get("made_at"),
                ),
            )
            self._index(event)
            if event["phase"] == "project" and event.get("key"):
                self._note_stored(event["key"])
        elif kind == "packages":
            self._history.add_packages(self.job_id, event["phase"], event["hit"], True)
            self._history.add_packages(self.job_id, event["phase"], event["miss"], False)
        elif kind == "note":
            self._history.add_note(self.job_id, Note("note", event["text"]))
        elif kind == "error":
            self._error = f"{event['phase']}: {event['text']}"
            # The log has the whole output of the tool that failed; the note has its end.
            tail = event.get("tail")
            text = f"{self._error}\n{tail}" if tail else self._error
            self._history.add_note(self.job_id, Note("error", text, event.get("hint")))
            if event["phase"] == "project":
                self._forget_stored()
        elif kind == "progress":
            self._history.set_activity(self.job_id, event["phase"], progress_text(event))
        elif kind == "usage":
            from stoke.history.usage import UsageCurves

            figure = Usage(event["time"], event["cores"], event["memory"])
            UsageCurves(self._history).add(self.job_id, figure)
        elif kind == "end":
            changes = self._outcome(event["exit_code"], event.get("reason"))
            changes |= {
                "provisional": True,
                "finished_at": event["time"],
                "cpu_seconds": event.get("cpu_seconds"),
                "peak_memory": event.get("peak_memory"),
            }
            if event.get("held"):
                changes["held_until"] = self._held_until(event["time"], event["held"])
        if changes:
            self._history.update(self.job_id, **changes)
        self._on_event(event)
        self._on_change()
        if changes.get("held_until") is not None:
            self.close()  # Its log is complete, and its end comes much later.

    def _held_until(self, ended_at: float, seconds: float) -> float | None:
        """Return when a held job ends; None if its request does not ask for that."""
        from stoke.request.stored import read_stored_fields

        try:
            asked = read_stored_fields(self._history.spec(self.job_id)).get("hold")
        except RequestError:
            return None
        if not isinstance(asked, int | float):
            return None
        return ended_at + min(max(0.0, seconds), asked)

    def _note_stored(self, digest: str) -> None:
        """Record that the cache volume has the contents of the job's snapshot."""
        from stoke.jobs.snapshot_delivery import remember_stored
        from stoke.request.stored import read_stored_spec

        try:
            spec = read_stored_spec(self._history.spec(self.job_id))
        except RequestError:
            return  # A job that another machine submitted.
        if spec.project is not None and spec.project.digest == digest:
            remember_stored(digest, spec.scope, self._backend)

    def _forget_stored(self) -> None:
        """Forget which files the cache volume has: some were pruned, so the next job brings all."""
        from stoke.project.stored_contents import forget_stored

        job = self._history.get(self.job_id)
        if job is not None:
            forget_stored(job.backend, job.scope)

    def _index(self, event: Event) -> None:
        """Record in the volume index that the job's environment is on its scope's volume."""
        kind, key = event["phase"], event.get("key")
        job = self._history.get(self.job_id) if key and kind in ("python", "system") else None
        if key is None or job is None:
            return
        if kind == "python":
            request = job.python_hash
            built = list(self._history.packages(job.id).get(kind, ()))
            packages = built if len(built) == event.get("packages") else []
        else:
            # The events name store paths; the request names packages.
            request = job.system_hash
            packages = self._history.asked(job.request_hash or "", kind)
        place = ScopeCache(job.backend, job.scope, kind)
        at = event["start"] + event["seconds"]
        VolumeIndex(self._history).record_use(place, key, at, request, packages)

    def _confirm(self, engine: EngineState, follower: Follower) -> None:
        """Record the final state. The engine's state wins, and contradictions are shown."""
        job = self._history.get(self.job_id)
        if job is None:
            return
        _log.debug(
            "%s: confirmed %s, exit code %s, reason %s; its log has %d lines, %d bytes, %d gaps",
            job.id, engine.status, engine.exit_code, engine.reason,
            follower.spool.lines, follower.spool.bytes, follower.spool.gaps,
        )  # fmt: skip
        self._take_notes(engine)
        counts = {
            "log_lines": follower.spool.lines,
            "log_bytes": follower.spool.bytes,
            "log_gaps": follower.spool.gaps,
        }
        if engine.status == EngineStatus.ABSENT:
            # If the engine has forgotten the job, the runner's report counts; without one it is lost.
            changes: dict[str, Any] = {"provisional": False}
            if not job.provisional:
                knows = f"the {self._backend.name} backend no longer knows this job"
                if job.state is JobState.QUEUED:
                    why = job.reason or "the program that submitted it ended too early"
                    knows = f"the {self._backend.name} backend does not know this job: {why}"
                never_began = job.state is JobState.QUEUED and engine.started_at is None
                reason = knows if never_began else engine.reason or knows
                changes |= {"state": JobState.LOST, "reason": reason, "finished_at": time.time()}
            elif job.state is JobState.STOPPED and not job.stop_requested and engine.reason:
                changes["reason"] = engine.reason  # Not by us.
        elif engine.exit_code is None:
            # The job ended with an unknown result: use the end that the runner reported, if any.
            changes = {"provisional": False}
            if job.state is JobState.STOPPED and not job.stop_requested and engine.reason:
                changes["reason"] = engine.reason  # Not by us.
            if not job.provisional:
                code = EXIT_STOPPED if job.stop_requested else EXIT_ENGINE
                changes |= self._outcome(code, engine.reason)
                if job.started_at is not None and code == EXIT_ENGINE:
                    changes["exit_code"] = None  # The code had begun.
                changes["finished_at"] = engine.finished_at or time.time()
        else:
            code = engine.exit_code
            # An end that only the engine told so far has no reason of the runner's.
            told = (job.reason if job.provisional else None) or self._error
            changes = self._outcome(code, engine.reason or told)
            if job.provisional and job.exit_code != code:
                changes["reason"] = (
                    f"the runner reported exit code {job.exit_code}, the engine {code}"
                    + (f" ({engine.reason})" if engine.reason else "")
                )
            whole = not engine.log_gone and not follower.spool.gaps
            reported = _began(job) or engine.began or engine.reason or told or job.stop_requested
            if whole and not reported and code < SIGNAL:
                # The image's python3 is another program, or may not read the runner.
                why = f"python3 ended with exit code {code} before the runner began"
                changes = self._outcome(code or EXIT_ENGINE, f"the code did not run: {why}")
            explained = engine.reason or told or job.stop_requested
            if whole and not explained and code > SIGNAL and job.cpu_seconds is None:
                # The runner reports every end but its own: docker kill, or the kernel.
                changes["reason"] = f"its runner was killed by signal {code - SIGNAL}"
            changes["provisional"] = False
            if not job.provisional:
                changes["finished_at"] = engine.finished_at or time.time()
        if engine.cause is not None and not _ended_by_itself(job) and not job.stop_requested:
            from stoke.history.attempts import Attempts

            Attempts(self._history).set_cause(self.job_id, engine.cause)
        shown = self._location.unsaved
        if shown is not None:
            shown.whole = True
            changes["provisional"] = engine.status != EngineStatus.ABSENT
        unread = engine.began and not _began(job)
        if unread or (engine.log_gone and not job.provisional):
            # Without the runner's events it is unknown how much of the log is missing.
            lost = "its log was deleted before all of it was read"
            changes["reason"] = f"{changes['reason']}; {lost}" if changes.get("reason") else lost
        self._history.update(self.job_id, **changes, **counts)
        if engine.reason and engine.hint:
            self._history.add_note(self.job_id, Note("error", engine.reason, engine.hint))

    def _outcome(self, code: int, reason: str | None) -> dict[str, Any]:
        job = self._history.get(self.job_id)
        stopped = job is not None and job.stop_requested
        by_signal = reason in ("stopped", "interrupted", FOREIGN_SIGNAL)
        if by_signal and not stopped:
            reason = FOREIGN_SIGNAL
        if by_signal or (stopped and code != 0):
            state = JobState.STOPPED
        elif code == 0:
            state = JobState.SUCCEEDED
        else:
            state = JobState.FAILED
        if code == EXIT_TIMEOUT and reason == "timeout":
            state = JobState.FAILED
        return {"state": state, "exit_code": code, "reason": reason or self._error}


def _ended_by_itself(job: Job) -> bool:
    """Return whether the runner has reported an end of the code that no signal from outside caused."""
    reported = job.provisional and job.cpu_seconds is not None
    return reported and job.state is not JobState.STOPPED


def _began(job: Job) -> bool:
    """Return whether the runner has reported anything, which it does before all else."""
    reported = job.started_at is not None or job.cpu_seconds is not None
    return reported or any(phase.name in (*PREPARING_PHASES, RUN) for phase in job.phases)
