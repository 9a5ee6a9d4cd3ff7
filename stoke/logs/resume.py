"""Where a follower continues after an end or a cut, and which frames it already has.

Usually it continues by time: from the newest frame minus a small overlap, because the times of an
engine's two streams can be a few milliseconds out of order. Frames of the overlap that it already has
are dropped by content, with multiplicity, not by time.

If the clock went back by more than the overlap, or if the engine gives whole seconds (Podman before
4.4), no time tells where the new frames begin. The follower then asks for the log from its start and
skips as many frames as it has; a checksum shows whether they are the same frames. (A clock step while
nothing is connected shows in this machine's clock, which is the engine's own or is set by the same time
servers.)
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from stoke.backend.api import Frame

OVERLAP = 10_000_000
SECOND = 1_000_000_000
# Frames of a container's two streams were measured up to 3.6 ms out of order; a shorter overlap would
# miss the late ones.
LEAST_OVERLAP = 4_000_000
# Engines split longer lines into parts of this size. A shorter frame without a newline is complete: a
# record of the runner, or the last frame of a stream.
PART_SIZE = 16 * 1024
# Bytes of recent frames to hold; of older ones only keys. All parts of a long line have the same time.
MAX_HELD = 4 << 20

Key = tuple[int, int, int, int]
"""(time, stream, length, CRC) of a frame."""


class _Batch(NamedTuple):
    """Frames that came together, as columns: fast output has tens of thousands within the overlap."""

    newest: int
    times: array[int]
    streams: bytes
    sizes: array[int]
    data: bytes

    def keys(self, since: int) -> Iterator[Key]:
        at = 0
        for moment, stream, size in zip(self.times, self.streams, self.sizes, strict=True):
            if moment >= since:
                yield moment, stream, size, zlib.crc32(self.data[at : at + size])
            at += size


class ResumePoint:
    """The frames read so far, as far as the next connection needs them. Times are in nanoseconds."""

    def __init__(self) -> None:
        self.newest = 0
        self._last = 0
        self._frames = 0
        self._checksum = 0
        self._clock = clock_offset()
        # Whether all times so far were whole seconds; checked once per batch.
        self._whole_seconds = True
        # The first frame of the log. Podman drops a whole log at once, and the next one begins with
        # another frame.
        self._first: Key | None = None
        # Batches within the overlap; keys of frames that are older or from an earlier process, and the
        # newest time among these.
        self._recent: deque[_Batch] = deque()
        self._recent_bytes = 0
        self._older: list[Key] = []
        self._older_newest = 0
        # stream: the time of its newest frame, how many of its last frames have that time, and whether
        # the newest ends its line. If not, the rest of the line has the same time, however much later
        # it was written.
        self._newest_of: dict[int, tuple[int, int, bool]] = {}

    @property
    def clock_went_back(self) -> bool:
        return self._last < self.newest - OVERLAP or clock_offset() < self._clock - OVERLAP

    def take(self, streams: Sequence[int], times: Sequence[int], pieces: Sequence[bytes]) -> None:
        """Record new frames, given as columns."""
        if not self._frames:
            self._first = _key(Frame(streams[0], times[0], pieces[0]))
        newest, data = max(times), b"".join(pieces)
        self.newest = max(self.newest, newest)
        self._last = times[-1]
        self._whole_seconds = self._whole_seconds and not self._last % SECOND
        self._frames += len(times)
        self._checksum = zlib.crc32(data, self._checksum)
        self._clock = clock_offset()
        self._note_newest_of_each(streams, times, pieces)
        horizon = self.newest - OVERLAP
        if newest >= horizon:
            sizes = array("I", map(len, pieces))
            self._recent.append(_Batch(newest, array("q", times), bytes(streams), sizes, data))
            self._recent_bytes += len(data)
        while self._recent and (self._recent[0].newest < horizon or self._recent_bytes > MAX_HELD):
            taken = self._recent.popleft()
            self._recent_bytes -= len(taken.data)
            if taken.newest >= horizon:
                self._older += taken.keys(0)
                self._older_newest = max(self._older_newest, taken.newest)
        if self._older_newest < horizon:
            self._older.clear()

    def _note_newest_of_each(
        self, streams: Sequence[int], times: Sequence[int], pieces: Sequence[bytes]
    ) -> None:
        for stream in set(streams):
            newest: int | None = None
            count, ended = 0, False
            for at in range(len(streams) - 1, -1, -1):
                if streams[at] != stream:
                    continue
                if newest is None:
                    newest = times[at]
                    ended = len(pieces[at]) < PART_SIZE or pieces[at].endswith(b"\n")
                elif times[at] != newest:
                    break
                count += 1
            else:
                before = self._newest_of.get(stream)
                if before and before[0] == newest:
                    count += before[1]
            assert newest is not None
            self._newest_of[stream] = newest, count, ended

    def count_from(self, frames: int, checksum: int) -> None:
        """Count from other frames: the engine's log no longer begins with the recorded ones."""
        self._frames, self._checksum = frames, checksum

    def window(self) -> list[Key]:
        """Return the keys of all recorded frames that may come again."""
        horizon = self.newest - OVERLAP
        keys = [key for key in self._older if key[0] >= horizon]
        for taken in self._recent:
            keys += taken.keys(horizon)
        return keys

    def repeats(self, overlap: int) -> Repeats:
        """Return the filter for a connection that begins now."""
        if self._frames and (self._whole_seconds or self.clock_went_back):
            first = self._first if self._whole_seconds else None
            return CountedRepeats(self._frames, self._checksum, first, self.count_from)
        since = max(0, self.newest - overlap)
        unended = {
            stream: (moment, count)
            for stream, (moment, count, ended) in self._newest_of.items()
            if not ended
        }
        return Repeats(since, self.newest, Counter(self.window()), unended)

    def as_json(self) -> dict[str, Any]:
        return {
            "newest": self.newest,
            "last": self._last,
            "first": self._first,
            "frames": self._frames,
            "checksum": self._checksum,
            "clock": self._clock,
            "window": self.window(),
            "newest_of": [[stream, *newest] for stream, newest in self._newest_of.items()],
        }

    def restore(self, stored: dict[str, Any]) -> None:
        self.newest = stored["newest"]
        self._last = stored["last"]
        first = stored.get("first")  # Checkpoints of earlier versions have none.
        self._first = first and (first[0], first[1], first[2], first[3])
        self._frames = stored["frames"]
        self._checksum = stored["checksum"]
        self._clock = stored["clock"]
        self._whole_seconds = not self._last % SECOND
        self._older = [(key[0], key[1], key[2], key[3]) for key in stored["window"]]
        self._older_newest = self.newest
        self._newest_of = {row[0]: (row[1], row[2], row[3]) for row in stored.get("newest_of", ())}


