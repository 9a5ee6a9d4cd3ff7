"""`stoke race`: run a request cold and warm, and print what the cache saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from stoke.cli.options import BACKEND, CODE, PLACE, PROJECT, CodeCommand, apply, once, request_from
from stoke.errors import EXIT_INTERRUPT, EngineError
from stoke.text.times import rfc3339

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.jobs.request import Request
    from stoke.race.race import Race, RaceStatus
    from stoke.race.recording import Recording

CHECK_SECONDS = 0.5
"""Seconds between checks for phases that take long, while nothing else happens."""


@click.command(cls=CodeCommand)
@apply(CODE, PROJECT, BACKEND, PLACE)
@click.option(
    "--record",
    multiple=True,
    callback=once,
    metavar="FILE",
    help="Save the race to a file for --replay.",
)
@click.option(
    "--replay", multiple=True, callback=once, metavar="FILE",
    help="Show a saved race; run nothing.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the figures.")
def command(
    backend: str | None,
    record: str | None,
    replay: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a request cold and warm, and print what the cache saved.

    The cold run uses new caches, which are removed afterwards, also after ctrl+c. The warm run uses the
    request's scope, which is warmed first if necessary. The runs follow each other, so that they do
    not compete. The code runs twice.

    The result compares the time from submission to the start of the code, without the time spent
    waiting for a free place and for the image. At a terminal, --replay shows both runs side by side in
    real time; otherwise, and with --json, it prints the figures.

    \b
    stoke race -w 'numpy, pandas' -c 'import pandas'
    stoke race -r requirements.txt -b docker --record race.json train.py
    stoke race --replay race.json
    """
    if replay is not None:
        if backend or record or any(options.values()):
            raise click.UsageError(
                "--replay shows a saved race; it cannot be combined with a request."
            )
        return _replay(Path(replay), as_json)
    from stoke.config.loader import load_config
    from stoke.race.recording import write_recording

    config = load_config()
    request = request_from(config, **options)
    recording = _race(request, backend or config.backend, config, quiet)
    if recording is None:
        return EXIT_INTERRUPT
    _print(recording, as_json)
    if record is not None:
        write_recording(recording, Path(record))
    return 0


def _replay(path: Path, as_json: bool) -> int:
    from stoke.cli.screens import can_open, open_screens
    from stoke.race.recording import read_recording

    recording = read_recording(path)
    if can_open() and not as_json:
        return open_screens(recording)
    _print(recording, as_json)
    return 0


# ------------------------------------------------------------------------------------- the race


def _race(request: Request, backend: str, config: Config, quiet: bool) -> Recording | None:
    """Run the race. Return None if ctrl+c ended it."""
    from stoke.backend.pool import Backends
    from stoke.cli.output import print_notice
    from stoke.cli.watch import exit_code
    from stoke.history.database import History
    from stoke.race.race import Race, RaceStoppedError, RunFailedError

    with closing(Backends(config)) as backends, History() as history:
        messages: SimpleQueue[str | None] = SimpleQueue()
        race = Race(
            request, backends, backends.get(backend), history, config,
            on_change=lambda: messages.put(None), say=messages.put,
        )  # fmt: skip
        progress = _RaceProgress(request, quiet)
        try:
            return _follow(race, messages, progress, config.stop_grace)
        except RaceStoppedError as error:
            print_notice(f"{error.what}; the cold run was removed")
            return None
        except RunFailedError as error:
            for line in error.tail:
                print_notice(f"| {line}")
            error.exit_code = exit_code(error.job)
            raise


def _follow(
    race: Race, messages: SimpleQueue[str | None], progress: _RaceProgress, grace: float
) -> Recording:
    """Run the race on a thread and print its progress until it ends."""
    results: list[Recording | BaseException] = []

    def work() -> None:
        try:
            results.append(race.run())
        except BaseException as error:
            results.append(error)
        messages.put(None)

    pressed = 0
    with _on_ctrl_c(lambda: messages.put(None)) as presses:
        threading.Thread(target=work, daemon=True, name="race").start()
        while not results:
            progress.wait(messages, CHECK_SECONDS)
            while pressed < presses():
                pressed += 1
                if pressed == 1:
                    progress.print("ending the race; press ctrl+c again to end it at once")
                seconds = grace if pressed == 1 else 0
                threading.Thread(target=_stop, args=(race, seconds), daemon=True).start()
            progress.update(race.status)
        progress.wait(messages, 0)
        progress.update(race.status)
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _stop(race: Race, grace: float) -> None:
    from stoke.cli.output import print_error

    try:
        race.stop(grace)
    except EngineError as error:
        print_error(error.what, error.hint)


