"""Ask before something is changed that cannot be undone."""

from __future__ import annotations

import sys

import click

from stoke.errors import RequestError
from stoke.text.sanitize import clean


def confirm(question: str, field: str, refused: str) -> None:
    """Ask a question on stderr. `RequestError` unless the user answers yes."""
    _require_terminal()
    if not click.confirm(question, default=False, err=True):
        raise RequestError(field, refused)


def confirm_by_name(removes: str, what: str, name: str, refused: str) -> None:
    """Have the user type the name of what is removed. `RequestError` if it is another."""
    _require_terminal()
    typed = click.prompt(
        f"This removes everything {removes}. Type the {what}'s name ({clean(name)}) to confirm",
        default="", show_default=False, err=True,
    )  # fmt: skip
    if typed.strip() != name:
        raise RequestError(what, f"the name does not match; {refused}")


def _require_terminal() -> None:
    if not sys.stdin.isatty():
        raise RequestError("confirmation", "stdin is not a terminal", "pass --yes")
