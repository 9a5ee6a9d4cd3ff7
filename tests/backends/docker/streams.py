"""The engine's log stream, written by hand: what the reader is tested against."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from backends.docker.log import PART_SIZE
from stoke.backend.api import Frame


def stamp(time: int, offset_minutes: int = 0) -> bytes:
    """Epoch nanoseconds as the engine writes them, always with nine digits."""
    seconds, nanoseconds = divmod(time, 1_000_000_000)
    zone = timezone(timedelta(minutes=offset_minutes))
    text = datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S")
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    suffix = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if offset_minutes else "Z"
    return f"{text}.{nanoseconds:09}{suffix} ".encode()


def raw(stream: int, body: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(body)) + body


def encode(frame: Frame, offset_minutes: int = 0) -> bytes:
    return raw(frame.stream, stamp(frame.time, offset_minutes) + frame.data)


def stored(text: bytes, stream: int, time: int, ends_lost: bool) -> Iterator[Frame]:
    """What an engine keeps of everything that one stream wrote: a frame a line, or several of 16 KiB.

    With `ends_lost` as engines before 23.0 give it back from the `local` driver.
    """
    lines = text.split(b"\n")
    rest = lines.pop()
    for line in lines:
        time += 1
        while len(line) >= PART_SIZE:
            yield Frame(stream, time, line[:PART_SIZE])
            line = line[PART_SIZE:]
            if len(line) < PART_SIZE and ends_lost:
                yield Frame(stream, time, line)
                break
        else:
            yield Frame(stream, time, line + b"\n")
    time += 1
    while rest:
        yield Frame(stream, time, rest[:PART_SIZE])
        rest = rest[PART_SIZE:]
