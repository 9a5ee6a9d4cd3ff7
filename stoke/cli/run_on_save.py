"""`stoke run --watch`: run code again at each save."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from stoke.cli.output import print_error, print_notice
from stoke.errors import EXIT_INTERRUPT, EngineError, StokeError
from stoke.files.paths import current_folder
from stoke.history.job import Job, JobState
from stoke.request.input_files import is_web_address
from stoke.text.units import human_seconds

Signature = tuple[tuple[int, int, int] | None, ...]
"""For each watched path: inode, size and time of the last change; None for a missing one."""


def watched_paths(words: tuple[str, ...], options: Mapping[str, Any]) -> list[Path]:
    """Return the files whose change runs the code again: the script, and those that options name."""
    named = [words[0], *(options["requirements"] or ()), *(options["constraints"] or ())]
    if options["lock"] is not None:
        named.append(options["lock"])
    here = current_folder()
    return [here / one for one in named if one != "-" and not is_web_address(one)]


class RunControl:
    """Ends one run from another thread, and records how the run ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._end: Callable[[], object] | None = None
        self.job: Job | None = None
        """The job at its end; None if it never began."""
        self.interrupted = False
        """Whether the user pressed ctrl+c."""

    def attach(self, end: Callable[[], object]) -> None:
        """Have `end` called once the run is to end, perhaps now."""
        with self._lock:
            self._end = end
            wanted = self._wanted
        if wanted:
            end()

    def end(self) -> None:
        with self._lock:
            self._wanted = True
            end = self._end
        if end is not None:
            end()


class Saves:
    """Watches files on a thread; editors may replace a file instead of writing it.

    `on_save` is called on that thread.
    """

    def __init__(self, paths: Iterable[Path], on_save: Callable[[], object]) -> None:
        self._paths = [Path(os.path.realpath(path.parent)) / path.name for path in paths]
        self._on_save = on_save
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._seen: Signature = ()
        self._error: Exception | None = None
        threading.Thread(target=self._watch, name="saves", daemon=True).start()

    def read(self) -> None:
        """Remember the files as they are now, right before they are read."""
        self._changed.clear()
        self._seen = self._signature()

    def wait(self) -> None:
        """Wait until a file is not as it was at the last `read`. `EngineError` if nothing can tell."""
        while self._seen == self._signature():
            self._changed.wait()
            self._changed.clear()
            if self._error is not None:
                raise _unwatched(self._error)

    def close(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        try:
            self._report()
        except Exception as error:  # watchfiles raises those of its Rust part.
            self._error = error
            self._changed.set()

    def _report(self) -> None:
        from watchfiles import watch

        # The folders: a replaced file would take the watch of the old one with it.
        folders = {path.parent for path in self._paths}
        names = {str(path) for path in self._paths}
        changes = watch(
            *folders,
            watch_filter=lambda _, path: path in names,
            recursive=False,
            stop_event=self._stop,
            raise_interrupt=False,
        )
        for _ in changes:
            if self._seen != self._signature():
                self._changed.set()
                self._on_save()

    def _signature(self) -> Signature:
        return tuple(_signature(path) for path in self._paths)


def _unwatched(error: Exception) -> EngineError:
    why = f"cannot watch for saves: {error}"
    if isinstance(error, FileNotFoundError):
        return EngineError(why)
    return EngineError(why, "have the files polled: export WATCHFILES_FORCE_POLLING=1")


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def run_on_save(paths: list[Path], run: Callable[[RunControl], object], quiet: bool) -> int:
    """Run, and again whenever one of the files is saved, until ctrl+c. Return the exit code.

    A run that is not over when a file is saved is stopped first. An error of a run is printed, and the
    next save may fix it.
    """
    control = RunControl()
    saves = Saves(paths, lambda: control.end())
    before: Job | None = None
    number = 0
    try:
        while True:
            number += 1
            control = RunControl()
            saves.read()
            try:
                run(control)
            except StokeError as error:
                print_error(error.what, error.hint)
            except click.ClickException as error:
                error.show()
            if control.interrupted:
                return EXIT_INTERRUPT
            if not quiet:
                _print_end(number, control.job, before)
            if control.job is not None and _is_whole(control.job):
                before = control.job
            saves.wait()
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    finally:
        saves.close()


def _is_whole(job: Job) -> bool:
    """Whether the code ran to its own end, so that its time can be compared."""
    return job.state in (JobState.SUCCEEDED, JobState.FAILED) and job.seconds is not None


def _print_end(number: int, job: Job | None, before: Job | None) -> None:
    parts = [f"run {number}"]
    if job is not None and _is_whole(job):
        assert job.seconds is not None
        parts.append(human_seconds(job.seconds))
        if before is not None and before.seconds is not None:
            difference = job.seconds - before.seconds
            word = "slower" if difference > 0 else "faster"
            parts.append(f"{human_seconds(abs(difference))} {word} than the run before")
        if (temperature := _temperature(job)) is not None:
            parts.append(temperature)
    print_notice(f"──── {' · '.join(parts)} · waiting for a save, ctrl+c ends")


def _temperature(job: Job) -> str | None:
    """Return whether the caches had the environment: "warm" or "cold"; None for a job without one."""
    hits = [phase.hit for phase in job.phases if phase.name in ("python", "system")]
    known = [hit for hit in hits if hit is not None]
    return ("warm" if all(known) else "cold") if known else None
