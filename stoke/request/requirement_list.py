"""Split a text of several dependencies, as people write them into one field or option."""

from __future__ import annotations

import re

from stoke.request.requirement import ADDRESS, RequirementError

_SEPARATORS = re.compile(r"[\s,]*")
_RUN = re.compile(r"[^\s,]*")
_WORD = re.compile(r"\S*")
_BLANKS = re.compile(r"[ \t]*")
_TO_COMMA = re.compile(r"[^,\r\n]*")
_LINE = re.compile(r"[^\r\n]*")
_NAME_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Version clauses as written, right or wrong. A comma or a blank belongs to them only if an operator
# follows it, because no requirement begins with an operator.
_CLAUSES_LIKE = re.compile(
    r"[<>=!~]++[ \t]*+[^\s,;()]*+(?:[ \t]*+(?:,[ \t]*+)?[<>=!~]++[ \t]*+[^\s,;()]*+)*+"
)
_MARKER_TOKEN = re.compile(
    r"""[ \t]*+(?:
        (?P<value>'[^'\r\n]*' | "[^"\r\n]*")
      | (?P<operator>[<>=!~]+ | not[ \t]+in\b | in\b)
      | (?P<joint>(?:and|or)(?=[ \t('"]))
      | (?P<variable>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<opening>\()
      | (?P<closing>\))
    )""",
    re.VERBOSE,
)


def parse_list(text: str, field: str = "dependencies") -> list[str]:
    """Split a list between commas, blanks or line ends: `pandas>=2,<3 numpy` is two requirements.

    Each is exactly what was written, stripped, and unchecked: text that is no requirement is one item,
    for `check_requirement` to refuse. `RequirementError` only for a bracket or quote that is never
    closed, where no end can be told. A requirement ends with its line. An address ends at a blank, and
    commas right at its end separate.
    """
    found: list[str] = []
    at = _skip(_SEPARATORS, text, 0)
    while at < len(text):
        end = _requirement_end(text, at, f"{field}[{len(found)}]")
        found.append(text[at:end].rstrip())
        at = _skip(_SEPARATORS, text, end)
    return found


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _requirement_end(text: str, start: int, field: str) -> int:
    """Return where the requirement that begins at `start` ends; always behind `start`."""
    if text[start] in "'\"":
        return _skip(_RUN, text, _closed(text, start, start, text[start], field))
    if ADDRESS.match(text, start):
        return _marker_end(text, start, _address_end(text, start), field)
    end = _skip(_NAME_LIKE, text, start)
    if end == start:
        return _skip(_RUN, text, start)
    here = _skip(_BLANKS, text, end)
    if text.startswith("[", here):
        end = _closed(text, start, here, "]", field)
        here = _skip(_BLANKS, text, end)
    if text.startswith("@", here):
        end = _address_end(text, _skip(_BLANKS, text, here + 1))
    elif text.startswith("(", here):
        end = _closed(text, start, here, ")", field)
    elif clauses := _CLAUSES_LIKE.match(text, here):
        end = clauses.end()
    return _marker_end(text, start, end, field)


def _address_end(text: str, start: int) -> int:
    end = _skip(_WORD, text, start)
    return start + len(text[start:end].rstrip(","))


def _closed(text: str, start: int, at: int, closing: str, field: str) -> int:
    """Return the position behind the `closing` for the character at `at`, on the same line."""
    line_end = _skip(_LINE, text, at)
    found = text.find(closing, at + 1, line_end)
    if found < 0:
        raise RequirementError(
            field, text[start:line_end], f"has a {text[at]} that is never closed"
        )
    return found + 1


def _marker_end(text: str, start: int, end: int, field: str) -> int:
    """Return the end including a marker that follows, and text right behind it."""
    here = _skip(_BLANKS, text, end)
    if text.startswith(";", here):
        end = _marker(text, start, here + 1, field)
    elif end > start and text[end - 1] == ";":  # `name @ https://h/x; marker` lacks a blank
        end = _marker(text, start, end, field)
    return _skip(_RUN, text, end)


def _marker(text: str, start: int, at: int, field: str) -> int:
    """Return the position behind the marker at `at`. A broken one ends at a comma or with its line."""
    wanted, depth = "left", 0
    while token := _MARKER_TOKEN.match(text, at):
        kind = token.lastgroup
        if wanted == "left" and kind == "opening":
            depth += 1
        elif wanted in ("left", "right") and kind in ("value", "variable"):
            wanted = "operator" if wanted == "left" else "joint"
        elif wanted == "operator" and kind == "operator":
            wanted = "right"
        elif wanted == "joint" and kind == "closing" and depth:
            depth -= 1
        elif wanted == "joint" and kind == "joint":
            wanted = "left"
        else:
            break
        at = token.end()
    if wanted == "joint" and not depth:
        return at
    here = _skip(_BLANKS, text, at)
    if wanted != "joint" and text[here : here + 1] in ("'", '"'):
        at = _closed(text, start, here, text[here], field)
    return _skip(_TO_COMMA, text, at)
