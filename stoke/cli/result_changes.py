"""The differences of two jobs' results, as `stoke results` and `stoke compare` print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.text.sanitize import clean
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from stoke.results.collect import ResultFile
    from stoke.results.compare import ResultChange

MARKS = {"added": "+", "removed": "-", "changed": "~"}


def change_line(one: ResultChange) -> str:
    sides = " -> ".join(one.sides(human_bytes))
    return f"{MARKS[one.change]} {clean(one.path)}  {sides}"


def change_document(one: ResultChange) -> dict[str, object]:
    return {
        "path": one.path,
        "change": one.change,
        "first": file_document(one.first),
        "second": file_document(one.second),
    }


def file_document(file: ResultFile | None) -> dict[str, object] | None:
    return file and {"path": file.path, "bytes": file.size, "sha256": file.sha256}
