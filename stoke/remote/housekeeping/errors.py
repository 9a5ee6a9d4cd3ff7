"""Errors of housekeeping."""

from __future__ import annotations


class RefusedError(Exception):
    """Nothing was done: the reason, and a hint at the fix."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
