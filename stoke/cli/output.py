"""Output of the commands: tables, colours, notices, errors.

Data goes to stdout, messages to stderr. Every string from outside passes `stoke.text.sanitize` here, so
that no command has to sanitize it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from stoke.files.debug import Logger, debug_file
from stoke.history.job import Job, JobState, beyond_reason
from stoke.text.sanitize import clean, clean_block
from stoke.text.shorten import shorten
from stoke.text.units import UNKNOWN, human_age, human_bytes

if TYPE_CHECKING:
    from stoke.history.database import Note
    from stoke.logs.fallback import UnsavedLogError

_log = Logger(__name__)

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}
_STATE_COLOURS = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.LOST: "red",
    JobState.STOPPED: "yellow",
    JobState.RUNNING: "cyan",
}


def shows_colour(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal whose user wants colours."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


def paint(text: str, colour: str | None, stream: TextIO) -> str:
    if colour is None or not shows_colour(stream):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def print_notice(text: str) -> None:
    """Print one line on stderr."""
    click.echo(f"{paint('stoke:', 'dim', sys.stderr)} {clean(shorten(text))}", err=True)


def print_error(what: str, hint: str | None) -> None:
    """Print an error and its hint on stderr; either may have several lines, as a resolver's does."""
    _log.debug("error: %s; hint: %s", what, hint)
    click.echo(f"{paint('error:', 'red', sys.stderr)} {clean_block(what).strip()}", err=True)
    if hint:
        click.echo(f"{paint('hint:', 'cyan', sys.stderr)} {clean_block(hint).strip()}", err=True)
    if path := debug_file():
        click.echo(f"{paint('debug log:', 'cyan', sys.stderr)} {clean(str(path))}", err=True)


def print_unsaved_log(error: UnsavedLogError) -> None:
    print_notice(f"{error.what}; {error.hint}" if error.hint else error.what)


def time_ago(then: float | None, now: float | None = None) -> str:
    """Return `12s ago`; `now` for less than a second or a time in the future."""
    if then is None:
        return UNKNOWN
    seconds = (time.time() if now is None else now) - then
    return f"{human_age(seconds)} ago" if seconds >= 1 else "now"


def human_time(then: float | None) -> str:
    """Format local time, to the second."""
    if then is None:
        return UNKNOWN
    return datetime.fromtimestamp(then).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def state_text(job: Job) -> str:
    """Return the state, with `?` if the engine has not confirmed it; "damaged" if it is unreadable."""
    if job.damage and job.state is JobState.LOST:
        return "damaged"
    if job.held:
        return f"{job.state}, held"
    return f"{job.state}?" if job.stale or job.provisional else str(job.state)


def state_colour(job: Job) -> str | None:
    return state_colour_of(job.state)


def state_colour_of(state: JobState) -> str | None:
    return _STATE_COLOURS.get(state)


def notes_text(notes: Iterable[Note], reason: str | None) -> str:
    """Return the notes of a job with their hints, without what its reason says already."""
    lines = (
        line
        for note in notes
        for line in (beyond_reason(note.text, reason), note.hint and f"hint: {note.hint}")
    )
    return "\n".join(filter(None, lines))


def counted(number: int, what: str) -> str:
    """Return `1 environment`, `2,000 environments`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def width(text: str) -> int:
    """Return how many columns `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


Cell = str | tuple[str, str | None]
"""Text, or text and its colour."""


def print_table(
    heads: list[str], rows: list[list[Cell]], right: frozenset[int] = frozenset()
) -> None:
    """Print a table on stdout. Columns in `right` are aligned right; on a terminal, the last column is
    cut at its edge."""
    pairs = [[cell if isinstance(cell, tuple) else (cell, None) for cell in row] for row in rows]
    cells = [[(clean(text), colour) for text, colour in row] for row in pairs]
    widths = [
        max([width(head), *(width(row[column][0]) for row in cells)])
        for column, head in enumerate(heads)
    ]
    edge = os.get_terminal_size(1).columns if sys.stdout.isatty() else None
    before = sum(widths[:-1]) + 2 * (len(heads) - 1)
    lines: list[list[tuple[str, str | None]]] = [[(head, "bold") for head in heads], *cells]
    for line in lines:
        parts = []
        for column, (text, colour) in enumerate(line):
            last = column == len(line) - 1
            if last and edge is not None:
                text = _cut(text, max(8, edge - before))
            space = "" if last and column not in right else " " * (widths[column] - width(text))
            shown = paint(text, colour, sys.stdout)
            parts.append(space + shown if column in right else shown + space)
        click.echo("  ".join(parts).rstrip())


def _cut(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return text + "…"


def print_pairs(facts: dict[str, str | None]) -> None:
    """Print `name  value` pairs without the empty ones; further lines of a value are aligned."""
    for name, value in facts.items():
        if not value:
            continue
        lines = clean_block(value).strip("\n").split("\n")
        click.echo(f"{name:<12}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<12}  {line}")


def removed_log(job: Job) -> str | None:
    """Say why a finished job's log was removed; None if it was not."""
    if not job.state.finished:
        return None
    from stoke.logs.retention import removed_within

    limit = removed_within(job.id)
    if limit is None:
        return None
    return f"its log was removed to keep all logs within {human_bytes(limit)} (log.spool_max)"


def print_json(value: Any) -> None:
    # ASCII only, so that no name can act on a terminal.
    click.echo(json.dumps(value, indent=2))
