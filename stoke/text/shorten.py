"""Shorten a message that repeats a huge text from outside, such as a file name of 60,000 characters."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 2_000
"""Characters."""
_KEPT_END = 500
_MIDDLE = "..."
# A word over 200 characters loses its middle.
_LONG_WORD = re.compile(r"(\S{150})\S{10,}(\S{40})")


def shorten(message: str) -> str:
    """Return `message` with at most `LONGEST_MESSAGE` characters; a shorter one is returned as it is.

    Long words lose their middle first, so that the sentence around a quoted name stays whole. If that
    is not enough, the message loses its own middle: its end often has the fix.
    """
    if len(message) <= LONGEST_MESSAGE:
        return message
    message = _LONG_WORD.sub(rf"\1{_MIDDLE}\2", message)
    if len(message) <= LONGEST_MESSAGE:
        return message
    begin = LONGEST_MESSAGE - _KEPT_END - len(_MIDDLE)
    return message[:begin] + _MIDDLE + message[-_KEPT_END:]
