"""The beginning of a result, read for the screen: text, a table, a tree, a picture, or nothing.

A job wrote the file, so reading is bounded, no link is followed, and every text is sanitized.
"""

from __future__ import annotations

import csv
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoke.errors import StokeError
from stoke.files.untrusted import parse_json
from stoke.text.sanitize import clean, clean_block
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from stoke.results.decoded import Picture

MAX_BYTES = 256 * 1024
MOST_LINES = 2_000
LONGEST_LINE = 2_000
MOST_ROWS, MOST_COLUMNS, LONGEST_CELL = 500, 40, 80
MOST_NODES, MOST_DEPTH = 2_000, 30
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_one_at_a_time = threading.Lock()
"""Decoding takes a process, and a user may move through many files."""


@dataclass
class Node:
    """A value of a JSON document: its label, and what is in it."""

    label: str
    inner: list[Node] = field(default_factory=list)


@dataclass
class Preview:
    """What to show; the first of these that is not None. `note` says what is left out."""

    table: list[list[str]] | None = None
    """Rows of the same length; the first has the names of the columns."""
    tree: Node | None = None
    markdown: str | None = None
    picture: Picture | None = None
    text: str | None = None
    note: str = ""


def read_preview(
    path: Path,
    space: tuple[int, int] = (80, 48),
    wanted: Callable[[], bool] = lambda: True,
) -> Preview:
    """Read the beginning of a file. `StokeError` if it cannot be read.

    `space` is what a picture may take, in pixels: a cell has two. Decoding begins only if `wanted`.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StokeError(f"{path.name} is not a regular file")
            data = file.read(MAX_BYTES)
            decoded = _decoded(file.fileno(), data, status.st_size, space, wanted)
            if decoded is not None:
                return decoded
    except OSError as error:
        raise StokeError(f"cannot read {path.name}: {error.strerror}") from error
    cut = status.st_size > len(data)
    note = f"the first {human_bytes(len(data))} of {human_bytes(status.st_size)}" if cut else ""
    if b"\0" in data[:8192]:
        return Preview(note=f"binary, {human_bytes(status.st_size)}")
    text = data.decode("utf-8-sig", "replace")
    kind = path.suffix.lower()
    if kind in _SEPARATORS:
        rows = _table(text, _SEPARATORS[kind], cut)
        if rows:
            return Preview(table=rows, note=note or _more(len(rows), MOST_ROWS, "rows"))
    if kind == ".json" and not cut:
        try:
            return Preview(tree=_tree(parse_json(text)))
        except ValueError:
            pass  # Shown as text.
    if kind in (".md", ".markdown"):
        return Preview(markdown=clean_block(_bounded(text)), note=note)
    return Preview(text=clean_block(_bounded(text)), note=note)


def _decoded(
    file: int, data: bytes, size: int, space: tuple[int, int], wanted: Callable[[], bool]
) -> Preview | None:
    """Return the preview of a picture or a Parquet file; None for a file of another kind."""
    from stoke.results.image_header import read_header

    header = read_header(data)
    if header is None and data[:4] != b"PAR1":
        return None
    from stoke.results.decoded import decode_picture, decode_table

    what = "Parquet" if header is None else header.format
    facts = [what] if header is None else [what, f"{header.width:,} x {header.height:,}"]
    os.lseek(file, 0, os.SEEK_SET)
    try:
        with _one_at_a_time:
            if not wanted():
                return Preview()
            if header is not None:
                picture = decode_picture(file, *space)
                return Preview(picture=picture, note=", ".join([*facts, human_bytes(size)]))
            table = decode_table(file, MOST_ROWS, MOST_COLUMNS)
    except StokeError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Preview(note=clean(f"{', '.join([*facts, human_bytes(size)])}; {error.what}{hint}"))
    facts += [f"{table.all_rows:,} rows", f"{table.all_columns:,} columns"]
    rows = [[_cell(value) for value in row] for row in table.rows]
    return Preview(table=rows, note=", ".join([*facts, human_bytes(size)]))


def _more(count: int, most: int, what: str) -> str:
    return f"the first {most:,} {what}" if count >= most else ""


def _bounded(text: str) -> str:
    lines = text.split("\n", MOST_LINES)[:MOST_LINES]
    return "\n".join(
        line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…" for line in lines
    )


def _table(text: str, separator: str, cut: bool) -> list[list[str]]:
    """Return the rows of a table, each of the same length; none if it is no CSV."""
    lines = text.splitlines(keepends=True)
    if cut and len(lines) > 1:
        lines.pop()
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=separator):
            rows.append([_cell(value) for value in row[:MOST_COLUMNS]])
            if len(rows) >= MOST_ROWS:
                break
    except csv.Error:
        return []
    columns = max(map(len, rows), default=0)
    return [row + [""] * (columns - len(row)) for row in rows] if columns else []


def _cell(value: str) -> str:
    value = clean(value[: 4 * LONGEST_CELL])
    return value if len(value) <= LONGEST_CELL else value[:LONGEST_CELL] + "…"


def _tree(value: Any) -> Node:
    left = MOST_NODES

    def made(name: str, value: Any, depth: int) -> Node:
        nonlocal left
        left -= 1
        if isinstance(value, dict):
            node = Node(f"{name}{{}} {len(value):,}")
            items = [(_cell(str(key)), one) for key, one in value.items()]
        elif isinstance(value, list):
            node = Node(f"{name}[] {len(value):,}")
            items = [(str(number), one) for number, one in enumerate(value)]
        else:
            shown = value if isinstance(value, str) else repr(value)
            return Node(f"{name}{_cell(shown)}")
        for key, one in items:
            if left <= 0 or depth >= MOST_DEPTH:
                node.inner.append(Node("…"))
                break
            node.inner.append(made(f"{key}: ", one, depth + 1))
        return node

    return made("", value, 0)
