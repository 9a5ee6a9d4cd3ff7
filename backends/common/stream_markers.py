"""Split a job's log into stdout and stderr by the stream markers that the runner adds to each line.

`stoke.remote.runner.streams.Tagged` describes the markers. Each marked line is one line of the log.
"""

from __future__ import annotations

from itertools import repeat

from stoke.backend.api import Frame
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.protocol import STREAM_ENDS, STREAM_MARK

# The end of a marked line: its stream, and the bytes in its place in the job's output.
_ENDS = {
    end: (stream, newline)
    for stream, ends in zip((STDOUT, STDERR), STREAM_ENDS, strict=True)
    for end, newline in zip(ends, (b"", b"\n"), strict=True)
}


def decode_line(time: int, data: bytes) -> Frame | None:
    """Return the job's bytes in one line of a log, or None if the line is not marked."""
    if not data.startswith(STREAM_MARK):
        return None
    if not data.endswith(b"\n"):
        # The runner was killed before it wrote the end.
        return Frame(STDOUT, time, data[1:])
    end = _ENDS.get(data[-2:])
    return Frame(end[0], time, data[1:-2] + end[1]) if end and len(data) > 2 else None


def decode_lines(frames: list[Frame]) -> list[Frame]:
    """Decode many lines, and keep a line that is not marked as it is."""
    _, times, lines = zip(*frames, strict=True)
    ends = [
        _ENDS.get(line[-2:]) if len(line) > 2 and line.startswith(STREAM_MARK) else None
        for line in lines
    ]
    if None in ends:
        return [decode_line(frame.time, frame.data) or frame for frame in frames]
    streams, newlines = zip(*ends, strict=True)
    datas = [line[1:-2] + newline for line, newline in zip(lines, newlines, strict=True)]
    fields = zip(streams, times, datas, strict=True)
    return list(map(tuple.__new__, repeat(Frame), fields))