class Repeats:
    """Drop from one connection the frames that came with an earlier one. It begins at time `since`.

    `unended` has, for each stream whose newest frame is a part of a line, the time of that frame and
    the number of recorded frames of the stream with this time. If such a line is older than `since`,
    the connection begins at the line, and frames older than the overlap are dropped unless they
    continue it.

    `gap`, set after the first frames, describes what the engine no longer has; None if it has all.
    """

    def __init__(
        self,
        since: int,
        newest: int,
        expected: Counter[Key],
        unended: Mapping[int, tuple[int, int]] = MappingProxyType({}),
    ) -> None:
        self.since = min([since, *(moment for moment, _ in unended.values())])
        self.gap: str | None = None
        self._newest = newest
        self._horizon = newest - OVERLAP
        self._expected = expected
        self._parts = {
            (stream, moment): parts
            for stream, (moment, parts) in unended.items()
            if moment < self._horizon
        }
        self._began = False
        self._before_overlap = bool(self._parts)

    def new(self, batch: list[Frame]) -> list[Frame]:
        if not self._expected:
            return batch
        if not self._began:
            self._began = True
            # A repetition begins with a known frame, unless the engine has dropped that frame.
            if batch[0].time >= self._horizon and not self._expected[_key(batch[0])]:
                seconds = max(0, batch[0].time - self._newest) / 1e9
                self.gap = f"{seconds:.1f} s of the log may be missing"
        got = []
        for frame in batch:
            if frame.time < self._horizon:
                if self._is_repeated_before_overlap(frame):
                    continue
            else:
                self._before_overlap = False
            key = _key(frame)
            if self._expected.get(key, 0) > 0:
                self._expected[key] -= 1
            else:
                got.append(frame)
        if batch[0].time > self._newest + OVERLAP:
            self._expected.clear()  # Later frames are not repetitions.
        return got

    def _is_repeated_before_overlap(self, frame: Frame) -> bool:
        """Return whether a frame older than the overlap came with an earlier connection."""
        line = frame.stream, frame.time
        if line not in self._parts:
            return self._before_overlap
        self._parts[line] -= 1
        return self._parts[line] >= 0

    def end(self) -> None:
        """Note that the engine has given everything it has."""


class CountedRepeats(Repeats):
    """Drop repetitions by counting: `frames` frames, with this checksum, came earlier.

    If `first` is given, a log that begins with another frame has none of the earlier frames.
    """

    def __init__(
        self,
        frames: int,
        checksum: int,
        first: Key | None,
        on_other: Callable[[int, int], None],
    ) -> None:
        """`on_other` gets the number and the checksum of the frames found instead of the expected."""
        super().__init__(0, 0, Counter())
        self._first = first
        self._frames = self._left = frames
        self._wanted = checksum
        self._on_other = on_other
        self._checksum = 0

    def new(self, batch: list[Frame]) -> list[Frame]:
        if not self._left:
            return batch
        first, self._first = self._first, None
        if first is not None and _key(batch[0]) != first:
            self.end()
            return batch
        known, rest = batch[: self._left], batch[self._left :]
        self._left -= len(known)
        self._checksum = zlib.crc32(b"".join([frame.data for frame in known]), self._checksum)
        if not self._left and self._checksum != self._wanted:
            self.end()
        return rest

    def end(self) -> None:
        if self._left or self._checksum != self._wanted:
            self.gap = "the engine no longer has all of the log: some may be missing"
            self._on_other(self._frames - self._left, self._checksum)
            self._left, self._wanted = 0, self._checksum


def clock_offset() -> int:
    """Return the clock minus the time since the machine's start, in nanoseconds.

    It changes when the clock is set, and only then.
    """
    best = offset = 1 << 62
    for _ in range(3):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        now = time.time_ns()
        spent = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
        if spent < best:
            best, offset = spent, now - before
        if spent < OVERLAP // 100:
            break
    return offset


def _key(frame: Frame) -> Key:
    return (frame.time, frame.stream, len(frame.data), zlib.crc32(frame.data))
