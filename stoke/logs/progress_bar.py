"""The progress bar that a job draws now, as tqdm does: a last line that it writes over and over."""

from __future__ import annotations

from stoke.logs.spool import LogSource, SpoolReader
from stoke.text.sanitize import clean_line

LONGEST = 2048
"""Bytes at the end of a log that are read."""


def current_bar(source: LogSource) -> str:
    """Return the last state of the bar, sanitized; empty if the last line of the log is none."""
    reader = SpoolReader(source)
    try:
        size, rows = reader.size()
        if not rows:
            return ""
        ((start, _, _),) = reader.rows(rows - 1, 1)
        text = reader.read(max(start, size - LONGEST), size)
    finally:
        reader.close()
    if b"\r" not in text or text.endswith(b"\n"):
        return ""
    return clean_line(text).strip()
