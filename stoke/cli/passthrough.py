"""A job's output from the spool to our own stdout and stderr: exactly, or safe for a terminal."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from stoke.cli.terminal import JobScreen, TerminalFilter
from stoke.errors import EngineError
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolReader
from stoke.text.sanitize import clean

_BLOCK = 4096
"""Rows that are looked at together."""
_PIECE = 1 << 20
"""Bytes that are copied together: a line may be as long as the log."""


class OutputStream:
    """One of our own streams. A terminal gets filtered text, everything else the bytes as they are.

    `screen` lets the cursor moves of a job through, where it has the terminal to itself.
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

    def write_ours(self, text: str) -> None:
        """Write what is ours as it is."""
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
                # Somebody handed us a stream that does not wait.
                select.select([], [self._descriptor], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                name = {1: "standard output", 2: "standard error"}[self._descriptor]
                raise EngineError(f"cannot write to {name}: {error.strerror}") from error


class Passthrough:
    """Copies what the spool gains, row by row, each row to its own stream.

    The end of stderr may lack a newline that is held back until it is known not to belong to an
    event (`stoke.remote.events`). A person at a terminal should not wait for it: `borrow_newline`
    writes it in advance, and it is left out when it comes.
    """

    def __init__(
        self,
        folder: Path,
        stdout: OutputStream,
        stderr: OutputStream,
        first_row: int = 0,
        stamp: Callable[[int], bytes] | None = None,
    ) -> None:
        """Begins with row `first_row`. `stamp` makes what stands before each row from its time in
        epoch nanoseconds."""
        self._reader = SpoolReader(folder)
        self._stamp = stamp
        self._stdout = stdout
        self._stderr = stderr
        self._row = first_row
        # Where in the log the rest of row `_row` begins; None at its beginning.
        self._offset: int | None = None
        self._borrowed = False
        self.holds_newline: Callable[[], bool] = lambda: False
        """Whether the follower holds back a newline of stderr (see `stoke.remote.events`)."""

    def end_line(self) -> None:
        """Sees to it that a line of ours begins a line."""
        on_one_screen = self._stdout.is_terminal and self._stderr.is_terminal
        screen = self._stderr.screen
        if screen is not None:
            self._stderr.write_ours(screen.below())
            screen.clear()
            self._stderr.at_line_start = True
            self._stdout.at_line_start = self._stdout.at_line_start or on_one_screen
        elif not self._stderr.at_line_start or (on_one_screen and not self._stdout.at_line_start):
            self._stderr.write(b"\n")
            self._stdout.at_line_start = self._stdout.at_line_start or on_one_screen

    def pump(self) -> int:
        """Copies all there is, and returns up to which byte of the log that was."""
        size, rows = self._reader.size()
        while self._row < rows:
            count = min(_BLOCK, rows - self._row)
            some = self._reader.rows(self._row, count + 1)
            here = some[:count]
            if not here:
                break  # The spool was cut back to its checkpoint since `size`; the rows come again.
            # A row that has come since `size` begins behind it.
            ends = [min(offset, size) for offset, _, _ in some[1 : len(here) + 1]]
            ends += [size] * (len(here) - len(ends))
            self._copy(here, ends)
            last = self._row + len(here) >= rows
            # The last row may still grow; the next look begins with it.
            self._row += len(here) - last
            # (Never back: a follower that takes over cuts the spool to where it was surely whole.)
            self._offset = max(size, self._offset or 0) if last else None
            if last:
                break
        return size

    def _copy(self, rows: list[tuple[int, int, int]], ends: list[int]) -> None:
        """Neighbouring rows of one stream in one write, unless each has its stamp."""
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
        """Whether the unfinished line on stderr has its newline behind the other stream's rows."""
        for offset, _, stream in rows:
            if stream == STDERR:
                return self._reader.read(offset, offset + 1) == b"\n"
        return self.holds_newline()

    def _stamped(self, stream: int, time: int, row: bytes) -> bytes:
        assert self._stamp is not None
        outlet = self._stdout if stream == STDOUT else self._stderr
        if outlet.at_line_start:
            return self._stamp(time) + row
        # The row before has not ended its line; if this one does so first, that is its end.
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
