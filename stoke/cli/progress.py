"""A progress line for operations that take long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from collections.abc import Callable


class ProgressLine:
    """Overwrite one line of a terminal with the latest progress; without a terminal, do nothing."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._width = 0

    def __call__(self, text: str) -> None:
        if self._shows:
            line = clean(text)[:100]
            click.echo("\r" + line.ljust(self._width), err=True, nl=False)
            self._width = len(line)

    def __enter__(self) -> Callable[[str], None]:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the line, so that another one can be printed."""
        if self._width:
            click.echo("\r" + " " * self._width + "\r", err=True, nl=False)
            self._width = 0
