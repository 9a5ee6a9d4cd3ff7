"""What a spool holds: read whole, and its files closed again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from stoke.logs.spool import LogLine, SpoolReader


def lines_in(folder: Path) -> list[LogLine]:
    with closing(SpoolReader(folder)) as reader:
        return list(reader.lines())


def spooled(folder: Path, stream: int) -> bytes:
    """The spooled bytes of one stream."""
    return b"".join(line.text for line in lines_in(folder) if line.stream == stream)


def size_of(folder: Path) -> tuple[int, int]:
    """(bytes, rows)."""
    with closing(SpoolReader(folder)) as reader:
        return reader.size()
