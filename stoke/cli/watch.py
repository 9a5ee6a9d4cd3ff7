"""Follow submitted jobs: copy their output, handle ctrl+c, derive the exit code."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from stoke.backend.api import Backend
from stoke.backend.capabilities import Interrupts
from stoke.backend.pool import Backends
from stoke.cli.output import print_error, print_json
from stoke.cli.passthrough import OutputStream, Passthrough
from stoke.cli.progress import ProgressLine
from stoke.cli.progress_output import ProgressPrinter
from stoke.cli.terminal import JobScreen
from stoke.config.loader import load_config
from stoke.config.model import Config
from stoke.errors import (
    EXIT_ENGINE,
    EXIT_INTERRUPT,
    EXIT_STOPPED,
    EXIT_TIMEOUT,
    EngineError,
    RequestError,
)
from stoke.files.paths import current_folder, job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs.control import interrupt, stop
from stoke.jobs.document import job_document
from stoke.jobs.refresh import clean_up
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import LogLocation, LogLocations
from stoke.logs.spool import SpoolReader
from stoke.remote.events import Event
from stoke.request.stored import read_stored_spec

if TYPE_CHECKING:
    from stoke.cli.run_on_save import RunControl
    from stoke.cli.session import Shell

INTERRUPTED = "interrupted"
"""The reason that the runner gives for the end of a job after SIGINT."""
JOIN_SECONDS = 5.0
CHECK_SECONDS = 0.5
"""Seconds between checks for phases that take long, while nothing else happens."""


def watch_job(
    job: Job,
    backend: Backend,
    history: History,
    config: Config,
    progress: ProgressPrinter,
    as_json: bool,
    folder: Path | None = None,
    control: RunControl | None = None,
    shell: Shell | None = None,
) -> int:
    """Follow a job and its further attempts to their end, and return the exit code of the last.

    Ctrl+c between two attempts ends the job too.

    `folder` is that of its script, if known; `control` can end the job; `shell` takes this terminal as
    soon as it has started.
    """
    with ExitStack() as interrupts:
        return _watch_job(
            job, backend, history, config, progress, as_json, folder, control, shell, interrupts
        )


def _watch_job(
    job: Job,
    backend: Backend,
    history: History,
    config: Config,
    progress: ProgressPrinter,
    as_json: bool,
    folder: Path | None,
    control: RunControl | None,
    shell: Shell | None,
    interrupts: ExitStack,
    earlier: InterruptHandler | None = None,
) -> int:
    """Do so, and handle ctrl+c until `interrupts` closes.

    `earlier` handled it for the attempt before.
    """
    screen = JobScreen()
    stderr = OutputStream(2, sys.stderr.encoding, screen)
    stdout = stderr if as_json else OutputStream(1, sys.stdout.encoding, screen)
    location = LogLocation(job_dir(job.id))
    passthrough = Passthrough(location, stdout, stderr)
    progress.attach(passthrough)
    stopper = InterruptHandler(job, backend, history, config.stop_grace, progress)

    def act() -> None:
        stopper.act()
        if shell is not None:
            shell.act(lambda: stop(job, backend, history, config.stop_grace))

    follow = JobFollower(job.id, backend, history, location, passthrough, progress, act)
    if shell is not None:
        shell.attach(follow.wake)
    try:
        interrupts.enter_context(stopper.on_ctrl_c(follow.wake))
        if earlier is not None and earlier.pressed:
            stopper.pressed += earlier.pressed  # Since the attempt before has ended.
            follow.wake()
        if control is not None:
            control.attach(lambda: stopper.replace(follow.wake))
        last = follow.run()
        has_sequel = JobQueue(history).has_sequel(job.id)
        if not has_sequel:
            interrupts.close()
    except BaseException:
        if shell is not None:
            stop(job, backend, history, config.stop_grace)
            raise
        progress.print(f"the job continues; follow it with: stoke logs -f {job.id}")
        raise
    finally:
        stopper.close()
        if shell is not None:
            shell.close()
    if control is not None:
        control.job, control.interrupted = last, stopper.pressed > 0
    passthrough.close()
    with ProgressLine() as collecting:
        tell = collecting if progress.is_shown else lambda _: None
        clean_up(job.id, backend, history, wait=False, progress=tell)
    last = history.get(job.id) or last
    progress.print_results(last)
    progress.print_end(last)
    again = run_again(last, history, progress) if has_sequel else None
    if again is not None:
        progress = ProgressPrinter(not progress.is_shown)
        return _watch_job(
            again,
            backend,
            history,
            config,
            progress,
            as_json,
            folder,
            None,
            None,
            interrupts,
            stopper,
        )
    if shell is not None and shell.error is not None:
        raise shell.error
    # Reasons that only the engine knows, such as out of memory or eviction, come with notes.
    hints = (note.hint for note in history.notes(job.id) if note.text == last.reason)
    hint = follow.hint or next(hints, None) or _add_packages(last, history, location, folder)
    if last.reason and exit_code(last) == EXIT_ENGINE:
        passthrough.end_line()
        print_error(follow.error or last.reason, hint)
    elif hint and last.state is not JobState.SUCCEEDED:
        progress.print(f"hint: {hint}")
    if as_json:
        print_json(job_document(last, history))
    if stopper.pressed > 1 or (stopper.pressed and last.reason != INTERRUPTED):
        return EXIT_INTERRUPT
    return exit_code(last)


def run_again(job: Job, history: History, progress: ProgressPrinter) -> Job | None:
    """Return the next attempt of an ended job, and say why there is one. None if it was the last."""
    from stoke.jobs.attempts import decide

    attempt = decide(job.id, history)
    again = history.get(attempt.next) if attempt is not None and attempt.next else None
    if attempt is not None and again is not None:
        progress.print(f"{attempt.why}: runs again as {again.id}, attempt {attempt.number + 1}")
    return again


def _add_packages(
    job: Job, history: History, location: LogLocation, folder: Path | None
) -> str | None:
    """Return the hint for a job that ended because a module was missing."""
    if job.state is not JobState.FAILED or job.exit_code != 1:
        return None
    from stoke.jobs.missing_module import packages_to_add

    try:
        spec = read_stored_spec(history.spec(job.id))
    except RequestError:
        return None
    packages = packages_to_add(job, spec, location, folder or current_folder())
    if not packages:
        return None
    options = [word for package in packages for word in ("-w", package.name)]
    command = shlex.join(["stoke", "rerun", job.id, *options])
    named = ", ".join(package.name + package.doubt for package in packages)
    return f"add {named} and run again: {command}"


def exit_code(job: Job) -> int:
    """Return the exit code of a command that waited for this job."""
    if job.state is JobState.STOPPED and job.reason == INTERRUPTED:
        # The code chooses its exit code after ctrl+c; Python's default is 130.
        return EXIT_INTERRUPT if job.exit_code is None else job.exit_code
    if job.state is JobState.STOPPED:
        return EXIT_STOPPED
    if job.state is JobState.FAILED and job.reason == "timeout":
        return EXIT_TIMEOUT
    if job.exit_code is None or not 0 <= job.exit_code <= 255:
        return EXIT_ENGINE
    return job.exit_code


class JobFollower:
    """Follow a job to its end: a `Tracker` on its own thread, the output copied on the caller's.

    `wake` may be called on any thread and in a signal handler. `on_turn` is called after every wake, on
    the thread that called `run`.
    """

    def __init__(
        self,
        job_id: str,
        backend: Backend,
        history: History,
        location: LogLocation,
        passthrough: Passthrough,
        progress: ProgressPrinter,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._job_id = job_id
        self._history = history
        self._passthrough = passthrough
        self._progress = progress
        self._on_turn = on_turn
        # Not an Event: the thread that a signal interrupts could hold its lock.
        self._queue: SimpleQueue[Event | EngineError | None] = SimpleQueue()
        self._is_awake = False
        self._prepared = False
        self._spool = SpoolReader(location)
        # How long the log was when its last newline began to be held back; None while none is.
        self._held_at: int | None = None
        self._failure: BaseException | None = None
        self._tracker = Tracker(
            backend,
            history,
            job_id,
            on_change=self._on_change,
            on_event=self._queue.put,
            on_trouble=self._queue.put,
            on_unsaved=self._queue.put,
            location=location,
        )
        passthrough.holds_newline = lambda: self._tracker.held[:1] == b"\n"
        self.error: str | None = None
        """The runner's error before the code began, if there was one; `hint` is its fix."""
        self.hint: str | None = None

    def run(self) -> Job:
        """Return when the job's end is confirmed. Raise `EngineError` if it no longer can be."""
        thread = threading.Thread(target=self._track, name="tracker", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self._turn(CHECK_SECONDS)
            self._turn(0)
        finally:
            self._tracker.close()
        if self._failure is not None:
            raise self._failure
        job = self._history.get(self._job_id)
        if job is None:
            raise EngineError(f"{self._job_id} was removed while this command followed it")
        return job

    def wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._queue.put(None)

    def _track(self) -> None:
        try:
            self._tracker.run()
        except BaseException as error:
            self._failure = error
        self._queue.put(None)

    def _on_change(self) -> None:
        self._held_at = self._spool.size()[0] if self._tracker.held == b"\n" else None
        self.wake()

    def _turn(self, seconds: float) -> None:
        """Wait up to `seconds` for news, then print messages and copy new output."""
        try:
            news = self._queue.get(timeout=seconds) if seconds else None
            while True:
                self._print(news)
                news = self._queue.get_nowait()
        except Empty:
            pass
        self._is_awake = False
        self._on_turn()
        if not self._prepared:
            job = self._history.get(self._job_id)
            phases = job.phases if job else []
            self._prepared = any(phase.name == "run" for phase in phases)
            self._progress.print_phases(phases, time.time())
        held_at = self._held_at
        if self._passthrough.pump() == held_at:
            self._passthrough.borrow_newline()

    def _print(self, news: Event | EngineError | None) -> None:
        if isinstance(news, EngineError):
            self._progress.print_trouble(news)
        elif news is not None:
            self._progress.print_event(news)
            if news["event"] == "error":
                # Its "tail" is not printed: the log, which is copied here, has all of the output.
                self.error = f"{news['phase']}: {news['text']}"
                self.hint = news.get("hint")
                if news.get("tail"):
                    where = f"its output is above and in the log: stoke logs {self._job_id}"
                    self.hint = f"{self.hint}; {where}" if self.hint else where


def follow_jobs(
    jobs: list[Job],
    history: History,
    locations: LogLocations,
    show: Callable[[bool], None],
    more: Callable[[], list[Job] | None] = lambda: None,
) -> None:
    """Follow several jobs until all of them are over. `show` is called on this thread whenever one
    of them may have written; with False, because more may come. `more` returns the jobs that are
    followed from now on too, or None if there will be no others."""
    queue: SimpleQueue[EngineError | None] = SimpleQueue()
    failures: list[BaseException] = []
    progress = ProgressPrinter(quiet=True, troubles=True)

    def track(tracker: Tracker, job: Job) -> None:
        try:
            tracker.run()
            clean_up(job.id, backends.get(job.backend), history)
        except BaseException as error:
            failures.append(error)
        queue.put(None)

    with closing(Backends(load_config())) as backends:
        trackers: list[Tracker] = []
        threads: list[threading.Thread] = []
        joined: list[Job] | None = jobs
        try:
            while joined is not None or any(thread.is_alive() for thread in threads):
                for job in joined or ():
                    tracker = Tracker(
                        backends.get(job.backend),
                        history,
                        job.id,
                        on_change=lambda: queue.put(None),
                        on_trouble=queue.put,
                        on_unsaved=queue.put,
                        location=locations.of(job.id),
                    )
                    trackers.append(tracker)
                    threads.append(threading.Thread(target=track, args=(tracker, job), daemon=True))
                    threads[-1].start()
                joined = None if joined is None else more()
                try:
                    trouble = queue.get(timeout=CHECK_SECONDS)
                    while True:
                        if trouble is not None:
                            progress.print_trouble(trouble)
                        trouble = queue.get_nowait()
                except Empty:
                    pass
                show(False)
        finally:
            for tracker in trackers:
                tracker.close()
    if failures:
        raise failures[0]


class InterruptHandler:
    """Handle ctrl+c while a job is followed.

    The first sends SIGINT to the code, or stops the job with SIGTERM if the backend cannot; its output
    is still copied. The second ends the job at once. The third ends this program.
    """

    def __init__(
        self, job: Job, backend: Backend, history: History, grace: float, progress: ProgressPrinter
    ) -> None:
        self._job = job
        self._backend = backend
        self._history = history
        self._grace = grace
        self._progress = progress
        self._done = 0
        self._is_replaced = False
        self._replacer: threading.Thread | None = None
        self._over = threading.Event()
        self.pressed = 0

    @contextmanager
    def on_ctrl_c(self, wake: Callable[[], None]) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_IGN:  # A parent has chosen that ctrl+c is not for us.
            yield
            return

        def pressed(_number: int, _frame: object) -> None:
            self.pressed += 1
            if self.pressed > 2:
                raise KeyboardInterrupt
            wake()

        signal.signal(signal.SIGINT, pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def replace(self, wake: Callable[[], None]) -> None:
        """End the job in favour of another one; callable on any thread, as often as one likes."""
        self._is_replaced = True
        wake()

    def close(self) -> None:
        """Stop what would end the job: it has ended."""
        self._over.set()
        if self._replacer is not None:
            # It uses the history, which is closed next. An engine may not answer.
            self._replacer.join(JOIN_SECONDS)

    def act(self) -> None:
        """Carry out the presses so far, on threads, because an engine may answer slowly."""
        if self._is_replaced and self._replacer is None:
            self._progress.print("saved; stopping this run")
            self._replacer = threading.Thread(target=self._replace, daemon=True)
            self._replacer.start()
        while self._done < self.pressed:
            self._done += 1
            first = self._done == 1
            if first:
                what = "interrupted" if isinstance(self._backend, Interrupts) else "stopping"
                self._progress.print(f"{what}; press ctrl+c again to end it at once")
            threading.Thread(target=self._end, args=(first,), daemon=True).start()

    def _replace(self) -> None:
        """End the job as one ctrl+c does, and at once if it is not over after the grace period."""
        self._end(True)
        if not self._over.wait(self._grace):
            self._end(False)

    def _end(self, with_grace: bool) -> None:
        try:
            if with_grace:
                notice = interrupt(self._job, self._backend, self._history, self._grace)
            else:
                notice = stop(self._job, self._backend, self._history, 0)
            if notice:
                self._progress.print(notice)
        except EngineError as error:
            print_error(error.what, error.hint)