@contextmanager
def _on_ctrl_c(wake: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Call `wake` at each ctrl+c; give a function that returns how many there were.

    The third one ends this program; a background process then removes the cold run
    (`stoke.race.ephemeral_scope`).
    """
    pressed = 0

    def press(_number: int, _frame: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 2:
            raise KeyboardInterrupt
        wake()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # Else a parent has chosen that ctrl+c is not for us.
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


class _RaceProgress:
    """Print on stderr what the race is doing, each step once."""

    def __init__(self, request: Request, quiet: bool) -> None:
        from stoke.cli.progress_output import ProgressPrinter

        self._titles = {
            "cold": "cold run, nothing cached",
            "warming": f"warming the caches of scope {request.spec.scope}",
            "warm": f"warm run, in scope {request.spec.scope}",
        }
        self._printers = {name: ProgressPrinter(quiet) for name in self._titles}
        self._general = ProgressPrinter(quiet)
        self._begun: list[str] = []

    def wait(self, messages: SimpleQueue[str | None], seconds: float) -> None:
        """Wait up to `seconds` for messages, and print them."""
        try:
            text = messages.get(timeout=seconds)
            while True:
                if text:
                    self.print(text)
                text = messages.get_nowait()
        except Empty:
            pass

    def print(self, text: str) -> None:
        self._general.print(text)

    def update(self, standing: RaceStatus) -> None:
        jobs = {"cold": standing.cold, "warming": standing.warming, "warm": standing.warm}
        for name, job in jobs.items():
            if name not in self._begun and (standing.active == name or job is not None):
                self._begun.append(name)
                self.print(self._titles[name])
            if job is not None:
                self._printers[name].print_phases(job.phases, time.time())


# ------------------------------------------------------------------------------------- the figures


def _print(recording: Recording, as_json: bool) -> None:
    if as_json:
        from stoke.cli.output import print_json

        print_json(_document(recording))
    else:
        _print_table(recording)


def _document(recording: Recording) -> dict[str, Any]:

    def run(which: str) -> dict[str, Any]:
        one = recording.cold if which == "cold" else recording.warm
        job = one.at()
        return {
            "job": one.job,
            "seconds": round(one.seconds, 6),
            "ready": None if one.ready is None else round(one.ready, 6),
            "bytes": job.received_bytes,
            "phases": [phase.as_json() for phase in job.phases],
        }

    ratio, seconds = recording.ratio, recording.saved_seconds
    return {
        "name": recording.name,
        "backend": recording.backend,
        "scope": recording.scope,
        "packages": recording.packages,
        "raced_at": rfc3339(recording.raced_at),
        "cold": run("cold"),
        "warm": run("warm"),
        "warmed": recording.warmed,
        "ratio": None if ratio is None else round(ratio, 3),
        "saved_seconds": None if seconds is None else round(seconds, 6),
        "saved_bytes": recording.saved_bytes,
        "notes": list(recording.notes),
    }


def _print_table(recording: Recording) -> None:
    from stoke.cli.output import Cell, print_table
    from stoke.cli.progress_output import hit_text
    from stoke.history.job import PHASES, Phase
    from stoke.text.sanitize import clean
    from stoke.text.units import UNKNOWN, human_bytes, human_seconds

    cold, warm = recording.cold.at(), recording.warm.at()
    by_name = [{phase.name: phase for phase in job.phases} for job in (cold, warm)]
    names = list(dict.fromkeys([*by_name[0], *by_name[1]]))
    names.sort(key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))

    def cells(phase: Phase | None) -> list[Cell]:
        if phase is None:
            return [UNKNOWN] * 3
        colour = {True: "green", False: "yellow", None: None}[phase.hit]
        return [human_seconds(phase.seconds), human_bytes(phase.bytes), (hit_text(phase), colour)]

    rows: list[list[Cell]] = []
    for name in names:
        both = [phases.get(name) for phases in by_name]
        counts = [one.packages for one in both if one is not None and one.packages is not None]
        packages = f"{counts[0]:,}" if counts else UNKNOWN
        rows.append([name, packages, *cells(both[0]), *cells(both[1])])
    for title, figures in (
        ("code started", (recording.cold.ready, recording.warm.ready)),
        ("whole job", (recording.cold.seconds, recording.warm.seconds)),
    ):
        row: list[Cell] = [(title, "bold"), ""]
        for seconds, job in zip(figures, (cold, warm), strict=True):
            received = human_bytes(job.received_bytes) if title == "whole job" else ""
            row += [human_seconds(seconds), received, ""]
        rows.append(row)
    heads = ["PHASE", "PACKAGES", "COLD", "RECEIVED", "CACHE", "WARM", "RECEIVED", "CACHE"]
    print_table(heads, rows, frozenset({1, 2, 3, 5, 6}))
    click.echo(recording.result)
    if recording.warmed is not None:
        taken = human_seconds(recording.warmed)
        click.echo(
            f"scope {clean(recording.scope)} was not warm: warming it took {taken}, not counted above"
        )
    for note in recording.notes:
        click.echo(clean(note))
