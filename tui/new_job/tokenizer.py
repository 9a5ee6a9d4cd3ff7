"""Split lists of packages, as users type and paste them, into items."""

from __future__ import annotations

import re
from collections.abc import Callable

from stoke.errors import RequestError

Parse = Callable[[str], list[str]]
"""Splits a text into items; `RequestError` where the end of one cannot be told."""

SEPARATORS = " ,\t\n"
# Lines that only a requirements file has: options, hashes, continued lines.
_OF_A_FILE = re.compile(r"^\s*-|\s--hash=|\\\s*$", re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#.*")
# `dependencies = [`, as in a pyproject.toml.
_LIST = re.compile(r"^([\w-]+\s*=\s*)?\[(?=\s*([\"']|$))")
# Text that may follow an item and belong to it.
_GOES_ON = ("<1", "and x", "[x]", ";x", "@ x")
_QUOTED = re.compile(r"([\"'])(.*)\1[,\]]*")


def take(text: str, parse: Parse) -> tuple[list[str], str]:
    """Return (the items that further typing cannot change, the rest of the text).

    `pandas>=2,` stays open, because `<3` may follow; `numpy,` is done.
    """
    if text[-1:] not in SEPARATORS:
        return [], text
    try:
        pieces = parse(text)
        if all(len(parse(text + more)) > len(pieces) for more in _GOES_ON):
            return pieces, ""
    except RequestError:
        return [], text
    if len(pieces) < 2:
        return [], text
    return pieces[:-1], text[text.rindex(pieces[-1]) :]


def cut(text: str, parse: Parse) -> list[str]:
    """Return all items of `text`. A line whose end cannot be told is one item, for a check to
    refuse."""
    found = []
    for line in text.splitlines():
        try:
            found += parse(line)
        except RequestError:
            found.append(line.strip())
    return found


def pasted(text: str, parse: Parse) -> list[str]:
    """Return all items of a pasted list, without comments and without the quotes and brackets of a list
    in Python or TOML."""
    lines = [_LIST.sub("", _COMMENT.sub("", line).strip()) for line in text.splitlines()]
    found = []
    for piece in cut("\n".join(lines), parse):
        quoted = _QUOTED.fullmatch(piece)
        found.append(quoted[2] if quoted else piece)
    return [piece for piece in found if piece not in ("", "]")]


def is_requirements_file(text: str) -> bool:
    """Whether the text has lines that only a requirements file has."""
    return "\n" in text.strip() and _OF_A_FILE.search(text) is not None
