"""Takes a job's two streams out of the one stream that its runner writes.

`stoke.remote.runner.streams.Tagged` describes the records, each one line of an engine's log.
"""

from __future__ import annotations

from itertools import repeat

from stoke.backend.api import Frame
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.protocol import STREAM_ENDS, STREAM_MARK

# What a record ends with: its stream, and what stands there in the job's output.
_ENDS = {
    end: (stream, newline)
    for stream, ends in zip((STDOUT, STDERR), STREAM_ENDS, strict=True)
    for end, newline in zip(ends, (b"", b"\n"), strict=True)
}


def take_record(time: int, data: bytes) -> Frame | None:
    """The job's bytes in one line of an engine's log. None if the line is not a record."""
    if not data.startswith(STREAM_MARK):
        return None
    if not data.endswith(b"\n"):
        # The runner was killed before it had written the end.
        return Frame(STDOUT, time, data[1:])
    end = _ENDS.get(data[-2:])
    return Frame(end[0], time, data[1:-2] + end[1]) if end and len(data) > 2 else None


def take_records(frames: list[Frame]) -> list[Frame]:
    """`take_record` for many lines; a line that is not a record stays as it is."""
    _, times, lines = zip(*frames, strict=True)
    ends = [
        _ENDS.get(line[-2:]) if len(line) > 2 and line.startswith(STREAM_MARK) else None
        for line in lines
    ]
    if None in ends:
        return [take_record(frame.time, frame.data) or frame for frame in frames]
    streams, newlines = zip(*ends, strict=True)
    datas = [line[1:-2] + newline for line, newline in zip(lines, newlines, strict=True)]
    fields = zip(streams, times, datas, strict=True)
    return list(map(tuple.__new__, repeat(Frame), fields))
