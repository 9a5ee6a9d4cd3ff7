"""Read a job's results page by page: the list of its files, or the text of one."""

from __future__ import annotations

import codecs
import os
from typing import Any

from stoke.agents.json_text import UNTRUSTED, json_size
from stoke.client.job_results import JobResults
from stoke.errors import EngineError, RequestError
from stoke.text.sanitize import clean, clean_block
from stoke.text.shorten import shorten

MOST_REFUSED_BYTES = 4_000


def list_page(results: JobResults, offset: int, limit: int) -> dict[str, Any]:
    """Return the files from number `offset` on whose entries take at most `limit` bytes."""
    files: list[dict[str, Any]] = []
    left = limit
    for file in results[offset:]:
        # A job chooses its names. The sanitized one is what `text_page` takes.
        entry = {"path": clean(file.path), "size": file.size, "sha256": file.sha256}
        left -= json_size(entry)
        if left < 0 and files:
            break
        files.append(entry)
    answer: dict[str, Any] = {
        "files": files,
        "file_count": len(results),
        "bytes": results.bytes,
        "folder": str(results.folder),
    }
    if results.refused_count:
        answer["not_collected_count"] = results.refused_count
        answer["not_collected"] = _first_refused(results)
    following = offset + len(files)
    if following < len(results):
        answer["next_offset"] = following
        answer["next"] = f"for more files: results with offset {following}"
    return answer


def _first_refused(results: JobResults) -> list[dict[str, str]]:
    refused: list[dict[str, str]] = []
    left = MOST_REFUSED_BYTES
    for path, why in results.refused:
        refused.append({"path": shorten(clean(path)), "why": why})
        left -= json_size(refused[-1])
        if left < 0:
            break
    return refused


def text_page(results: JobResults, name: str, offset: int, limit: int) -> dict[str, Any]:
    """Return a text file from byte `offset` on, sanitized, in at most `limit` bytes.

    Raises `RequestError` for a name that is not listed and for a file that is not text.
    """
    path = _find(results, name)
    data, size = _read(results, path, offset, limit)
    while True:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text = clean_block(decoder.decode(data, final=offset + len(data) >= size))
            if b"\0" in data:
                raise ValueError("it has NUL bytes")
        except ValueError:
            raise RequestError(
                "file",
                f"{clean(path)} is not UTF-8 text ({size:,} bytes)",
                f"copy the results: stoke results {results.job_id} -o out",
            ) from None
        if json_size(text) <= limit:
            break
        data = data[: len(data) // 2]
    following = offset + len(data) - len(decoder.getstate()[0])
    answer: dict[str, Any] = {
        "path": clean(path),
        "size": size,
        "text_is": UNTRUSTED,
        "text": text,
    }
    if following < size:
        answer["next_offset"] = following
        answer["next"] = f"for more of it: results with the same file and offset {following}"
    return answer


def _find(results: JobResults, name: str) -> str:
    """Return the path of the file that a list shows as `name`."""
    if any(file.path == name for file in results):
        return name
    shown = [file.path for file in results if clean(file.path) == name]
    if len(shown) == 1:
        return shown[0]
    why = "is the name of several results" if shown else "is not among the job's results"
    raise RequestError("file", f"{name!r} {why}", "call results without file for the list")


def _read(results: JobResults, path: str, offset: int, limit: int) -> tuple[bytes, int]:
    """Return up to `limit` bytes of a result, and its size."""
    try:
        with open(results.path(path), "rb", opener=_open_no_link) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            return file.read(limit), size
    except OSError as error:
        raise EngineError(f"the result {clean(path)} cannot be read: {error.strerror}") from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
