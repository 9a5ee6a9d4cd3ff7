"""Decode Python code as Python does, and refuse text that is no Python code."""

from __future__ import annotations

import codecs
import io
import os
import re
import shlex

from stoke.errors import RequestError
from stoke.files.untrusted import parse_json

_MAGIC = (
    (b"\x7fELF", "a program"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed"),
    (b"SQLite format 3", "a database"),
    (b"\x89PNG", "a picture"),
)
_DECLARES = re.compile(r"(?:[^\r\n]*(?:\r\n?|\n))?[^\r\n]*coding[:=]")
_FIRST_LINES = re.compile(r"(?:[^\r\n]*(?:\r\n?|\n)){0,2}")


def decode_code(data: bytes, named: str) -> str:
    """Return the code in a file, character for character (CRLF and a byte order mark included).

    Its coding declaration (PEP 263) decides, else it is UTF-8. `RequestError` where Python could not
    read it either, with what to change.
    """
    import tokenize

    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError(
            named,
            "is UTF-16, which Python does not read",
            f"convert it: iconv -f utf-16 -t utf-8 {shlex.quote(named)} > converted.py",
        )
    if b"\0" in data or data.startswith(b"\x1f\x8b"):
        what = next((what for magic, what in _MAGIC if data.startswith(magic)), None)
        if named.endswith(".pyc"):
            raise RequestError(named, "is compiled Python code; give the .py file it was made from")
        detail = f"it is {what}" if what else "it holds NUL bytes"
        raise RequestError(named, f"is not Python code: {detail}")
    try:
        # Python ends a line at a bare \r too.
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(lines).readline)
    except SyntaxError as error:
        encoding = "utf-8"  # Python reports the first bytes that are not UTF-8 as the same error.
        if "unknown encoding" in str(error) or "encoding problem" in str(error):
            raise RequestError(named, f"has a coding declaration that is wrong: {error}") from None
    if encoding == "utf-8-sig":
        encoding = "utf-8"  # Without it, the byte order mark stays part of the code.
    if not _extends_ascii(encoding):
        raise RequestError(named, f"declares {encoding!r}, which cannot hold Python code")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(
            named,
            f"is not {encoding.upper()} at line {line} (byte 0x{data[error.start]:02x})",
            "declare its encoding in the first line, for example: # -*- coding: latin-1 -*-",
        ) from None


def declared_encoding(code: str) -> str:
    """Return the encoding that Python will read a file with this code in, by its declaration.

    UTF-8 without a declaration, and with one that Python refuses: that error is the code's own.
    """
    if not _DECLARES.match(code):
        return "utf-8"
    import tokenize

    first = _FIRST_LINES.match(code + "\n")
    head = re.sub(r"\r\n?", "\n", first[0] if first else "")
    try:
        lines = io.BytesIO(head.encode(errors="replace"))
        encoding, _ = tokenize.detect_encoding(lines.readline)
    except SyntaxError:
        return "utf-8"
    # A byte order mark is part of the code already.
    return encoding if encoding != "utf-8-sig" and _extends_ascii(encoding) else "utf-8"


def _extends_ascii(encoding: str) -> bool:
    """Whether Python can read a declaration in this encoding. rot13 and the like encode no text."""
    try:
        return "# a\n".encode(encoding) == b"# a\n"
    except LookupError:
        return False


def check_encodable(code: str) -> None:
    """Raise `ValueError` for a character that the declared encoding of the code cannot hold."""
    encoding = declared_encoding(code)
    try:
        code.encode(encoding)
    except UnicodeEncodeError as error:
        line = len(re.findall(r"\r\n?|\n", code[: error.start])) + 1
        raise ValueError(
            f"holds {code[error.start]!r} in line {line}, which {encoding}, the encoding that it "
            "declares, does not have; declare utf-8"
        ) from None


def syntax_error(code: str) -> str | None:
    """Return where and why this Python cannot parse the code; None if it can.

    A job may run another version of Python, so this is a warning and no reason to refuse code.
    """
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows the code's own warnings in the job.
            ast.parse(code.removeprefix("\ufeff"))
    except SyntaxError as error:
        return f"line {error.lineno or 1}: {error.msg}"
    except (ValueError, RecursionError, MemoryError):
        pass  # Reported where it matters: NUL bytes as no code, deep nesting by the job's own Python.
    return None


def check_is_code(code: str) -> None:
    """Raise `ValueError` for a notebook: as Python code it is one expression and runs nothing."""
    if is_notebook(json_object(code)):
        raise ValueError(
            f"is a Jupyter notebook, not Python code; {convert_notebook('NOTEBOOK.ipynb')}"
        )


def convert_notebook(path: str) -> str:
    """Return the hint for a notebook that is named where code is expected."""
    script = re.sub(r"(\.ipynb)?$", ".py", os.path.basename(path), count=1)
    return f"convert it: stoke render code {shlex.quote(path)} > {shlex.quote(script)}"


def json_object(text: str) -> dict[str, object] | None:
    """Return the JSON object that the text is, or None."""
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    try:
        found = parse_json(text.lstrip("\ufeff"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_notebook(document: dict[str, object] | None) -> bool:
    """Whether a JSON object is a notebook: its cells are in worksheets before format 4."""
    return (
        document is not None
        and isinstance(document.get("nbformat"), int)
        and ("cells" in document or "worksheets" in document)
    )
