"""`stoke race`: what the cache saves a request, cold against warm."""

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

from stoke.cli.options import BACKEND, CODE, PLACE, CodeCommand, apply, once, request_from
from stoke.errors import EXIT_INTERRUPT, EngineError

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.jobs.request import Request
    from stoke.race.race import Race, RaceStatus
    from stoke.race.recording import Recording

LOOK_SECONDS = 0.5
"""How often the runs are looked at for phases that take long, while nothing else happens."""


@click.command(cls=CodeCommand)
@apply(CODE, BACKEND, PLACE)
@click.option(
    "--record",
    multiple=True,
    callback=once,
    metavar="FILE",
    help="Keep the race as a file that --replay shows.",
)
@click.option(
    "--replay", multiple=True, callback=once, metavar="FILE",
    help="Show a race that was kept; runs nothing.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print the figures and nothing else.")
def command(
    backend: str | None,
    record: str | None,
    replay: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a request cold and warm, and print what the cache saved.

    First cold, with caches of its own that are removed again, also on ctrl+c; then warm, in its own
    scope, which is warmed before if it has to be. One after the other, so that neither is in the
    other's way. The code runs twice.

    "Sooner" compares the time from submitting to the code's first line, less what went on waiting for
    a place and for the image. --replay at a terminal shows both runs at once, as they went; elsewhere,
    and with --json, it prints the figures.

    \b
    stoke race -w 'numpy, pandas' -c 'import pandas'
    stoke race -r requirements.txt -b docker --record race.json train.py
    stoke race --replay race.json
    """
    if replay is not None:
        if backend or record or any(options.values()):
            raise click.UsageError("--replay shows what was raced then; it takes no request.")
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
    """None where ctrl+c ended it."""
    from stoke.backend.pool import Backends
    from stoke.cli.output import print_notice
    from stoke.cli.watch import exit_code
    from stoke.history.database import History
    from stoke.race.race import Race, RaceStoppedError, RunFailedError

    with closing(Backends(config)) as backends, History() as history:
        said: SimpleQueue[str | None] = SimpleQueue()
        race = Race(
            request, backends, backends.get(backend), history, config,
            on_change=lambda: said.put(None), say=said.put,
        )  # fmt: skip
        teller = _Teller(request, quiet)
        try:
            return _stay(race, said, teller, config.stop_grace)
        except RaceStoppedError as error:
            print_notice(f"{error.what}; nothing of the cold one is left")
            return None
        except RunFailedError as error:
            for line in error.tail:
                print_notice(f"| {line}")
            error.exit_code = exit_code(error.job)
            raise


def _stay(race: Race, said: SimpleQueue[str | None], teller: _Teller, grace: float) -> Recording:
    """Has the race run on a thread and tells how it goes, until its end."""
    came_to: list[Recording | BaseException] = []

    def work() -> None:
        try:
            came_to.append(race.run())
        except BaseException as error:
            came_to.append(error)
        said.put(None)

    pressed = 0
    with _on_ctrl_c(lambda: said.put(None)) as presses:
        threading.Thread(target=work, daemon=True, name="race").start()
        while not came_to:
            teller.hear(said, LOOK_SECONDS)
            while pressed < presses():
                pressed += 1
                if pressed == 1:
                    teller.say("ending the race; ctrl+c again ends it at once")
                gently = grace if pressed == 1 else 0
                threading.Thread(target=_stop, args=(race, gently), daemon=True).start()
            teller.tell(race.status)
        teller.hear(said, 0)
        teller.tell(race.status)
    (result,) = came_to
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
    """How often it was pressed; the third time leaves, and what is to be cleaned up is cleaned up by
    a process of its own (`stoke.race.ephemeral_scope`)."""
    pressed = 0

    def press(_number: int, _frame: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 2:
            raise KeyboardInterrupt
        wake()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # Started so that ctrl+c is for somebody else.
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


class _Teller:
    """Says on stderr what the race is at, each thing once."""

    def __init__(self, request: Request, quiet: bool) -> None:
        from stoke.cli.progress_output import ProgressPrinter

        self._titles = {
            "cold": "cold, with nothing cached",
            "warming": f"the caches of scope {request.spec.scope} are not warm yet; warming them",
            "warm": f"warm, in scope {request.spec.scope}",
        }
        self._progresss = {name: ProgressPrinter(quiet) for name in self._titles}
        self._general = ProgressPrinter(quiet)
        self._begun: list[str] = []

    def hear(self, said: SimpleQueue[str | None], patience: float) -> None:
        """Waits for something to happen, and passes on what was said."""
        try:
            text = said.get(timeout=patience)
            while True:
                if text:
                    self.say(text)
                text = said.get_nowait()
        except Empty:
            pass

    def say(self, text: str) -> None:
        self._general.say(text)

    def tell(self, standing: RaceStatus) -> None:
        jobs = {"cold": standing.cold, "warming": standing.warming, "warm": standing.warm}
        for name, job in jobs.items():
            if name not in self._begun and (standing.active == name or job is not None):
                self._begun.append(name)
                self.say(self._titles[name])
            if job is not None:
                self._progresss[name].phases(job.phases, time.time())


# ------------------------------------------------------------------------------------- the figures


def _print(recording: Recording, as_json: bool) -> None:
    if as_json:
        from stoke.cli.output import print_json

        print_json(_document(recording))
    else:
        _print_table(recording)


def _document(recording: Recording) -> dict[str, Any]:
    from stoke.cli.output import rfc3339

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
        ("first line", (recording.cold.ready, recording.warm.ready)),
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
            f"scope {clean(recording.scope)} was not warm: warming it took {taken}, in neither run"
        )
    for note in recording.notes:
        click.echo(clean(note))
