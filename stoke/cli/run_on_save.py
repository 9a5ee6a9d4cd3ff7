"""`stoke run --watch`: run code again at each save."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from os.path import isdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoke.cli.output import print_error, print_notice
from stoke.errors import EXIT_INTERRUPT, StokeError
from stoke.files.paths import current_folder
from stoke.history.job import Job
from stoke.jobs.run_summary import ran_to_its_end, run_summary
from stoke.project.saves import Saves
from stoke.request.input_files import is_web_address

if TYPE_CHECKING:
    from stoke.request.spec import JobSpec


def watched_paths(words: tuple[str, ...], options: Mapping[str, Any]) -> list[Path]:
    """Return the files whose change runs the code again: the script, and those that options name."""
    named = [*(options["requirements"] or ()), *(options["constraints"] or ())]
    if starts_file(words, options):
        named.append(words[0])
    if options["lock"] is not None:
        named.append(options["lock"])
    here = current_folder()
    return [here / one for one in named if one != "-" and not is_web_address(one)]


def starts_file(words: tuple[str, ...], options: Mapping[str, Any]) -> bool:
    """Return whether a command line names a file to run."""
    named = (options["code"], options["module"], options["exec"])
    return named == (None, None, None) and words[:1] not in ((), ("-",)) and not isdir(words[0])


def watched_root(words: tuple[str, ...], options: Mapping[str, Any]) -> str | None:
    """Return the root of the project that is watched; None if none of its files travels."""
    if options["no_folder"]:
        return None
    if options["folder"]:
        return os.path.realpath(str(options["folder"]))
    from stoke.project.root import find_root

    here = str(current_folder())
    start = os.path.realpath(words[0]) if words and os.path.exists(words[0]) else here
    if options["module"] or options["exec"] or options["code"]:
        start = here
    return find_root(start if isdir(start) else os.path.dirname(start))


class RunControl:
    """Ends one run from another thread, and records how the run ended."""

    def __init__(self, saves: Saves) -> None:
        self._saves = saves
        self._lock = threading.Lock()
        self._wanted = False
        self._end: Callable[[], object] | None = None
        self.job: Job | None = None
        """The job at its end; None if it never began."""
        self.interrupted = False
        """Whether the user pressed ctrl+c."""

    def reads(self, spec: JobSpec) -> None:
        """Say what is about to be submitted, before the files of its project are read."""
        self._saves.follow(spec.project, spec.code)

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


def run_on_save(
    paths: list[Path], root: str | None, run: Callable[[RunControl], object], quiet: bool
) -> int:
    """Run, and again whenever one of the files, or one that travels of the project at `root`, is saved,
    until ctrl+c. Return the exit code.

    A run that is not over when a file is saved is stopped first. An error of a run is printed, and the
    next save may fix it.
    """
    saves = Saves(paths, root, lambda: control.end())
    control = RunControl(saves)
    before: Job | None = None
    number = 0
    try:
        while True:
            number += 1
            control = RunControl(saves)
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
                summary = run_summary(number, control.job, before)
                print_notice(f"──── {summary} · waiting for a save, ctrl+c ends")
            if control.job is not None and ran_to_its_end(control.job):
                before = control.job
            saves.wait()
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    finally:
        saves.close()
