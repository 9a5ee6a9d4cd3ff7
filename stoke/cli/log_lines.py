"""Print logs line by line: filtered, with times, from several jobs, or as JSON.

`stoke.cli.passthrough` copies the bytes of one job unchanged; this module reads each line.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import repeat

import click

from stoke.cli.passthrough import OutputStream
from stoke.logs.pattern import LINE_SECONDS, Pattern
from stoke.logs.reader import parts
from stoke.logs.search import part_holds
from stoke.logs.spool import NOTE, STDERR, STDOUT, LogLine, LogSource, SpoolReader
from stoke.text.sanitize import clean, clean_line, line_states

LONGEST = 1 << 20
"""Bytes of a line that are shown; the rest is counted and left out."""

STREAMS = {STDOUT: "stdout", STDERR: "stderr", NOTE: "note"}
_COLOURS = (36, 33, 32, 35, 34, 31)
_MATCH = "\x1b[1;31m"
_RESET = "\x1b[0m"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class LineFilter:
    """Select lines by stream, by time (`since` in epoch nanoseconds) and by pattern."""

    stream: int | None = None
    since: int = 0
    grep: Pattern | None = None

    def matches(self, line: LogLine, reader: SpoolReader) -> bool:
        """Return whether the filter selects `line`, which is searched to its end, however long."""
        if line.stream == NOTE:
            return line.time >= self.since  # Reports of gaps are always shown.
        return (
            (self.stream is None or line.stream == self.stream)
            and line.time >= self.since
            and (self.grep is None or _found(self.grep, line, reader))
        )


def _found(pattern: Pattern, line: LogLine, reader: SpoolReader) -> bool:
    if not line.cut:
        return pattern.found_in(clean_line(line.text))
    ((start, _, _),) = reader.rows(line.number, 1)
    end = start + len(line.text) + line.cut
    return any(
        part_holds(pattern.found_in, block.data, *block.part)
        for block in parts(reader, start, end)
        if block.part
    )


class JobLines:
    """Read the lines of one job, each call from where the last one ended."""

    def __init__(
        self, job_id: str, source: LogSource, wanted: LineFilter, tail: int | None
    ) -> None:
        self.job_id = job_id
        self._filter = wanted
        self._reader = SpoolReader(source)
        self._tail = tail
        self._next = self._reader.first_since(wanted.since) if wanted.since else 0

    def new(self, all_of_it: bool) -> Iterator[LogLine]:
        """Yield the lines since the last call. An unfinished last line waits, unless `all_of_it`."""
        found = (
            line for line in self._whole(all_of_it) if self._filter.matches(line, self._reader)
        )
        if self._tail is None:
            return found
        last, self._tail = deque(found, self._tail), None
        return iter(last)

    def _whole(self, all_of_it: bool) -> Iterator[LogLine]:
        _, rows = self._reader.size()
        for line in self._reader.lines(self._next, longest=LONGEST):
            last = line.number + 1 >= rows
            if last and not all_of_it and (line.cut or not line.text.endswith(b"\n")):
                return
            self._next = line.number + 1
            yield line

    def close(self) -> None:
        self._reader.close()


class LinePrinter:
    """Write lines, each to its own stream; as JSON, all to stdout."""

    def __init__(
        self,
        stdout: OutputStream,
        stderr: OutputStream,
        jobs: list[str],
        *,
        as_json: bool,
        timestamps: bool,
        colours: bool,
        grep: Pattern | None,
    ) -> None:
        self._outlets = {STDOUT: stdout, STDERR: stderr, NOTE: stderr}
        self._as_json = as_json
        self._timestamps = timestamps
        self._colours = colours
        self._grep = grep
        self._prefixes: dict[str, str] = {}
        if len(jobs) > 1:
            width = max(map(len, jobs))
            for number, job in enumerate(jobs):
                name = f"{clean(job):<{width}} |"
                colour = _COLOURS[number % len(_COLOURS)]
                self._prefixes[job] = f"\x1b[{colour}m{name}{_RESET} " if colours else f"{name} "

    def print_merged(self, sources: Iterable[JobLines], all_of_it: bool) -> None:
        """Print new lines of all jobs, ordered by time; the order within one job is kept."""
        each = [zip(source.new(all_of_it), repeat(source.job_id)) for source in sources]
        for line, job in merge(*each, key=lambda pair: pair[0].time):
            self._print(line, job)

    def _print(self, line: LogLine, job: str) -> None:
        if self._as_json:
            self._outlets[STDOUT].write(_as_json(line, job))
            return
        outlet = self._outlets[line.stream]
        begin = self._prefixes.get(job, "")
        if self._timestamps:
            begin += stamp(line.time)
        if line.stream == NOTE:
            outlet.write(f"{begin}stoke: {clean_line(line.text)}\n".encode())
        elif outlet.is_terminal or begin or line.cut:
            outlet.write(begin.encode() + self._text(line, outlet) + b"\n")
        else:
            outlet.write(line.text)

    def _text(self, line: LogLine, outlet: OutputStream) -> bytes:
        """Return a line without its end; for a terminal, a bar's last state, with matches marked."""
        raw = line.text.removeprefix(b"\n").removesuffix(b"\n")
        if outlet.is_terminal:
            if self._grep is not None and self._colours:
                raw = _marked(self._grep, clean_line(raw)).encode()
            elif len(line_states(raw)) > 1:
                raw = clean_line(raw).encode()
            if b"\x1b" in raw:
                raw += _RESET.encode()
        if line.cut:
            raw += f" [line cut: {line.cut} bytes more]".encode()
        return raw


def _marked(pattern: Pattern, text: str) -> str:
    """Return `text` with colour around the matches of `pattern`."""
    marked, at = "", 0
    for start, end in pattern.spans(text, LINE_SECONDS):
        marked += f"{text[at:start]}{_MATCH}{text[start:end]}{_RESET}"
        at = end
    return marked + text[at:]


def _as_json(line: LogLine, job: str) -> bytes:
    text = line.text.removeprefix(b"\n").removesuffix(b"\n").decode(errors="replace")
    value = {
        "job": job,
        "time": stamp(line.time).strip(),
        "stream": STREAMS[line.stream],
        "text": text,
    }
    if line.cut:
        value["cut"] = str(line.cut)
    # ASCII only, so nothing in it acts on a terminal.
    return json.dumps(value).encode() + b"\n"


def stamp(time: int) -> str:
    """Format epoch nanoseconds as `2026-01-31T12:00:00.000Z `."""
    moment = datetime.fromtimestamp(time / 1e9, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z ")


def since_time(text: str, now: float) -> int:
    """Return epoch nanoseconds for `90s`, `5m`, `2h`, `1d` before `now`, or for a date and time, local
    unless it names a zone. Raise `click.BadParameter` for anything else."""
    short = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if short:
        return max(0, int((now - float(short[1]) * _UNITS[short[2]]) * 1e9))
    try:
        return max(0, int(datetime.fromisoformat(text).astimezone().timestamp() * 1e9))
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{clean(text)!r} is neither a duration (90s, 5m, 2h, 1d) nor a time "
            "(2026-01-31T12:00)",
            param_hint="--since",
        ) from None
