"""Every string from outside passes here before it reaches a terminal: log lines, names, errors.

What is left has no escape sequence, no control character but the tab, nothing that reverses the
reading direction, and no half of a surrogate pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# An escape sequence that is whole goes with all it holds. Of one that is not, only what introduces
# it goes: an unended OSC must not hide the rest of a line, as it does on a real terminal. Payloads
# exclude all that begins or cancels a sequence, so no text is looked at twice.
_SEQUENCES = r"""
    (?:\x1b\[|\x9b) [0-?]{0,256}+ [ -/]{0,16}+ [@-~]                                     # CSI
  | (?:\x1b\]|\x9d) [^\x07\x18\x1a\x1b\x80-\x9f\r\n]{0,65536}+ (?:\x07|\x1b\\|\x9c)      # OSC
  | (?:\x1b[PX^_]|[\x90\x98\x9e\x9f]) [^\x18\x1a\x1b\x80-\x9f\r\n]{0,65536}+ (?:\x1b\\|\x9c)
  | \x1b[ -/]{0,16}+[0-~]                                                                # ESC x
"""
_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
_REMOVED = re.compile(rf"{_SEQUENCES}|{_CHARACTERS}", re.VERBOSE)
# After each of these a line is written anew: a progress bar's next state.
_STATE_ENDS = re.compile(r"\r|(?:\x1b\[|\x9b)(?:2K|[01]?G)")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_LINE_ENDS = re.compile(r"\r\n?|[\n\u2028\u2029]")

_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASS|AUTH|COOKIE|DSN", re.IGNORECASE)


def clean(text: str) -> str:
    """`text` as one harmless line: line ends become a space, the tab stays."""
    return _clean(text, " ")


def clean_block(text: str) -> str:
    """`text` as harmless lines: every line end becomes `\\n`, the tab stays."""
    return _clean(text, "\n")


def clean_line(raw: bytes) -> str:
    """One line of a log, as its last state on a screen: of a progress bar the last bar.

    Bytes that are not UTF-8 become U+FFFD. A newline at the beginning ended the line before (see
    `stoke.logs.spool`).
    """
    states = line_states(raw)
    for state in reversed(states[1:]):
        if (cleaned := clean(state)).strip():
            return cleaned
    return clean(states[0])


def line_states(raw: bytes) -> list[str]:
    """What a line of a log looked like on a screen, one after the other: of a progress bar each bar."""
    text = raw.decode(errors="replace").removeprefix("\n").rstrip("\r\n")
    return _STATE_ENDS.split(text)


def _clean(text: str, line_end: str) -> str:
    if text.isprintable():
        return text
    text = _REMOVED.sub("", text)
    if text.isprintable():  # the usual case: colours were all there was
        return text
    return _LINE_ENDS.sub(line_end, _SURROGATES.sub("\ufffd", text))


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced by `***`; one under four characters would mask too much."""
    for secret in sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def looks_secret(name: str) -> bool:
    """Whether a variable's value is hidden, going by its name."""
    return _SECRET_NAME.search(name) is not None
