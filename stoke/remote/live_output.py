"""Stdout and stderr of every Python that a job starts: live as on a terminal, cheap as in a pipe.

The runner puts this file beside a `.pth` file into the site-packages of the job's interpreter, so
that each process of that interpreter imports it at its start. A pipe is buffered by the line, and an
unfinished line is written within `SECONDS`. A Python with -u stays unbuffered; a terminal or a file is
left alone.

Text is collected in C, at no cost. Only a stream that has been quiet hands the first text to Python,
which starts a thread that flushes until the stream is quiet again. The thread is gone before the
process forks or exits, because Python warns of forks among threads, and a thread that holds a
stream's lock at exit is fatal.

Stdout and stderr are two pipes, and their reader cannot see which of the two was written first. So a
process that changes from one stream to the other waits until its earlier output has been read.

Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import atexit
import io
import os
import stat
import sys
import time
from _signal import (  # type: ignore[import-not-found]  # `signal` loads more than all of this
    SIG_BLOCK,
    SIG_SETMASK,
    pthread_sigmask,
    valid_signals,
)
from _thread import allocate_lock, get_native_id, start_new_thread

TYPE_CHECKING = False  # `typing` loads more than all of this, too
if TYPE_CHECKING:
    from typing import Any

SECONDS = 0.2
COLLECTED = 8192  # bytes of text, Python's own choice
AT_ONCE = 1
SPINS = 100  # looks at a pipe before a wait sleeps: a reader that is there needs about 0.05 ms
PATIENCE = 0.5  # seconds that a wait lasts at most: on a busy machine a reader has its turn late
PAUSE = 10.0  # seconds without waits after one in vain: the pipe has no reader that reads at once
CREDIT = 5.0  # seconds that waits may take before they are held to half of the process's time


class Turns:
    """Keeps the two streams of this process in order for a reader of both pipes.

    A flood on both streams in turn is not held up for ever: once it has used its `CREDIT`, it waits for
    at most half of the time, and keeps the order only then.
    """

    def __init__(self) -> None:
        self.last: object = None  # the stream that was written last
        self.pipes: dict[object, int] = {}
        self._resume_at = 0.0  # no waits before
        self._even_at = 0.0  # when the process will have worked for as long as it waited

    def take(self, stream: object) -> None:
        """Wait until the other stream's pipe is empty, because `stream` is written next."""
        self.last = stream
        try:
            begin = time.monotonic()
            if begin < self._resume_at:
                return
            for other, pipe in self.pipes.items():
                if other is not stream:
                    self._wait_until_read(pipe, begin)
        except Exception:
            pass  # The code closed the pipe, or the interpreter is being shut down.

    def _wait_until_read(self, pipe: int, begin: float) -> None:
        # Most processes write to one stream only and never need these.
        from fcntl import ioctl
        from termios import FIONREAD

        nothing = bytes(4)
        tries = 0
        while ioctl(pipe, FIONREAD, nothing) != nothing:
            tries += 1
            time.sleep(0 if tries < SPINS else 0.0001)
            if tries >= SPINS and time.monotonic() > begin + PATIENCE:
                self._resume_at = time.monotonic() + PAUSE
                return
        if tries:
            end = time.monotonic()
            self._even_at = max(self._even_at, begin) + 2 * (end - begin)
            self._resume_at = self._even_at - CREDIT


class LiveBuffer(io.BufferedWriter):
    """What is below the text of one stream. `fresh` says that something came since the last look."""

    fresh = False

    def __init__(self, raw: io.RawIOBase, turns: Turns) -> None:
        super().__init__(raw)
        self._turns = turns  # the module's own name is gone at the interpreter's last flush

    def flush(self) -> None:
        if self._turns.last is not self:
            self._turns.take(self)
        super().flush()

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        if self._turns.last is not self and memoryview(data).nbytes >= COLLECTED:
            self._turns.take(self)  # so much is written without a flush
        written = super().write(data)  # first: ctrl+c may come in what follows
        self.fresh = True
        if not flusher.runs:
            flusher.start()
        return written


class UnbufferedFile(io.FileIO):
    """The same for a Python with -u, where each write goes out at once."""

    def __init__(self, descriptor: int, name: str, turns: Turns) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.name = name
        self._turns = turns

    def write(self, data: Any) -> int:
        if self._turns.last is not self:
            self._turns.take(self)
        return super().write(data)


