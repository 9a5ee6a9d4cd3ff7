"""Copy a job's output from its spool to stdout and stderr: exactly, or filtered for a terminal."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from stoke.cli.terminal import JobScreen, TerminalFilter
from stoke.errors import EngineError
from stoke.logs.spool import NOTE, STDERR, STDOUT, LogSource, SpoolReader
from stoke.text.sanitize import clean

_BLOCK = 4096
"""Rows that are read together."""
_PIECE = 1 << 20
"""Bytes that are copied together; a line may be as long as the log."""


class OutputStream:
    """Our stdout or stderr. A terminal gets filtered text, anything else the unchanged bytes.

    `screen` allows cursor movements of a job that has the terminal to itself.
    """

    def __init__(
        self, descriptor: int, encoding: str = "utf-8", screen: JobScreen | None = None
    ) -> None:
        self._descriptor = descriptor
        self.is_terminal = os.isatty(descriptor)
        self.screen = screen if self.is_terminal else None
        self._filter = TerminalFilter(encoding, self.screen) if self.is_terminal else None
        self.at_line_start = True

    def write(self, data: bytes) -> None:
        if self._filter is not None:
            data = self._filter.feed(data)
        self._write(data)

    def write_unfiltered(self, text: str) -> None:
        """Write text of stoke's own."""
        self._write(text.encode())

    def finish(self) -> None:
        if self._filter is not None:
            self._write(self._filter.finish())

    def _write(self, data: bytes) -> None:
        if data:
            self.at_line_start = data.endswith(b"\n")
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # The stream is in non-blocking mode, set by a program that shares it.
                select.select([], [self._descriptor], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                name = {1: "standard output", 2: "standard error"}[self._descriptor]
                raise EngineError(f"cannot write to {name}: {error.strerror}") from error


class Passthrough:
    """Copy new rows of the spool, each row to its own stream.

    The follower may hold back the last newline of stderr until it knows that the newline does not
    belong to an event (`stoke.remote.events`). A user at a terminal should not wait for it:
    `borrow_newline` writes it in advance, and it is left out when it arrives.
    """

    def __init__(
        self,
        source: LogSource,
        stdout: OutputStream,
        stderr: OutputStream,
        first_row: int = 0,
        stamp: Callable[[int], bytes] | None = None,
    ) -> None:
        """Begin with row `first_row`. `stamp` makes the prefix of each row from its time in
        epoch nanoseconds."""
        self._reader = SpoolReader(source)
        self._stamp = stamp
        self._stdout = stdout
        self._stderr = stderr
        self._row = first_row
        # The position in the log from which row `_row` is still to be copied; None for its beginning.
        self._offset: int | None = None
        self._borrowed = False
        self.holds_newline: Callable[[], bool] = lambda: False
        """Return whether the follower holds back a newline of stderr (see `stoke.remote.events`)."""

    def end_line(self) -> None:
        """Move to a new line, if the job's output has not ended its last one."""
        on_one_screen = self._stdout.is_terminal and self._stderr.is_terminal
        screen = self._stderr.screen
        if screen is not None:
            self._stderr.write_unfiltered(screen.below())
            screen.clear()
            self._stderr.at_line_start = True
            self._stdout.at_line_start = self._stdout.at_line_start or on_one_screen
        elif not self._stderr.at_line_start or (on_one_screen and not self._stdout.at_line_start):
            self._stderr.write(b"\n")
            self._stdout.at_line_start = self._stdout.at_line_start or on_one_screen

    def pump(self) -> int:
        """Copy all new output. Return the size of the log that was copied."""
        size, rows = self._reader.size()
        while self._row < rows:
            count = min(_BLOCK, rows - self._row)
            some = self._reader.rows(self._row, count + 1)
            here = some[:count]
            if not here:
                break  # The spool was truncated to its checkpoint after `size`; the rows come again.
            # A row that was added after `size` begins behind it.
            ends = [min(offset, size) for offset, _, _ in some[1 : len(here) + 1]]
            ends += [size] * (len(here) - len(ends))
            self._copy(here, ends)
            last = self._row + len(here) >= rows
            # The last row may still grow; the next call begins with it.
            self._row += len(here) - last
            # (Never back: a follower that takes over truncates the spool to its last checkpoint.)
            self._offset = max(size, self._offset or 0) if last else None
            if last:
                break
        return size

    def _copy(self, rows: list[tuple[int, int, int]], ends: list[int]) -> None:
        """Copy rows, neighbouring rows of one stream in one write, unless each gets a stamp."""
        start = rows[0][0] if self._offset is None else self._offset
        for number, (offset, time, stream) in enumerate(rows):
            together = self._stamp is None and stream != NOTE
            if together and number + 1 < len(rows) and rows[number + 1][2] == stream:
                continue
            unfinished = self._stderr.is_terminal and not self._stderr.at_line_start
            between = stream == STDOUT and self._stdout.is_terminal and unfinished
            if between and self._ends_late(rows[number + 1 :]):
                self.borrow_newline()
            for at in range(start, ends[number], _PIECE):
                data = self._reader.read(at, min(at + _PIECE, ends[number]))
                if self._stamp is not None and at == offset:
                    data = self._stamped(stream, time, data)
                self._write(stream, data)
            start = ends[number]

    def _ends_late(self, rows: list[tuple[int, int, int]]) -> bool:
        """Return whether the newline of stderr's unfinished line comes after rows of stdout."""
        for offset, _, stream in rows:
            if stream == STDERR:
                return self._reader.read(offset, offset + 1) == b"\n"
        return self.holds_newline()

    def _stamped(self, stream: int, time: int, row: bytes) -> bytes:
        assert self._stamp is not None
        outlet = self._stdout if stream == STDOUT else self._stderr
        if outlet.at_line_start:
            return self._stamp(time) + row
        # The row before is unfinished: a newline at the start of this row ends it.
        rest = row.removeprefix(b"\n")
        return b"\n" + (self._stamp(time) + rest if rest else b"")

    def _write(self, stream: int, data: bytes) -> None:
        if not data:
            return
        if stream == NOTE:
            text = clean(data.decode(errors="replace").rstrip("\n"))
            self.end_line()
            self._stderr.write(f"stoke: {text}\n".encode())
            if self._stderr.screen is not None:
                self._stderr.screen.clear()
            return
        if stream == STDERR and self._borrowed:
            self._borrowed = False
            data = data.removeprefix(b"\n")
        (self._stdout if stream == STDOUT else self._stderr).write(data)

    def borrow_newline(self) -> None:
        if self._stderr.is_terminal and not self._borrowed and not self._stderr.at_line_start:
            self._stderr.write(b"\n")
            self._borrowed = True

    def close(self) -> None:
        self._stdout.finish()
        self._stderr.finish()
        self._reader.close()
