"""The two output streams of a job."""

from __future__ import annotations

import os
import time

from stoke.remote.protocol import STREAM_ENDS, STREAM_MARK


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, also while `descriptor` is in non-blocking mode.

    The user's code shares the open file behind stdout and stderr and may set O_NONBLOCK on it. A
    pipe takes up to PIPE_BUF bytes whole or not at all in either mode, so an event stays in one piece.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class Tagged:
    r"""Writes stdout and stderr into one stream, so that an engine keeps their order.

    A record is one line of the engine's log: \x1e, bytes of the job, one of four control characters
    that terminals do not show, and a newline. The control character names the stream, and tells whether
    the newline is the job's own. If it is not, the job's line continues or has no end yet. So an engine
    passes on a part of a line at once, cuts no line because of its length, and drops no \r at the end
    of a line. A line without \x1e is the engine's, or of a program that bypassed the runner.
    """

    MARK = STREAM_MARK
    ENDS = STREAM_ENDS
    LONGEST = 8192
    """Bytes of the job in one record. Engines cut lines at 16 KiB."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()

    def write(self, stream: int, data: bytes) -> None:
        """Write `data` of stdout (1) or stderr (2)."""
        with self._lock:
            write_all(1, self.lines(stream, data))

    @classmethod
    def lines(cls, stream: int, data: bytes) -> bytes:
        """Return the records of `data`."""
        unended, ended = cls.ENDS[stream - 1]
        pieces = [data]
        if len(data) > cls.LONGEST and max(map(len, data.split(b"\n"))) > cls.LONGEST:
            pieces = [data[at : at + cls.LONGEST] for at in range(0, len(data), cls.LONGEST)]
        records = []
        for piece in pieces:
            lines, newline, rest = piece.rpartition(b"\n")
            if newline:
                records += [cls.MARK, lines.replace(b"\n", ended + cls.MARK), ended]
            if rest:
                records += [cls.MARK, rest, unended]
        return b"".join(records)


class Pump:
    """Reads the code's output from two pipes and writes it as records.

    A part of a line is held for `HOLD` seconds, or until the other stream is written to. Otherwise code
    that writes a few bytes at a time would make a record of each write.
    """

    HOLD = 0.05
    READ_SIZE = 65536
    MOST_LAST_READS = 16
    """The capacity of a pipe: processes that the code left behind may write for ever."""

    def __init__(self, tagged: Tagged) -> None:
        import threading

        self._tagged = tagged
        self._ends: dict[int, int] = {}  # the pipe that we read: the stream that it is
        self.given: list[int] = []  # what the code writes to: stdout, stderr
        for stream in (1, 2):
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self._ends[ours] = stream
            self.given.append(theirs)
        self._held_stream = 0
        self._held = b""  # the part of a line of that stream
        self._held_until = 0.0
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for theirs in self.given:
            os.close(theirs)
        self._thread.start()

    def finish(self) -> None:
        """Write on what the code had written when it ended.

        Processes that it left behind may hold the pipes open; do not wait for them.
        """
        os.write(self._waker, b".")
        self._thread.join()

    def _run(self) -> None:
        import select

        poll = select.epoll()
        poll.register(self._wake, select.EPOLLIN)
        for ours in self._ends:
            # Edge-triggered, epoll first reports the pipe that was written to first.
            poll.register(ours, select.EPOLLIN | select.EPOLLET)
        unread: list[int] = []  # pipes that may hold more than was read
        while self._wake not in unread:
            wait: float | None = 0.0
            if not unread:
                wait = max(0.0, self._held_until - time.monotonic()) if self._held else None
            for number, _ in poll.poll(wait):
                if number not in unread:
                    unread.append(number)
            unread = [number for number in unread if number == self._wake or self._read(number)]
            if self._held and time.monotonic() >= self._held_until:
                self._write_held()
        for ours in sorted(self._ends, key=lambda one: one not in unread):
            reads = 0
            while self._read(ours) and reads < self.MOST_LAST_READS:
                reads += 1
        self._write_held()
        poll.close()

    def _read(self, ours: int) -> bool:
        """Read a pipe once; return whether it may hold more."""
        try:
            data = os.read(ours, self.READ_SIZE)
        except BlockingIOError:
            return False
        is_more = len(data) == self.READ_SIZE
        stream = self._ends[ours]
        if self._held_stream == stream:
            data = self._held + data
        else:
            self._write_held()
        end = data.rfind(b"\n") + 1
        if len(data) - end >= Tagged.LONGEST:
            end = len(data)
        if end or not self._held:
            self._held_until = time.monotonic() + self.HOLD
        self._held_stream, self._held = stream, data[end:]
        if end:
            self._tagged.write(stream, data[:end])
        return is_more

    def _write_held(self) -> None:
        data, self._held = self._held, b""
        if data:
            self._tagged.write(self._held_stream, data)
