"""Pictures and Parquet tables of results, decoded by `stoke.results.decode` in a process of its own.

A job wrote the file. Whatever it makes the libraries do ends with that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from stoke.errors import StokeError
from stoke.files.debug import child_environment
from stoke.files.untrusted import parse_json

TIMEOUT = 15.0
"""Seconds until a process that decodes is killed."""
MOST_OUTPUT = 32 * 1024**2
_EXTRAS = {"picture": "images", "table": "parquet"}


class MissingExtraError(StokeError):
    """The library that decodes the file is not installed."""


@dataclass(frozen=True)
class Picture:
    """A picture of square pixels; `pixels` has three bytes for each, row by row."""

    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True)
class Table:
    """The first rows of a table as texts, which are not sanitized. The first row has the names."""

    rows: list[list[str]]
    all_rows: int
    all_columns: int


def decode_picture(file: int, columns: int, rows: int) -> Picture:
    """Decode a picture to fit into `columns` x `rows` pixels. Raises `StokeError`."""
    head, pixels = _decode(file, "picture", columns, rows)
    width, height = head["width"], head["height"]
    if len(pixels) != 3 * width * height:
        raise StokeError("the picture cannot be shown: its pixels are incomplete")
    return Picture(width, height, pixels)


def decode_table(file: int, rows: int, columns: int) -> Table:
    """Decode the beginning of the Parquet file in an open file. Raises `StokeError`."""
    head, _ = _decode(file, "table", rows, columns)
    return Table([head["names"], *head["rows"]], head["all_rows"], head["all_columns"])


def _decode(file: int, kind: str, first: int, second: int) -> tuple[dict[str, Any], bytes]:
    # -P: a PYTHONPATH of the user may hold other packages called `stoke`.
    command = [sys.executable, "-P", "-m", "stoke.results.decode", kind, str(first), str(second)]
    environment = {
        **(child_environment() or os.environ),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    )  # fmt: skip
    timer = threading.Timer(TIMEOUT, process.kill)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read(MOST_OUTPUT)
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    line, _, rest = output.partition(b"\n")
    try:
        head = parse_json(line.decode())
    except ValueError:
        head = {"error": "it needs too much memory or time, or is damaged"}
    if "missing" in head:
        extra = _EXTRAS[kind]
        raise MissingExtraError(
            f"to see it here, install stoke with the extra {extra}", f"uv tool install '.[{extra}]'"
        )
    if "error" in head:
        raise StokeError(f"it cannot be shown: {head['error']}")
    return head, rest
