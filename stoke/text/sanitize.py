"""Sanitize strings from outside before they reach a terminal: log lines, names, errors.

Sanitized text has no escape sequence, no control character except the tab, no character that changes
the reading direction, and no lone surrogate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# A complete escape sequence is removed with its payload. Of an incomplete one only the introducer is
# removed: an unterminated OSC must not hide the rest of a line, as it does on a real terminal. Payloads
# exclude everything that begins or cancels a sequence, so no text is scanned twice.
_SEQUENCES = r"""
    (?:\x1b\[|\x9b) [0-?]{0,256}+ [ -/]{0,16}+ [@-~]                                     # CSI
  | (?:\x1b\]|\x9d) [^\x07\x18\x1a\x1b\x80-\x9f\r\n]{0,65536}+ (?:\x07|\x1b\\|\x9c)      # OSC
  | (?:\x1b[PX^_]|[\x90\x98\x9e\x9f]) [^\x18\x1a\x1b\x80-\x9f\r\n]{0,65536}+ (?:\x1b\\|\x9c)
  | \x1b[ -/]{0,16}+[0-~]                                                                # ESC x
"""
_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
_REMOVED = re.compile(rf"{_SEQUENCES}|{_CHARACTERS}", re.VERBOSE)
# Each of these starts the line again: the next state of a progress bar.
_STATE_ENDS = re.compile(r"\r|(?:\x1b\[|\x9b)(?:2K|[01]?G)")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_LINE_ENDS = re.compile(r"\r\n?|[\n\u2028\u2029]")

_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASS|AUTH|COOKIE|DSN", re.IGNORECASE)


def clean(text: str) -> str:
    """Return `text` as one harmless line: line ends become a space, the tab stays."""
    return _clean(text, " ")


def clean_block(text: str) -> str:
    """Return `text` as harmless lines: every line end becomes `\\n`, the tab stays."""
    return _clean(text, "\n")


def clean_line(raw: bytes) -> str:
    """Return the last state of a log line, such as the last bar of a progress bar.

    Bytes that are not UTF-8 become U+FFFD. A newline at the begin belongs to the line before (see
    `stoke.logs.spool`).
    """
    states = line_states(raw)
    for state in reversed(states[1:]):
        if (cleaned := clean(state)).strip():
            return cleaned
    return clean(states[0])


def line_states(raw: bytes) -> list[str]:
    """Return the states that a log line had on a terminal, such as each bar of a progress bar."""
    text = raw.decode(errors="replace").removeprefix("\n").rstrip("\r\n")
    return _STATE_ENDS.split(text)


def _clean(text: str, line_end: str) -> str:
    if text.isprintable():
        return text
    text = _REMOVED.sub("", text)
    if text.isprintable():  # The usual case: the text held only colours.
        return text
    return _LINE_ENDS.sub(line_end, _SURROGATES.sub("\ufffd", text))


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret by `***`, except those under four characters, which would mask too much."""
    for secret in sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def looks_secret(name: str) -> bool:
    """Return whether a variable's name suggests that its value is a secret."""
    return _SECRET_NAME.search(name) is not None
