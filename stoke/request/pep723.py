"""PEP 723: the metadata that a script carries in its comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stoke.files.untrusted import TooMuchError, parse_toml
from stoke.request.requirement import RequirementError, check_bounds, check_requirement

_FIELD = "script metadata"
_OPENING = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_CLOSING = "# ///"


@dataclass(frozen=True)
class ScriptMetadata:
    """The requirements of a script, as written, and its bounds on Python."""

    dependencies: list[str]
    requires_python: str | None
    uv: dict[str, Any] = field(default_factory=dict)
    """The `[tool.uv]` table, unchecked."""


def read_script_metadata(code: str) -> ScriptMetadata | None:
    """Return the script's metadata; None without any (a block that is never closed is none).

    `RequirementError` for two `script` blocks, bad TOML (with the line in the code), and fields
    that are not what PEP 723 says.
    """
    if "# /// script" not in code:
        return None
    # Python ends a line at a bare \r too.
    lines = re.split(r"\r\n?|\n", code.removeprefix("\ufeff"))
    found = [(first, last) for kind, first, last in _blocks(lines) if kind == "script"]
    if not found:
        return None
    if len(found) > 1:
        second = found[1][0]
        raise RequirementError(
            _FIELD, lines[second], f"begins a second block at line {second + 1}; a script has one"
        )
    return _read(lines, *found[0])


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (type, opening line's index, closing line's index) as the regular expression of PEP 723
    matches them.

    A block reaches over consecutive comment lines from the first opening line to the last closing line,
    with at least one line between them. The expression takes quadratic time on many unclosed blocks;
    this takes linear time.
    """
    at = 0
    while at < len(lines):
        kind, opening, closing = "", -1, -1
        while at < len(lines) and (lines[at] == "#" or lines[at].startswith("# ")):
            if opening < 0:
                if match := _OPENING.fullmatch(lines[at]):
                    kind, opening = match[1], at
            elif lines[at] == _CLOSING and at > opening + 1:
                closing = at
            at += 1
        if closing > 0:
            yield kind, opening, closing
        at += 1


def _read(lines: list[str], opening: int, closing: int) -> ScriptMetadata:
    # Every line is "# ..." or a bare "#".
    toml = "".join(line[2:] + "\n" for line in lines[opening + 1 : closing])
    try:
        fields = parse_toml(toml)
    except TooMuchError as error:
        raise RequirementError(_FIELD, lines[opening], str(error)) from None
    except ValueError as error:
        raise _toml_error(str(error), lines, opening, closing) from None
    dependencies = _dependencies(fields.get("dependencies", []))
    for text in dependencies:
        check_requirement(text, _FIELD)
    requires_python = fields.get("requires-python")
    if requires_python is not None:
        if not isinstance(requires_python, str):
            raise RequirementError(_FIELD, "requires-python", 'must be text, such as ">=3.11"')
        check_bounds(requires_python, _FIELD)
    tool = fields.get("tool", {})
    uv = tool.get("uv", {}) if isinstance(tool, dict) else {}
    if not isinstance(uv, dict):
        raise RequirementError(_FIELD, "tool.uv", "must be a table")
    return ScriptMetadata(dependencies, requires_python, uv)


def _dependencies(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequirementError(_FIELD, "dependencies", "must be a list of texts")
    return value


def _toml_error(message: str, lines: list[str], opening: int, closing: int) -> RequirementError:
    """Return the error with its line in the code instead of the line in the block."""
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)\Z", message)
    if place is None:
        return RequirementError(_FIELD, lines[opening], f"is not TOML: {message}")
    at = opening + int(place[1]) if place[1] else closing
    what = message[: place.start()]
    return RequirementError(_FIELD, lines[at], f"is not TOML at line {at + 1}: {what}")
