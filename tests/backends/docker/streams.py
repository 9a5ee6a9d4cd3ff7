"""The engine's log stream, written by hand: what the reader is tested against."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone

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