class Flusher:
    """Flushes the streams from a thread that runs only while something is written."""

    def __init__(self) -> None:
        self.streams: list[io.TextIOWrapper] = []
        self.reset()

    def reset(self) -> None:
        """Forget the thread: also what a forked child does, which has only the thread that forked."""
        self.runs = False
        self._occupied = allocate_lock()  # held while the thread runs, or must not start
        self._wake = allocate_lock()
        self._wake.acquire()
        self._thread = 0
        self._collect(AT_ONCE)

    def _collect(self, size: int) -> None:
        """Have text handed to the buffer once there are `size` bytes of it."""
        for stream in self.streams:
            try:
                stream._CHUNK_SIZE = size  # type: ignore[attr-defined]
            except ValueError:
                pass  # detached

    def start(self) -> None:
        if not self._occupied.acquire(False):
            return
        try:
            self._thread = 0
            self.runs = True
            self._collect(COLLECTED)
            # A signal that the code waits for must not be taken by this thread.
            mask = pthread_sigmask(SIG_BLOCK, ())
            try:
                pthread_sigmask(SIG_BLOCK, valid_signals())  # raises after blocking, on ctrl+c
                start_new_thread(self._run, ())
            finally:
                pthread_sigmask(SIG_SETMASK, mask)
        except BaseException as error:  # ctrl+c may come between any two steps
            if not self._has_begun():
                self.runs = False
                self._collect(AT_ONCE)
                self._occupied.release()
            if not isinstance(error, RuntimeError):  # no more threads: by the line, then
                raise

    def _has_begun(self) -> bool:
        for _ in range(100):
            if self._thread:
                return True
            time.sleep(0.001)
        return False

    def _run(self) -> None:
        self._thread = get_native_id()
        while True:
            stopped = self._wake.acquire(timeout=SECONDS)
            if not self._take_fresh() or stopped:
                break
            self._flush()
        # In this order: text that comes during the last flush is handed to Python again.
        self._collect(AT_ONCE)
        self.runs = False
        self._flush()
        if stopped:
            self._take_fresh()
        self._occupied.release()
        if not stopped and any(buffer.fresh for buffer in self._buffers()):
            self.start()

    def _buffers(self) -> list[LiveBuffer]:
        """Those that the code has not detached, which shows as None or as an error."""
        buffers = []
        for stream in self.streams:
            try:
                buffer = stream.buffer
            except ValueError:
                continue
            if isinstance(buffer, LiveBuffer):
                buffers.append(buffer)
        return buffers

    def _take_fresh(self) -> bool:
        fresh = False
        for buffer in self._buffers():
            fresh = fresh or buffer.fresh
            buffer.fresh = False
        return fresh

    def _flush(self) -> None:
        for stream in self.streams:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # The code meets the same error at its own next write.

    def stop(self) -> None:
        """Wait until the thread is gone, and let none start."""
        if self._occupied.acquire(False):
            return
        try:
            self._wake.release()
        except RuntimeError:
            pass  # asked for already, by another thread that forks
        while not self._occupied.acquire(timeout=SECONDS):
            # The thread waits for a slow reader, or ctrl+c came before there was one.
            if not (self._has_begun() and self._exists()):
                return
        for _ in range(100):
            if not self._exists():
                return
            time.sleep(0.0001)

    def _exists(self) -> bool:
        return os.path.exists(f"/proc/self/task/{self._thread}")

    def resume(self) -> None:
        self._wake.acquire(False)
        self.runs = False
        self._occupied.release()


def install() -> None:
    inodes = set()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper:
            continue
        unbuffered = type(stream.buffer) is io.FileIO
        if not unbuffered and type(stream.buffer) is not io.BufferedWriter:
            continue
        status = os.fstat(stream.fileno())
        if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISSOCK(status.st_mode):
            continue
        encoding, errors = stream.encoding, stream.errors
        raw = stream.detach() if unbuffered else stream.detach().detach()
        below: Any
        if unbuffered:
            below = UnbufferedFile(raw.fileno(), raw.name, turns)
            live = io.TextIOWrapper(below, encoding, errors, "\n", write_through=True)
        else:
            below = LiveBuffer(raw, turns)
            live = io.TextIOWrapper(below, encoding, errors, "\n", line_buffering=True)
            flusher.streams.append(live)
        live.mode = "w"  # type: ignore[misc]
        setattr(sys, name, live)
        setattr(sys, f"__{name}__", live)
        if stat.S_ISFIFO(status.st_mode):
            turns.pipes[below] = raw.fileno()
            inodes.add(status.st_ino)
    if len(inodes) < 2:
        turns.pipes.clear()  # both streams are one pipe, which already keeps their order
    if flusher.streams:
        flusher.reset()
        os.register_at_fork(
            before=flusher.stop, after_in_parent=flusher.resume, after_in_child=flusher.reset
        )
        atexit.register(flusher.stop)


turns = Turns()
flusher = Flusher()
try:
    install()
except Exception:
    pass  # Another Python than CPython may lack something: its output comes when it is flushed.
