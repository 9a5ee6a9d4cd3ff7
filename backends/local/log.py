"""Read the frames that a supervisor writes (see `backends.local.supervisor`)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from backends.local.supervisor import HEADER
from stoke.backend.api import Frame
from stoke.errors import EngineError

# A follower reads again after a pause that grows between these two, in seconds: a job that ends at
# once is noticed at once, and an idle one costs 20 reads a second.
PAUSES = (0.001, 0.05)
# At this growth a pause is a tenth of the time without output before it.
GROWTH = 1.1
READ = 1 << 20
# A supervisor writes at most 64 KiB a frame, but a job can overwrite the file.
LONGEST = READ // 2


class FrameFile:
    """A `LogStream` over a frame file: frames from `since` on, until the job has ended."""

    def __init__(self, path: Path, since: int, follow: bool, is_over: Callable[[], bool]) -> None:
        self._path = path
        self._since = since
        self._follow = follow
        self._is_over = is_over
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[list[Frame]]:
        file = self._try_open()
        # The offset of the first incomplete frame. It is read again from there: on a full disk the
        # supervisor removes half a frame, and another one takes its place.
        at = 0
        pause, longest = PAUSES
        over = not self._follow
        try:
            while not self._closed.is_set():
                if file is None:
                    file = self._try_open()
                data = os.pread(file, READ, at) if file is not None else b""
                frames, size = self._split(data)
                if size:
                    pause = PAUSES[0]
                    at += size
                    if frames:
                        yield frames
                elif over:
                    return
                else:
                    # Asked before the last read, so that everything written before the end is read.
                    over = self._is_over()
                    if not over:
                        self._closed.wait(pause)
                        pause = min(longest, pause * GROWTH)
        finally:
            if file is not None:
                os.close(file)

    def close(self) -> None:
        self._closed.set()

    def _try_open(self) -> int | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(self._path, flags)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise EngineError(f"{self._path} is not a regular file any more")
        return file

    def _split(self, data: bytes) -> tuple[list[Frame], int]:
        """Return the complete frames in `data` that are not too old, and the bytes of all complete
        ones."""
        frames = []
        at = 0
        while len(data) - at >= HEADER.size:
            stream, length, time = HEADER.unpack_from(data, at)
            if length > LONGEST:
                raise EngineError(f"{self._path} is damaged: it has a frame of {length} bytes")
            end = at + HEADER.size + length
            if end > len(data):
                break
            if time >= self._since:
                frames.append(Frame(stream, time, data[at + HEADER.size : end]))
            at = end
        return frames, at
